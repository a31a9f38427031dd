"use strict";
// The small pictures: they lie in chunks behind the program, and may still be on their way when it runs.

const chunks = new Map();
const waiting = new Map();

function chunkOf(picture) {
  const number = Math.floor(picture / data.pictures_a_chunk);
  if (!chunks.has(number)) {
    const element = document.getElementById(`chunk-${number}`);
    // What has nothing behind it yet may be half a chunk.
    if (!element || (!element.nextElementSibling && document.readyState === "loading")) return null;
    chunks.set(number, element.textContent.split("\n"));
    element.remove();
  }
  return chunks.get(number);
}

function pictureUrl(picture) {
  const chunk = picture < 0 ? null : chunkOf(picture);
  return chunk && `data:${data.picture_type};base64,${chunk[picture % data.pictures_a_chunk]}`;
}

// Show a small picture, now or as soon as it has come.
function showPicture(image, picture) {
  const url = pictureUrl(picture);
  if (url) image.src = url;
  else if (picture >= 0) waiting.set(image, picture);
}

function showArrived() {
  for (const [image, picture] of waiting) {
    const url = image.isConnected && pictureUrl(picture);
    if (url) image.src = url;
    if (url || !image.isConnected) waiting.delete(image);
  }
}

if (document.readyState === "loading") {
  const arrivals = new MutationObserver(showArrived);
  arrivals.observe(document.body, { childList: true });
  document.addEventListener("DOMContentLoaded", () => {
    arrivals.disconnect();
    showArrived();
  });
}

// Make an element. Texts are set as texts, never parsed.
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  const { label, ...others } = properties;
  Object.assign(element, others);
  if (label) element.setAttribute("aria-label", label);
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
}
