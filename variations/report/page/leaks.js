"use strict";
// What leaks from one split into another: sources that look alike, side by side, and what else was found.

function showLeaks(section) {
  const { summary, pairs, groups, moved, missing, looked_at: looked, max_distance: most } = data.leaks;
  section.replaceChildren(
    make("h2", { textContent: "Leaks between splits, as the last run found them" }),
    make("p", { className: "soft", textContent: `${summary} · looked at: ${looked}` }),
  );
  if (pairs.length) {
    const told = `The nearest of those that look alike: at most ${most} of 64 bits apart`;
    section.append(make("h3", { textContent: told }), make("div", { className: "pairs" }, ...pairs.map(pairOf)));
  }
  for (const [title, texts] of [
    ["Groups in two splits or more", groups],
    ["Sources that the dataset has images of in another split", moved],
    ["Sources that could not be had, the first of them", missing],
  ])
    if (texts.length) {
      const items = texts.map((text) => make("li", { textContent: text }));
      section.append(make("h3", { textContent: title }), make("ul", {}, ...items));
    }
}

function pairOf({ distance, one, other }) {
  const text = distance ? `${distance} bit${distance > 1 ? "s" : ""} apart` : "alike";
  const caption = make("figcaption", { textContent: text });
  return make("figure", { className: "pair" }, sideOf(one), sideOf(other), caption);
}

function sideOf({ source_id: id, source_uri: uri, split, row, picture, missing }) {
  const shown = pictureOrReason(picture, `Source ${id} in ${split}`, "no picture of the source", missing ?? uri ?? "");
  const caption = make(
    "span",
    { className: "caption", title: uri ?? "" },
    make("b", { textContent: split ?? EMPTY }),
    ` ${id}, row ${row}`,
  );
  return make("div", {}, shown, caption);
}
