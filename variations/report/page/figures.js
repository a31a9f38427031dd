"use strict";
// What failed, and the runs in figures: counted over the whole dataset, whatever is filtered.

const NUMBER = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
const usd = (number) => `${number.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 3 })} USD`;

function showFailures(section, onShow) {
  section.replaceChildren(make("h2", { textContent: "What was not kept, and why" }));
  if (!data.failures.length) {
    section.append(make("p", { textContent: "Nothing: every image that was wanted is here." }));
    return;
  }
  const rows = data.failures.map((failure) => {
    const button = make("button", { type: "button", textContent: "Show", onclick: () => onShow(failure) });
    const status = make("span", { className: "status", textContent: failure.status });
    status.dataset.status = failure.status;
    return [
      status,
      failure.verdict ?? failure.error_code ?? EMPTY,
      count(failure.count),
      failure.cost_usd ? usd(failure.cost_usd) : EMPTY,
      make("div", {}, ...(failure.samples.length ? failure.samples : [EMPTY]).map((text) => make("p", {}, text))),
      button,
    ];
  });
  const told = "What is flagged for several reasons is counted under each of them.";
  if (data.failures.reduce((sum, failure) => sum + failure.count, 0) > data.total - (data.statuses.kept ?? 0))
    section.append(make("p", { className: "soft", textContent: told }));
  section.append(tableOf(["status", "reason", "rows", "cost", "some of them say", ""], rows, new Set([2, 3])));
}

function showFigures(section) {
  const charts = make("div", { className: "charts" }, ...data.histograms.map(chartOf));
  const statuses = Object.entries(data.statuses).map(([status, number]) => `${count(number)} ${status}`);
  const told = make("p", { className: "soft", textContent: `${statuses.join(", ")} · ${usd(data.cost_usd)}` });
  section.replaceChildren(
    make("h2", { textContent: `The runs in figures: all ${count(data.total)} rows` }),
    told,
    charts,
  );
  if (!data.runs.length) return;
  const rows = data.runs.map((run) => [
    run.run_id,
    (run.started_at ?? EMPTY).replace("T", " ").replace("+00:00", ""),
    run.seconds === null ? EMPTY : `${NUMBER.format(run.seconds)} s`,
    ...["wanted", "kept", "failed", "unknown", "dropped"].map((name) => count(run[name] ?? 0)),
    usd(run.cost_usd ?? 0),
    run.requests_per_image === null ? EMPTY : NUMBER.format(run.requests_per_image),
    run.stopped_by || EMPTY,
  ]);
  const names = [
    "run",
    "began (UTC)",
    "time",
    "wanted",
    "kept",
    "failed",
    "unknown",
    "dropped",
    "cost",
    "requests an image",
    "stopped by",
  ];
  section.append(make("h2", { textContent: "Runs" }), tableOf(names, rows, new Set([2, 3, 4, 5, 6, 7, 8, 9])));
}

function tableOf(names, rows, numeric) {
  const cell = (tag, content, at) => make(tag, { className: numeric.has(at) ? "number" : "" }, content);
  const head = make("tr", {}, ...names.map((name, at) => cell("th", name, at)));
  const body = rows.map((row) => make("tr", {}, ...row.map((content, at) => cell("td", content, at))));
  return make("div", { className: "table" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
}

function chartOf({ title, unit, kind, start, step, bars, max, note, count: values }) {
  const [width, height] = [420, 150];
  const most = Math.max(...bars);
  const barWidth = width / Math.max(bars.length, 8);
  const nearest = (value) => Number(value.toPrecision(12));
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}: ${note}` });
  bars.forEach((bar, at) => {
    const from = nearest(start + at * step);
    const to = nearest(from + step);
    const isLast = at === bars.length - 1 && max > to;
    const label =
      kind === "whole" && step === 1
        ? `${NUMBER.format(from)}${isLast ? " or more" : ""}`
        : `${shownAt(kind, from)} – ${isLast ? shownAt(kind, max) : shownAt(kind, to)}`;
    const tall = bar && Math.max(1.5, (bar / most) * (height - 4));
    const shape = svg("rect", {
      x: at * barWidth + 0.75,
      y: height - tall,
      width: Math.max(1, barWidth - 1.5),
      height: tall,
      rx: 1,
    });
    shape.append(svg("title", {}, `${label} ${unit}: ${counted(bar, "image")}`));
    drawing.append(shape);
  });
  drawing.append(svg("line", { x1: 0, x2: width, y1: height, y2: height }));
  const end = nearest(start + bars.length * step);
  const places = kind === "whole" && step === 1 ? [start, nearest(end - 1)] : [start, end];
  const texts = step
    ? places.map((place, at) => shownAt(kind, place) + (at && max > end ? " and more" : ""))
    : [shownAt(kind, start)];
  const axis = make(
    "div",
    { className: "axis" },
    ...[...new Set(texts)].map((text) => make("span", { textContent: `${text} ${unit}` })),
  );
  axis.style.width = `${(100 * bars.length * barWidth) / width}%`;
  const told = make("p", {}, `${counted(values, "image")} · ${note}`);
  return make(
    "figure",
    {},
    make("h3", { textContent: title }),
    make("p", { className: "most", textContent: counted(most, "image") }),
    drawing,
    axis,
    told,
  );
}

function shownAt(kind, value) {
  return kind === "time" ? new Date(value * 1000).toISOString().slice(0, 19).replace("T", " ") : NUMBER.format(value);
}

function svg(tag, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}
