"use strict";
// The wall of pictures: only what is in view is in the page. A cell is a row's number, or ~n of source n.

const GAP = 18;
const CAPTION = 26;
const wall = {
  element: document.getElementById("wall"),
  rows: [],
  cells: [],
  lineOfCell: [],
  columnOfCell: [],
  firstOfLine: [],
  groups: [],
  drawn: new Map(),
  side: 0,
  current: 0,
  wanted: 170,
  isGrouped: true,
  captionColumn: null,
};

function layOut() {
  const width = wall.element.clientWidth;
  const groups = wall.isGrouped ? [...bySource(wall.rows)] : [];
  const perLine = tilesALine(width, groups);
  wall.side = (width - GAP * (perLine - 1)) / perLine;
  Object.assign(wall, { cells: [], lineOfCell: [], columnOfCell: [], firstOfLine: [], groups: [] });
  let line = 0;
  let column = 0;
  const put = (cell) => {
    if (column >= perLine) [line, column] = [line + 1, 0];
    wall.firstOfLine[line] ??= wall.cells.length;
    wall.lineOfCell.push(line);
    wall.columnOfCell.push(column++);
    wall.cells.push(cell);
  };
  if (!wall.isGrouped) wall.rows.forEach(put);
  for (const [source, rows] of groups) {
    // A source begins a line where it and its variations do not fit behind the last one.
    const isLong = rows.length + 1 > perLine;
    if (column && (isLong || column + rows.length + 1 > perLine)) [line, column] = [line + 1, 0];
    const group = { line, column, columns: Math.min(rows.length + 1, perLine), first: wall.cells.length };
    put(~source);
    for (const row of rows) {
      // Further lines of variations stand beside their source, not below it, where there is room for that.
      if (column >= perLine) [line, column] = [line + 1, perLine > 3 ? 1 : 0];
      put(row);
    }
    if (isLong) column = perLine;
    wall.groups.push({ ...group, lines: line - group.line + 1, last: wall.cells.length - 1 });
  }
  wall.pitch = wall.side + CAPTION + GAP;
  wall.element.style.height = `${wall.firstOfLine.length * wall.pitch}px`;
  wall.element.style.setProperty("--side", `${wall.side}px`);
  wall.current = Math.min(wall.current, Math.max(0, wall.cells.length - 1));
  redraw();
}

// Return how many tiles stand beside each other: near to the size that is wanted, so that few places stay empty.
function tilesALine(width, groups) {
  const side = (tiles) => (width - GAP * (tiles - 1)) / tiles;
  const usual = Math.max(2, Math.floor((width + GAP) / (wall.wanted + GAP)));
  const lengths = groups.map(([, rows]) => rows.length + 1).sort((one, other) => one - other);
  const length = lengths[lengths.length >> 1] ?? 1;
  const emptyShare = (tiles) => {
    if (length <= tiles) return (tiles % length) / tiles;
    const lines = Math.ceil((length - 1) / (tiles - 1));
    return 1 - length / (lines * tiles);
  };
  let best = usual;
  for (const tiles of [usual + 1, usual - 1, usual + 2]) {
    const isNear = tiles >= 2 && side(tiles) > 0.72 * wall.wanted && side(tiles) < 1.6 * wall.wanted;
    if (isNear && emptyShare(tiles) < emptyShare(best) - 0.1) best = tiles;
  }
  return best;
}

function bySource(rows) {
  const groups = new Map();
  for (const row of rows) {
    const source = data.source_of_row[row];
    if (!groups.has(source)) groups.set(source, []);
    groups.get(source).push(row);
  }
  return groups;
}

function redraw() {
  const hadFocus = wall.element.contains(document.activeElement);
  wall.element.replaceChildren();
  wall.drawn.clear();
  draw();
  if (hadFocus) focusCurrent();
}

// Put into the page what is in view, and a screen above and below, and take out the rest.
function draw() {
  const top = wall.element.getBoundingClientRect().top;
  const lines = wall.firstOfLine.length;
  const firstLine = Math.max(0, Math.floor((-top - innerHeight) / wall.pitch));
  const lastLine = Math.min(lines - 1, Math.floor((-top + 2 * innerHeight) / wall.pitch));
  const inView = new Set();
  if (lines && lastLine >= firstLine) {
    const end = lastLine + 1 < lines ? wall.firstOfLine[lastLine + 1] : wall.cells.length;
    for (let cell = wall.firstOfLine[firstLine]; cell < end; cell++) inView.add(cell);
    for (let group = firstGroupAt(firstLine); wall.groups[group]?.line <= lastLine; group++)
      inView.add(`group ${group}`);
  }
  for (const [key, element] of wall.drawn) {
    if (inView.has(key)) continue;
    element.remove();
    wall.drawn.delete(key);
  }
  const added = document.createDocumentFragment();
  for (const key of inView) {
    if (wall.drawn.has(key)) continue;
    const element = typeof key === "string" ? panelOf(wall.groups[key.slice(6)]) : tileOf(key);
    wall.drawn.set(key, element);
    added.append(element);
  }
  wall.element.append(added);
}

// Groups lie in the order of their lines: the first that reaches down to a line is found by halves.
function firstGroupAt(line) {
  let [low, high] = [0, wall.groups.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (wall.groups[middle].line + wall.groups[middle].lines <= line) low = middle + 1;
    else high = middle;
  }
  return low;
}

function place(element, line, column) {
  element.style.transform = `translate(${column * (wall.side + GAP)}px, ${line * wall.pitch}px)`;
  return element;
}

function panelOf(group) {
  const panel = make("div", { className: "panel" });
  panel.style.width = `${group.columns * (wall.side + GAP) - GAP}px`;
  panel.style.height = `${group.lines * wall.pitch - GAP}px`;
  return place(panel, group.line, group.column);
}

function tileOf(index) {
  const cell = wall.cells[index];
  const tile = cell < 0 ? sourceTile(~cell) : rowTile(cell);
  tile.type = "button";
  tile.tabIndex = index === wall.current ? 0 : -1;
  tile.dataset.cell = index;
  return place(tile, wall.lineOfCell[index], wall.columnOfCell[index]);
}

function sourceTile(source) {
  const name = sourceName(source);
  const title = data.sources[source].uri ?? "";
  const caption = make("span", { className: "caption", title }, make("b", { textContent: name }));
  return make("button", { className: "tile source", label: `Source ${name}` }, pictureOfSource(source), caption);
}

function rowTile(row) {
  const status = valueOf("status", row);
  const shown = pictureOfRow(row);
  // What was dropped says it in the picture's place.
  if (status === "kept" && flagsOf(row)) shown.prepend(make("span", { className: "flag", textContent: flagsOf(row) }));
  const usual = wall.isGrouped ? `seed ${valueOf("seed", row) ?? EMPTY}` : sourceName(data.source_of_row[row]);
  const text = [wall.captionColumn?.text(row), parametersText(row) || usual].filter(Boolean).join(" · ");
  const output = outputOf(row);
  const caption = make(
    "span",
    { className: "caption", title: [text, output].filter(Boolean).join(" · ") },
    make("span", { textContent: text }),
    output && make("span", { className: "output", textContent: output }),
  );
  const tile = make("button", { className: "tile", label: describe(row) }, shown, caption);
  tile.dataset.status = status;
  return tile;
}

function pictureOfSource(source) {
  const { picture, missing, uri } = data.sources[source];
  return pictureOrReason(picture, `Source ${sourceName(source)}`, "no picture of the source", missing ?? uri ?? "");
}

function pictureOfRow(row) {
  const isKept = valueOf("file_name", row) !== null;
  const why = flagsOf(row) || (valueOf("error_code", row) ?? EMPTY);
  const title = isKept ? "no picture" : `${valueOf("status", row)}: ${why}`;
  const reason = (isKept ? data.missing_of_row[row] : valueOf("error", row)) ?? "";
  return pictureOrReason(data.picture_of_row[row], describe(row), title, reason);
}

// Return a small picture; where there is none, what is the matter.
function pictureOrReason(picture, alt, title, reason) {
  if (picture < 0)
    return make(
      "span",
      { className: "picture none" },
      make("b", { textContent: title }),
      make("span", { textContent: reason }),
    );
  const image = make("img", { alt, decoding: "async", draggable: false });
  // Its box is as high as the picture then, and the corners of both are one.
  image.onload = () => image.classList.toggle("high", image.naturalHeight > image.naturalWidth);
  showPicture(image, picture);
  return make("span", { className: "picture" }, image);
}

function focusCurrent() {
  const index = wall.current;
  if (!wall.cells.length) return;
  const [top, height] = [wall.lineOfCell[index] * wall.pitch + wall.element.getBoundingClientRect().top, wall.pitch];
  const covered = document.getElementById("top").getBoundingClientRect().bottom + GAP;
  if (top < covered) scrollBy(0, top - covered);
  else if (top + height > innerHeight) scrollBy(0, top + height - innerHeight);
  draw();
  for (const [key, element] of wall.drawn) if (element.dataset.cell) element.tabIndex = key === index ? 0 : -1;
  wall.drawn.get(index)?.focus({ preventScroll: true });
}

// Move by a line, to the cell that is nearest.
function lineAway(index, lines) {
  const line = wall.lineOfCell[index] + lines;
  if (line < 0 || line >= wall.firstOfLine.length) return index;
  const end = wall.firstOfLine[line + 1] ?? wall.cells.length;
  let best = wall.firstOfLine[line];
  const distance = (cell) => Math.abs(wall.columnOfCell[cell] - wall.columnOfCell[index]);
  for (let cell = best; cell < end; cell++) if (distance(cell) < distance(best)) best = cell;
  return best;
}

function moveOnWall(key) {
  const last = wall.cells.length - 1;
  const moves = {
    ArrowLeft: (at) => at - 1,
    ArrowRight: (at) => at + 1,
    ArrowUp: (at) => lineAway(at, -1),
    ArrowDown: (at) => lineAway(at, 1),
    Home: () => 0,
    End: () => last,
  };
  if (!moves[key] || last < 0) return false;
  // The first key shows where one is.
  if (wall.element.contains(document.activeElement))
    wall.current = Math.min(last, Math.max(0, moves[key](wall.current)));
  focusCurrent();
  return true;
}

// Return the row that a cell opens: its own, or the first one of its source.
function rowOfCell(index) {
  const cell = wall.cells[index];
  return cell < 0 ? wall.cells[index + 1] : cell;
}
