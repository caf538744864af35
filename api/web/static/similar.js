// The parcels that look like the chosen one, and the examples that sharpen the question.

import { h, swatch } from "./dom.js";
import { picture } from "./picture.js";
import { crop, day, number } from "./words.js";

const THUMBNAIL_PX = 128;

export class SimilarParcels {
  element = h("section", { class: "similar", "aria-label": "Similar parcels" });
  #client;
  #on;
  #chips = h("div", { class: "chips" });
  #body = h("div", {});
  #swatches = [];
  #said = h("p", { class: "unseen", role: "status" });

  /**
   * `on.mark(id, "like" | "unlike" | null)` when an example is set or removed, `on.choose(properties)`,
   * `on.hover(feature)`, `on.reveal()` to bring all into view.
   */
  constructor(client, on) {
    this.#client = client;
    this.#on = on;
    this.element.append(
      h("div", { class: "heading-with-choice" }, h("h3", {}, "Looks like it"),
        h("button", { type: "button", class: "link", onclick: () => on.reveal() }, "Show all on the map")),
      this.#chips, this.#said, this.#body);
  }

  /** What is asked: the chosen parcel with the examples beside it. */
  showQuestion({ parcel, like, unlike }) {
    const chip = (id, kind) => h("li", { class: `chip ${kind}` },
      h("span", { "aria-hidden": "true" }, kind === "like" ? "+" : "−"),
      h("span", { class: "unseen" }, kind === "like" ? "like" : "not like"), id,
      h("button", {
        type: "button", "aria-label": `Remove the example ${id}`, onclick: () => this.#on.mark(id, null),
      }, "×"));
    const held = this.#chips.contains(document.activeElement);
    this.#chips.replaceChildren(h("ul", { "aria-label": "Examples" },
      h("li", { class: "chip own" }, parcel),
      like.map((id) => chip(id, "like")), unlike.map((id) => chip(id, "unlike"))));
    // The button that was pressed is gone; its neighbor takes the focus, or else the first match.
    if (held) (this.#chips.querySelector("button") ?? this.#body.querySelector("button"))?.focus();
  }

  wait() {
    this.element.setAttribute("aria-busy", "true");
    if (!this.#body.childElementCount) this.#body.append(h("p", { class: "small" }, "Searching…"));
  }

  clear() {
    this.#body.replaceChildren();
    this.#said.textContent = "";
  }

  fail(error) {
    this.element.removeAttribute("aria-busy");
    this.#body.replaceChildren(h("p", { class: "problem" }, error.message));
  }

  show(features, { collection, parcel, like, unlike }, colorOf, signal) {
    const held = this.#focused();
    this.element.removeAttribute("aria-busy");
    this.#swatches = [];
    const rows = features.map((feature) => {
      const { id, collection: from } = feature.properties;
      // Examples are named by id within one collection.
      const kind = like.includes(id) ? "like" : unlike.includes(id) ? "unlike" : null;
      return this.#row(feature, kind, { signal, foreign: from !== collection });
    });
    this.#body.replaceChildren(rows.length
      ? h("ol", { class: "matches" }, rows)
      : h("p", { class: "small" }, "Nothing else answers the filter and the dates."));
    this.recolor(colorOf);
    this.#said.textContent = rows.length
      ? `${rows.length} parcels look like ${parcel}; ${features[0].properties.id} is closest.` : "";
    this.#refocus(held);
  }

  /** Give the matches the colors that they have on the map. */
  recolor(colorOf) {
    for (const [mark, properties] of this.#swatches) mark.style.backgroundColor = colorOf(properties);
  }

  #row(feature, kind, { signal, foreign }) {
    const { properties } = feature;
    const { id, rank, score, collection, datetime } = properties;
    const mark = swatch("");
    this.#swatches.push([mark, properties]);
    const toggle = (value, text) => h("button", {
      type: "button",
      class: "toggle",
      "aria-pressed": String(kind === value),
      "aria-label": `${text}: ${id}`,
      onclick: () => this.#on.mark(id, kind === value ? null : value),
    }, text);
    const row = h("li", {
      class: "match",
      onpointerenter: () => this.#on.hover(feature),
      onpointerleave: () => this.#on.hover(null),
      onfocusin: () => this.#on.hover(feature),
      onfocusout: () => this.#on.hover(null),
    },
    // As it looked on the day of the match.
    picture(this.#client, {
      collection, id, size: THUMBNAIL_PX, datetime: datetime?.slice(0, 10), signal, alt: "",
    }),
    h("div", { class: "match-text" },
      h("div", { class: "match-first" },
        h("span", { class: "badge", "aria-hidden": "true" }, rank),
        h("button", { type: "button", class: "link id", onclick: () => this.#on.choose(properties) }, id),
        h("span", { class: "score", title: "Cosine similarity, −1 to 1; higher is closer" },
          h("span", { class: "unseen" }, "score "), number(score, 3))),
      h("div", { class: "small" }, mark,
        [crop(properties) ?? "crop not declared", day(datetime), foreign ? collection : null]
          .filter(Boolean).join(" · ")),
      foreign ? null : h("div", { class: "toggles" }, toggle("like", "More like this"),
        toggle("unlike", "Not like this"))));
    return row;
  }

  // A new answer takes the place of the list that holds the focus; it goes to the same button of
  // the same rank.
  #focused() {
    const row = document.activeElement?.closest(".match, .chip");
    if (!row || !this.element.contains(row)) return null;
    const rows = [...this.element.querySelectorAll(".match")];
    const buttons = [...row.querySelectorAll("button")];
    return { row: Math.max(rows.indexOf(row), 0), button: buttons.indexOf(document.activeElement) };
  }

  #refocus(held) {
    if (!held) return;
    const rows = [...this.element.querySelectorAll(".match")];
    const row = rows[Math.min(held.row, rows.length - 1)];
    row?.querySelectorAll("button")[held.button]?.focus({ preventScroll: true });
  }
}
