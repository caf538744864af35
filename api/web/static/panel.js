// The panel of one parcel: its picture, its facts, its state, its history.

import { chartKey, indexChart, observationTable } from "./chart.js";
import { h } from "./dom.js";
import { picture } from "./picture.js";
import { contradiction, stateRows } from "./state.js";
import { area, crop } from "./words.js";

const STYLES = [["true-color", "True color"], ["false-color", "False color"]];
const PREVIEW_PX = 512;

export class ParcelPanel {
  #place;
  #client;
  #back;
  #notes = h("div", {});
  #results;
  #told = new Set();
  #style = "true-color";

  /** `back()` when the user returns to the list; `results` is where similar parcels are shown. */
  constructor(place, client, { back, results }) {
    this.#place = place;
    this.#client = client;
    this.#back = back;
    this.#results = results;
  }

  /** Show that a parcel is on its way. */
  wait(id) {
    this.#told.clear();
    this.#notes.replaceChildren();
    this.#place.replaceChildren(this.#heading(id), h("p", { class: "small" }, "Loading…"));
    this.#place.setAttribute("aria-busy", "true");
  }

  /** Say why there is nothing to show; `again()` if it may help to ask again, else null. */
  fail(id, error, again) {
    const button = h("button", { type: "button", class: "primary", onclick: again }, "Try again");
    this.#place.replaceChildren(...[
      this.#heading(id), h("p", { class: "problem" }, error.message), again && button,
    ].filter(Boolean));
    this.#place.removeAttribute("aria-busy");
  }

  show(state, signal) {
    const parts = [
      ["State", h("section", { "aria-label": "State" }, h("h3", {}, "State"),
        h("dl", { class: "state" }, stateRows(state)))],
      ["History", history(state)],
      ["Look-alikes", this.#results],
    ].filter(([, part]) => part);
    const ways = parts.map(([name, part]) => h("button", {
      type: "button", class: "link", onclick: () => part.scrollIntoView({ behavior: scrolling() }),
    }, name));
    this.#place.replaceChildren(...[
      this.#heading(state.id, h("nav", { "aria-label": "Parts of this panel" }, ways)),
      h("div", { class: "facts-and-picture" }, this.#preview(state, signal), facts(state)),
      warning(contradiction(state)),
      this.#notes,
      parts.map(([, part]) => part),
    ].flat().filter(Boolean));
    this.#place.removeAttribute("aria-busy");
    this.addNotes(state.notes);
  }

  /** Show what an answer says beside itself, once. */
  addNotes(notes) {
    for (const note of notes ?? []) {
      if (this.#told.has(note)) continue;
      this.#told.add(note);
      this.#notes.append(h("p", { class: "note" }, note));
    }
  }

  focus() {
    this.#place.querySelector("h2")?.focus({ preventScroll: true });
  }

  #heading(id, ways = null) {
    return h("div", { class: "parcel-heading" },
      h("button", { type: "button", class: "quiet", onclick: this.#back }, "← All parcels"),
      h("div", { class: "heading-with-choice" }, h("h2", { tabindex: "-1" }, id), ways));
  }

  #preview(state, signal) {
    const frame = h("div", { class: "frame" });
    const draw = () => frame.replaceChildren(picture(this.#client, {
      collection: state.collection,
      id: state.id,
      style: this.#style,
      size: PREVIEW_PX,
      signal,
      alt: `Satellite image of ${state.id}, ${this.#style.replace("-", " ")}`,
    }));
    const choices = STYLES.map(([value, text]) => h("label", {},
      h("input", {
        type: "radio", name: "style", value, checked: value === this.#style,
        onchange: () => {
          this.#style = value;
          draw();
        },
      }), h("span", {}, text)));
    draw();
    return h("div", { class: "preview" }, frame,
      h("fieldset", { class: "segments small-segments" }, h("legend", { class: "unseen" }, "Image"), choices));
  }
}

/** How to scroll: at once for those who asked their system for less motion. */
function scrolling() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches ? "instant" : "smooth";
}

function facts(state) {
  const attributes = Object.entries(state.attributes ?? {})
    .filter(([, value]) => value !== null && typeof value !== "object").slice(0, 6);
  const rows = [
    ["Crop", crop(state) ?? "not declared"],
    ["Area", area(state["metrics:area"]) ?? "not known"],
    ["Collection", state.collection],
    ...attributes.map(([name, value]) => [name, String(value)]),
  ];
  return h("dl", { class: "facts" }, rows.map(([term, told]) => [h("dt", {}, term), h("dd", {}, told)]));
}

function warning(text) {
  return text && h("p", { class: "note strong" }, text);
}

/** The chart of an index, which the user may change. */
function history({ observations, formulas = {} }) {
  const names = Object.keys(formulas);
  if (!names.length) return null;
  const body = h("div", {});
  const select = h("select", { id: "index", onchange: () => draw(select.value) },
    names.map((name) => h("option", { value: name }, name)));
  const dated = observations.some((one) => one.datetime);
  const draw = (name) => body.replaceChildren(
    indexChart(observations, name),
    dated ? chartKey(observations) : "",
    h("p", { class: "small formula" }, `${name} = ${formulas[name]}`),
    observationTable(observations, name),
  );
  draw(names[0]);
  return h("section", { class: "history", "aria-label": "History" },
    h("div", { class: "heading-with-choice" }, h("h3", {}, "History"),
      h("label", { for: "index" }, h("span", { class: "unseen" }, "Spectral index "), select)),
    body);
}
