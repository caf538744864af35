// What the page says: where it stands, what went wrong, what lies below the pointer.

import { Problem } from "./client.js";
import { ndvi } from "./coloring.js";
import { byId, h } from "./dom.js";
import { area, crop, number } from "./words.js";

/** Say in a few words where things stand. */
export function say(text) {
  const status = byId("status");
  if (status.textContent !== text) status.textContent = text;
}

/** Show what went wrong, with a way to try again. */
export function tell(error, again) {
  const locked = error instanceof Problem && error.status === 401;
  const button = h("button", {
    type: "button", class: "primary", onclick: () => again(),
  }, locked ? "Enter a key" : "Try again");
  byId("message").replaceChildren(h("p", { role: "alert" }, error.message), button);
  byId("message").hidden = false;
}

/** Take back what `tell` showed. */
export function clearMessage() {
  byId("message").hidden = true;
}

/** Show what lies below the pointer, at a point of the map; nothing for null. */
export function showHover(properties, point) {
  const hover = byId("hover");
  hover.hidden = !properties;
  if (!properties) return;
  const value = ndvi(properties);
  hover.textContent = [
    properties.id, crop(properties), area(properties["metrics:area"]),
    Number.isFinite(value) ? `NDVI ${number(value)}` : null,
  ].filter(Boolean).join(" · ");
  const left = point.x + hover.offsetWidth + 20 > byId("map").clientWidth
    ? point.x - hover.offsetWidth - 10 : point.x + 14;
  hover.style.transform = `translate(${left}px, ${point.y + 14}px)`;
}
