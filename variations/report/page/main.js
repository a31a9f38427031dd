"use strict";
// What is chosen, the address that holds it, and the keys.

const byId = (id) => document.getElementById(id);
const VIEWS = ["images", "failures", "figures", ...(data.leaks ? ["leaks"] : [])];
const SIZES = [110, 170, 260];
const USUAL_SIZE = innerWidth < 600 ? 110 : 170;
const state = { view: "images", sort: "", descending: false, grouped: true, size: USUAL_SIZE };

function readAddress() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  state.view = VIEWS.find((view) => view === parameters.get("view")) ?? "images";
  state.sort = sortable.find((column) => column.name === parameters.get("sort"))?.name ?? "";
  state.descending = parameters.has("down");
  state.grouped = !parameters.has("flat");
  state.size = SIZES.find((size) => String(size) === parameters.get("size")) ?? USUAL_SIZE;
  for (const filter of [search, ...filters]) filter.read(parameters);
  return parameters.get("item");
}

function writeAddress() {
  const parameters = new URLSearchParams();
  if (state.view !== "images") parameters.set("view", state.view);
  if (state.sort) parameters.set("sort", state.sort);
  if (state.descending) parameters.set("down", "");
  if (!state.grouped) parameters.set("flat", "");
  if (state.size !== USUAL_SIZE) parameters.set("size", state.size);
  for (const filter of [search, ...filters]) filter.write(parameters);
  if (large.element.open) parameters.set("item", itemName(large.row));
  history.replaceState(null, "", `#${parameters}`);
}

function update() {
  for (const view of VIEWS) {
    byId(view).hidden = view !== state.view;
    document.querySelector(`[data-view=${view}]`).setAttribute("aria-current", String(view === state.view));
  }
  byId("tools").hidden = state.view !== "images";
  for (const button of document.querySelectorAll("[data-size]"))
    button.setAttribute("aria-pressed", String(Number(button.dataset.size) === state.size));
  byId("sort").value = state.sort;
  byId("direction").textContent = state.descending ? "↓" : "↑";
  byId("direction").setAttribute("aria-label", state.descending ? "descending" : "ascending");
  byId("grouped").checked = state.grouped;
  if (byId("search").value !== search.query) byId("search").value = search.query;
  wall.captionColumn = columnNamed.get(state.sort) ?? null;
  wall.rows = sorted(passing(), wall.captionColumn, state.descending);
  // The large view moves as the wall is read.
  if (state.grouped) wall.rows = [...bySource(wall.rows).values()].flat();
  wall.isGrouped = state.grouped;
  wall.wanted = state.size;
  updateFilters();
  updateCounts();
  if (state.view === "images") layOut();
  writeAddress();
}

function updateCounts() {
  const sources = new Set(wall.rows.map((row) => data.source_of_row[row])).size;
  const some = wall.rows.length === rowCount ? "" : `${count(wall.rows.length)} of `;
  const sample = rowCount < data.total ? `, a sample of ${count(data.total)}` : "";
  // What was not kept has a row, and no image.
  const what = columnNamed.get("status").distinct().every((status) => status === "kept") ? "image" : "row";
  byId("counts").textContent = `${some}${counted(rowCount, what)} of ${counted(sources, "source")}${sample}`;
  byId("nothing").hidden = wall.rows.length > 0;
  const chosen = filters.filter((filter) => filter.isSet).length;
  byId("chosen-count").textContent = chosen ? ` ${chosen}` : "";
}

const filterParts = [];

function buildFilters() {
  const panel = byId("filters");
  const clear = make("button", { type: "button", textContent: "Clear", onclick: clearFilters });
  panel.append(make("header", {}, make("h2", { textContent: "Filters" }), clear));
  for (const filter of filters) {
    const set = make("fieldset", {}, make("legend", { textContent: filter.column.name.replaceAll("_", " ") }));
    if (filter instanceof RangeFilter) set.append(...rangeInputs(filter));
    else
      set.append(make("div", { className: "choices" }, ...filter.choices.map((choice) => choiceInput(filter, choice))));
    panel.append(set);
  }
}

function choiceInput(filter, choice) {
  const input = make("input", { type: "checkbox" });
  input.onchange = () => {
    if (input.checked) filter.chosen.add(choice);
    else filter.chosen.delete(choice);
    update();
  };
  const number = make("span", { className: "count" });
  const label = make(
    "label",
    { title: choice },
    input,
    make("span", { className: "name", textContent: choice }),
    number,
  );
  filterParts.push(() => {
    const found = filter.counts.get(choice) ?? 0;
    input.checked = filter.chosen.has(choice);
    number.textContent = count(found);
    label.classList.toggle("off", found === 0 && !input.checked);
  });
  return label;
}

function rangeInputs(filter) {
  return ["low", "high"].map((end) => {
    const bound = end === "low" ? filter.least : filter.most;
    const name = `${filter.column.name} ${end === "low" ? "at least" : "at most"}`;
    const input = make("input", { type: "number", step: "any", placeholder: NUMBER.format(bound), label: name });
    input.oninput = () => {
      filter[end] = numberOr(input.value, null);
      update();
    };
    filterParts.push(() => {
      if (numberOr(input.value, null) !== filter[end]) input.value = filter[end] ?? "";
    });
    return input;
  });
}

function updateFilters() {
  for (const updatePart of filterParts) updatePart();
}

function clearFilters() {
  for (const filter of [search, ...filters]) filter.clear();
  update();
}

function showFailure(failure) {
  for (const filter of [search, ...filters]) filter.clear();
  for (const filter of filters) {
    const choice = failure[filter.column.name];
    if (["status", "error_code", "verdict"].includes(filter.column.name) && filter.choices.includes(choice))
      filter.chosen.add(choice);
  }
  state.view = "images";
  update();
  scrollTo(0, 0);
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (large.element.open) {
    if (event.target !== byId("large-facts") || !event.key.match(/Up|Down/))
      if (moveLarge(event.key)) event.preventDefault();
    writeAddress();
    return;
  }
  const isTyping = event.target.matches("input:not([type=checkbox]), select");
  if (event.key === "Escape" && event.target === byId("search")) byId("search").blur();
  if (event.key === "Escape") toggleFilters(false);
  if (isTyping || state.view !== "images") return;
  if (event.key === "/") byId("search").focus();
  else if (!moveOnWall(event.key)) return;
  event.preventDefault();
}

function toggleFilters(isOpen) {
  byId("filters").classList.toggle("open", isOpen);
  byId("filters-button").setAttribute("aria-expanded", String(isOpen));
}

function start() {
  byId("dataset").textContent = data.dataset;
  document.title = `Gallery of ${data.dataset}`;
  byId("dataset").title = data.dataset;
  const kept = data.statuses.kept ?? 0;
  byId("summary").textContent = `${count(kept)} kept · ${usd(data.cost_usd)} · ${data.made_at}`;
  const failed = data.total - kept;
  byId("failed-count").textContent = failed ? count(failed) : "";
  byId("sort").append(make("option", { value: "", textContent: "as in the dataset" }));
  for (const column of sortable)
    byId("sort").append(make("option", { value: column.name, textContent: column.name.replaceAll("_", " ") }));
  buildFilters();
  showFailures(byId("failures"), showFailure);
  showFigures(byId("figures"));
  if (data.leaks) {
    document.querySelector("[data-view=leaks]").hidden = false;
    byId("leak-count").textContent = data.leaks.is_leak ? "!" : "";
    showLeaks(byId("leaks"));
  }

  const on = (id, event, act) => byId(id).addEventListener(event, act);
  on("search", "input", () => (search.set(byId("search").value), update()));
  on("sort", "change", () => ((state.sort = byId("sort").value), update()));
  on("direction", "click", () => ((state.descending = !state.descending), update()));
  on("grouped", "change", () => ((state.grouped = byId("grouped").checked), update()));
  on("clear", "click", clearFilters);
  on("filters-button", "click", () => toggleFilters(!byId("filters").classList.contains("open")));
  for (const button of document.querySelectorAll("[data-size]"))
    button.onclick = () => ((state.size = Number(button.dataset.size)), update());
  for (const button of document.querySelectorAll("[data-view]"))
    button.onclick = () => ((state.view = button.dataset.view), update(), scrollTo(0, 0));
  on("wall", "click", (event) => {
    const tile = event.target.closest(".tile");
    if (!tile) return;
    wall.current = Number(tile.dataset.cell);
    openLarge(rowOfCell(wall.current));
    writeAddress();
  });
  on("previous", "click", () => (moveLarge("ArrowLeft"), writeAddress()));
  on("next", "click", () => (moveLarge("ArrowRight"), writeAddress()));
  on("close", "click", () => large.element.close());
  on("large", "close", () => {
    const cell = wall.cells.indexOf(large.row);
    if (cell >= 0) wall.current = cell;
    focusCurrent();
    writeAddress();
  });
  addEventListener("keydown", onKey);
  addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
  let width = 0;
  new ResizeObserver(() => {
    if (wall.element.clientWidth === width || state.view !== "images") return;
    width = wall.element.clientWidth;
    layOut();
  }).observe(wall.element);
  addEventListener("hashchange", fromAddress);
  fromAddress();
}

function fromAddress() {
  const item = readAddress();
  update();
  if (item === null) {
    large.element.close();
    return;
  }
  for (let row = 0; row < rowCount; row++) if (itemName(row) === item) openLarge(row);
  writeAddress();
}

start();
