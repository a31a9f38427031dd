"use strict";
// What is shown: columns, filters, order. Nothing in here touches the page.

const data = JSON.parse(document.getElementById("data").textContent);
const EMPTY = "–";
const MOST_CHOICES = 30;
const MOST_NUMBERS = 12;
const SEARCHED = ["variation_id", "request_id", "error", "error_code", "notes", "file_name"];
const FILTERED = [
  "status",
  "split",
  "verdict",
  "error_code",
  "notes",
  "attempt",
];
const MEASURES = ["source_distance", "sibling_distance", "contrast", "total_seconds"];
const FILTERED_LAST = [...MEASURES, "format", "run_id"];
const NOT_SORTED = ["schema_version", "shard"];

const count = (number) => number.toLocaleString("en");
const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

class Column {
  constructor({ name, group, kind, values, codes }) {
    Object.assign(this, { name, group, kind, values, codes });
  }

  at(row) {
    return this.codes ? this.values[this.codes[row]] : this.values[row];
  }

  text(row) {
    return shownValue(this, this.at(row));
  }

  // The values that there are, nulls included.
  distinct() {
    this.all ??= [...new Set(this.values)];
    return this.all;
  }
}

const columns = data.columns.map((column) => new Column(column));
const columnNamed = new Map(columns.map((column) => [column.name, column]));
const rowCount = data.source_of_row.length;

function valueOf(name, row) {
  return columnNamed.get(name)?.at(row) ?? null;
}

function shownValue(column, value) {
  if (value === null || value === "") return EMPTY;
  if (column.name.endsWith("_usd")) return `${value} USD`;
  if (column.name.endsWith("_seconds")) return `${value} s`;
  return String(value);
}

// A verdict is `passed`, or `flagged: ` and its reasons, each of which can be chosen alone.
function choicesOf(column, value) {
  if (column.name !== "verdict" || !value?.startsWith("flagged: ")) return [shownValue(column, value)];
  return value
    .slice("flagged: ".length)
    .split(", ")
    .map((reason) => `flagged: ${reason}`);
}

class ChoiceFilter {
  constructor(column) {
    this.column = column;
    this.key = `is:${column.name}`;
    this.chosen = new Set();
    this.counts = new Map();
    this.choicesOfValue = new Map(column.distinct().map((value) => [value, choicesOf(column, value)]));
    this.choices = [...new Set([...this.choicesOfValue.values()].flat())];
    const size = (choice) => (column.kind === "number" ? parseFloat(choice) : 0);
    this.choices.sort(
      // What has no value comes last.
      (one, other) => (one === EMPTY) - (other === EMPTY) || size(one) - size(other) || one.localeCompare(other, "en"),
    );
  }

  get isSet() {
    return this.chosen.size > 0;
  }

  passes(row) {
    return !this.isSet || this.choicesOfValue.get(this.column.at(row)).some((choice) => this.chosen.has(choice));
  }

  count(row) {
    for (const choice of this.choicesOfValue.get(this.column.at(row)))
      this.counts.set(choice, (this.counts.get(choice) ?? 0) + 1);
  }

  clear() {
    this.chosen.clear();
  }

  write(parameters) {
    for (const choice of this.chosen) parameters.append(this.key, choice);
  }

  read(parameters) {
    this.chosen = new Set(parameters.getAll(this.key).filter((choice) => this.choices.includes(choice)));
  }
}

class RangeFilter {
  constructor(column) {
    this.column = column;
    this.counts = new Map();
    const numbers = column.distinct().filter((value) => value !== null);
    this.least = numbers.reduce((one, other) => Math.min(one, other));
    this.most = numbers.reduce((one, other) => Math.max(one, other));
    this.clear();
  }

  get isSet() {
    return this.low !== null || this.high !== null;
  }

  passes(row) {
    if (!this.isSet) return true;
    const value = this.column.at(row);
    return value !== null && value >= (this.low ?? value) && value <= (this.high ?? value);
  }

  count() {}

  clear() {
    this.low = this.high = null;
  }

  write(parameters) {
    if (this.low !== null) parameters.set(`min:${this.column.name}`, this.low);
    if (this.high !== null) parameters.set(`max:${this.column.name}`, this.high);
  }

  read(parameters) {
    this.low = numberOr(parameters.get(`min:${this.column.name}`), null);
    this.high = numberOr(parameters.get(`max:${this.column.name}`), null);
  }
}

class SearchFilter {
  constructor() {
    this.counts = new Map();
    this.searched = columns.filter(
      ({ name, group }) => ["Source", "Labels"].includes(group) || SEARCHED.includes(name),
    );
    this.clear();
  }

  get isSet() {
    return this.words.length > 0;
  }

  set(query) {
    this.query = query;
    this.words = query.toLowerCase().split(/\s+/).filter(Boolean);
  }

  textOf(row) {
    return this.searched
      .map((column) => column.at(row) ?? "")
      .join("\n")
      .toLowerCase();
  }

  passes(row) {
    if (!this.isSet) return true;
    this.texts ??= Array.from({ length: rowCount }, (_, at) => this.textOf(at));
    return this.words.every((word) => this.texts[row].includes(word));
  }

  count() {}

  clear() {
    this.set("");
  }

  write(parameters) {
    if (this.query) parameters.set("q", this.query);
  }

  read(parameters) {
    this.set(parameters.get("q") ?? "");
  }
}

function numberOr(text, otherwise) {
  return text === null || text.trim() === "" || !Number.isFinite(Number(text)) ? otherwise : Number(text);
}

function filterOf(column) {
  const values = column.distinct();
  // That all images are in one split is worth knowing, too.
  const isTold = column.name === "split" && values.some(isThere);
  if (values.length < 2 && !isTold) return null;
  // Nobody looks for one distance, however few there are.
  if (MEASURES.includes(column.name)) return values.filter(isThere).length > 1 ? new RangeFilter(column) : null;
  const isLong = values.length > (column.kind === "number" ? MOST_NUMBERS : MOST_CHOICES);
  if (!isLong) return new ChoiceFilter(column);
  // Of many seeds nobody looks for a range.
  return column.kind === "number" && column.name !== "seed" ? new RangeFilter(column) : null;
}

// In the order in which they are offered: what became of it, labels, parameters, measures, the rest.
const offered = [
  ...FILTERED.map((name) => columnNamed.get(name)),
  ...columns.filter((column) => column.group === "Labels"),
  ...columns.filter((column) => column.group === "Parameters"),
  ...FILTERED_LAST.map((name) => columnNamed.get(name)),
];
const search = new SearchFilter();
const filters = offered.map((column) => column && filterOf(column)).filter(Boolean);

// What tells the variations of this dataset apart; the seed nearly always does, and says little. The number of outputs
// is told with each of them.
const varying = columns.filter(
  ({ name, group, values }) =>
    group === "Parameters" && !["seed", "num_outputs"].includes(name) && new Set(values.filter(isThere)).size > 1,
);
const sortable = columns.filter(
  (column) => column.kind !== "text" && !NOT_SORTED.includes(column.name) && column.distinct().length > 1,
);

function isThere(value) {
  return value !== null;
}

// Return the rows that pass all filters. A choice is counted among what passes all others.
function passing() {
  const all = [search, ...filters];
  for (const filter of all) filter.counts.clear();
  const rows = [];
  for (let row = 0; row < rowCount; row++) {
    let failing = null;
    let failures = 0;
    for (const filter of all) {
      if (filter.passes(row)) continue;
      failing = filter;
      if (++failures > 1) break;
    }
    if (failures === 0) {
      rows.push(row);
      for (const filter of filters) filter.count(row);
    } else if (failures === 1) {
      failing.count(row);
    }
  }
  return rows;
}

// Sort rows by a column, those without a value last; without a column they lie as in the dataset.
function sorted(rows, column, descending) {
  if (!column) return descending ? rows.reverse() : rows;
  const sign = descending ? -1 : 1;
  return rows.sort((one, other) => {
    const [a, b] = [column.at(one), column.at(other)];
    if (a === null || b === null) return (a === null) - (b === null) || one - other;
    return sign * (a < b ? -1 : a > b ? 1 : 0) || one - other;
  });
}

function sourceName(source) {
  const { id, uri } = data.sources[source];
  return id ?? uri ?? "a source without a name";
}

function parametersText(row) {
  const there = varying.filter((column) => isThere(column.at(row)));
  const texts = there.map((column) => {
    const name = column.name.replace("num_inference_steps", "steps").replaceAll("_", " ");
    return column.kind === "number" ? `${name} ${column.at(row)}` : column.at(row);
  });
  return texts.join(" · ");
}

// Return which output of its request a row is; nothing where only one was asked for.
function outputOf(row) {
  const [outputs, index] = [valueOf("num_outputs", row), valueOf("output_index", row)];
  return outputs > 1 && index !== null ? `${index + 1} of ${outputs}` : "";
}

// Return why an image is flagged; nothing of one that is not.
function flagsOf(row) {
  const verdict = valueOf("verdict", row);
  return verdict?.startsWith("flagged: ") ? verdict.slice("flagged: ".length) : "";
}

// Tell what a picture shows, for those who do not see it.
function describe(row) {
  const status = valueOf("status", row);
  const what = status === "kept" ? "Variation" : `Variation (${status})`;
  const labels = columns.filter((column) => column.group === "Labels" && isThere(column.at(row)));
  const facts = [
    parametersText(row),
    `seed ${valueOf("seed", row) ?? EMPTY}`,
    outputOf(row) && `output ${outputOf(row)}`,
    ...labels.map((column) => `${column.name} ${column.text(row)}`),
  ];
  const error = status === "kept" ? null : (valueOf("error", row) ?? valueOf("error_code", row));
  const parts = [`${what} of ${sourceName(data.source_of_row[row])}`, facts.filter(Boolean).join(", "), error];
  return parts.filter(Boolean).join(": ");
}

function itemName(row) {
  const output = valueOf("output_index", row);
  return valueOf("variation_id", row) + (output ? `-${output}` : "");
}
