// The parcels in view as a list: the way to choose one without a pointer.

import { ndvi } from "./coloring.js";
import { h, swatch } from "./dom.js";
import { area, crop, number } from "./words.js";

const ROWS = 200;

/** A list in which arrow keys, Home and End move, and Enter chooses. */
export class ParcelList {
  #place;
  #on;
  #features = [];
  #colorOf = () => "";
  #shown = ROWS;
  #title = "";

  /**
   * `on.choose(properties)`, `on.hover(feature)`, null where nothing is, and `on.home()` to go to
   * where parcels are.
   */
  constructor(place, on) {
    this.#place = place;
    this.#on = on;
    place.addEventListener("keydown", (event) => this.#move(event));
  }

  show(features, colorOf, title) {
    const byName = new Intl.Collator("en", { numeric: true });
    this.#features = [...features].sort((a, b) => byName.compare(a.id, b.id));
    this.#colorOf = colorOf;
    this.#title = title;
    this.#shown = ROWS;
    this.#render();
  }

  /** Put the focus on a parcel's row, or on the first. */
  focus(id) {
    const rows = this.#rows();
    const row = rows.find((one) => one.dataset.id === id) ?? rows[0];
    row?.focus();
  }

  #render() {
    const held = this.#place.contains(document.activeElement) && document.activeElement.dataset.id;
    const rows = this.#features.slice(0, this.#shown).map((feature, i) => this.#row(feature, i));
    const hidden = this.#features.length - rows.length;
    const more = h("button", { type: "button", class: "quiet", onclick: () => this.#showMore() },
      `Show ${Math.min(hidden, ROWS)} more`);
    const list = h("ul", { class: "parcel-list", "aria-label": this.#title }, rows);
    const home = h("button", { type: "button", class: "quiet", onclick: () => this.#on.home() },
      "Go to the parcels of this collection");
    this.#place.replaceChildren(
      h("h2", {}, this.#title),
      h("p", { class: "small" }, this.#features.length
        ? "Choose one, here or on the map, to see how it is doing and which others look like it."
        : "None here."),
      list,
      ...(hidden > 0 ? [more] : []),
      ...(this.#features.length ? [] : [home]),
    );
    if (held) this.focus(held);
  }

  #row(feature, position) {
    const { properties } = feature;
    const value = ndvi(properties);
    const facts = [area(properties["metrics:area"]), Number.isFinite(value) && `NDVI ${number(value)}`];
    const button = h("button", {
      type: "button",
      class: "row",
      tabindex: position === 0 ? 0 : -1,
      "data-id": properties.id,
      onclick: () => this.#on.choose(properties),
      onfocus: () => this.#on.hover(feature),
      onblur: () => this.#on.hover(null),
      onpointerenter: () => this.#on.hover(feature),
      onpointerleave: () => this.#on.hover(null),
    },
    swatch(this.#colorOf(properties)),
    h("span", { class: "id" }, properties.id), " ",
    h("span", { class: "crop" }, crop(properties) ?? "crop not declared"), " ",
    h("span", { class: "facts" }, facts.filter(Boolean).join(" · ")));
    return h("li", {}, button);
  }

  #showMore() {
    const next = this.#features[this.#shown]?.properties.id;
    this.#shown += ROWS;
    this.#render();
    this.focus(next);
  }

  #rows() {
    return [...this.#place.querySelectorAll(".row")];
  }

  #move(event) {
    const rows = this.#rows();
    const at = rows.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (at < 0 || to === undefined || !rows[to]) return;
    event.preventDefault();
    rows[at].tabIndex = -1;
    rows[to].tabIndex = 0;
    rows[to].focus();
  }
}
