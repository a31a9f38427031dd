"use strict";
// One image, large, beside its source, with all that is known of it.

const large = { element: document.getElementById("large"), row: null };
// A presigned link opens the page and nothing beside it.
const isPresigned = /[?&](?:[\w-]+-)?sig(?:nature)?=/i.test(location.search);

function openLarge(row) {
  large.row = row;
  document.getElementById("large-pictures").replaceChildren(sourceFigure(row), variationFigure(row));
  document.getElementById("large-facts").replaceChildren(...factsOf(row));
  const place = wall.rows.indexOf(row);
  document.getElementById("previous").disabled = place <= 0;
  document.getElementById("next").disabled = place < 0 || place === wall.rows.length - 1;
  if (!large.element.open) large.element.showModal();
  document.getElementById("large-facts").scrollTop = 0;
}

// A picture takes the shape of its image, so that its caption stands right below it.
function shaped(shown) {
  const image = shown.querySelector("img");
  image?.addEventListener("load", () => (shown.style.aspectRatio = `${image.naturalWidth} / ${image.naturalHeight}`));
  return shown;
}

function sourceFigure(row) {
  const source = data.source_of_row[row];
  const caption = make("figcaption", {}, make("b", { textContent: "Source " }), sourceName(source));
  return make("figure", { className: "source" }, shaped(pictureOfSource(source)), caption);
}

function variationFigure(row) {
  const fileName = valueOf("file_name", row);
  const shown = pictureOfRow(row);
  const place = wall.rows.indexOf(row);
  const told = place < 0 ? "" : `${count(place + 1)} of ${count(wall.rows.length)}`;
  const output = outputOf(row) && ` · output ${outputOf(row)}`;
  const caption = make("figcaption", {}, make("b", { textContent: "Variation " }), told, output);
  const image = shown.querySelector("img");
  if (image && fileName && !isPresigned) {
    const full = new Image();
    full.onload = () => {
      // Until it is decoded the thumbnail stays: a picture that is decoded beside the drawing leaves its place empty.
      image.decoding = "sync";
      image.src = full.src;
    };
    full.onerror = () => caption.append(" · the image itself is not beside this page; this is its thumbnail");
    full.src = `./${fileName.split("/").map(encodeURIComponent).join("/")}`;
  } else if (image && isPresigned) {
    caption.append(" · thumbnail: a presigned link opens this page alone");
  }
  return make("figure", {}, shaped(shown), caption);
}

function factsOf(row) {
  const parts = [];
  for (const group of new Set(columns.map((column) => column.group))) {
    const list = make("dl");
    for (const column of columns) {
      if (column.group !== group) continue;
      const text = column.text(row);
      list.append(
        make("dt", { textContent: column.name }),
        make("dd", { textContent: text, className: text === EMPTY ? "empty" : "" }),
      );
    }
    parts.push(make("h2", { textContent: group }), list);
  }
  return parts;
}

function moveLarge(key) {
  const place = wall.rows.indexOf(large.row);
  const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
  const jump = { ArrowUp: -1, ArrowDown: 1 }[key];
  if (place < 0 || (!step && !jump)) return false;
  let next = place + (step ?? jump);
  // Up and down lead to the first variation of another source.
  const sourceAt = (at) => data.source_of_row[wall.rows[at]];
  if (jump) {
    while (next in wall.rows && sourceAt(next) === sourceAt(place)) next += jump;
    while (jump < 0 && next - 1 in wall.rows && sourceAt(next - 1) === sourceAt(next)) next -= 1;
  }
  if (next in wall.rows) openLarge(wall.rows[next]);
  return true;
}
