// The filter and the dates above the map, and the help that says what can be asked.

import { byId, h } from "./dom.js";

const EXAMPLES = [
  ["crop:name = 'winter wheat'", "one crop"],
  ["crop:name IN ('maize', 'sunflower')", "several"],
  ["NDVI > 0.6 AND metrics:area > 50000", "green, and larger than 5 ha"],
  ["crop:name LIKE '%wheat%' AND NOT NDVI < 0.3", "text with anything around it"],
  ["cluster = 'winter wheat'", "one cluster, by the name that an expert gave it"],
];

export class FilterForm {
  #filter = byId("filter");
  #datetime = byId("datetime");
  #clear = byId("filter-clear");
  #error = byId("filter-error");
  #help = byId("filter-help");
  #askQueryables;

  /** `apply({filter, datetime})` when the user asks; `askQueryables()` gets the JSON Schema. */
  constructor({ apply, askQueryables }) {
    this.#askQueryables = askQueryables;
    byId("filter-form").addEventListener("submit", (event) => {
      event.preventDefault();
      apply(this.values);
    });
    this.#clear.addEventListener("click", () => {
      this.show({ filter: "", datetime: "" });
      apply(this.values);
      this.#filter.focus();
    });
    byId("filter-help-open").addEventListener("click", () => this.#openHelp());
  }

  get values() {
    return { filter: this.#filter.value.trim(), datetime: this.#datetime.value.trim() };
  }

  show({ filter, datetime }) {
    this.#filter.value = filter;
    this.#datetime.value = datetime;
    this.#clear.hidden = !filter && !datetime;
  }

  /** Say what the service found wrong, in its words; null where nothing is. */
  complain(text) {
    this.#error.hidden = text === null;
    this.#error.textContent = text ?? "";
    // The service does not tell which of the two it means otherwise than in words.
    for (const input of [this.#filter, this.#datetime]) {
      if (text !== null && input.value) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
    }
  }

  async #openHelp() {
    const properties = h("div", { "aria-busy": "true" }, h("p", { class: "small" }, "Loading…"));
    const close = h("button", { type: "button", class: "primary", onclick: () => this.#help.close() },
      "Close");
    this.#help.replaceChildren(
      h("h2", { id: "help-title" }, "What can I ask?"),
      h("p", {}, "A filter keeps the parcels it is true of, on the map and among those that look alike. ",
        "It is written in CQL2, the filter language of OGC:"),
      h("ul", { class: "examples" }, EXAMPLES.map(([text, meaning]) =>
        h("li", {}, this.#taker(text, this.#filter), ` ${meaning}`))),
      h("p", {}, "Dates keep the observations of a day, a month or an interval: ",
        ...["2023-05", "2023-04-15/2023-06-30", "2023-06/.."].flatMap((text) =>
          [this.#taker(text, this.#datetime), " "])),
      h("h3", {}, "Properties"),
      properties,
      h("div", { class: "buttons" }, close),
    );
    this.#help.showModal();
    try {
      properties.replaceChildren(this.#table(await this.#askQueryables()));
    } catch (error) {
      properties.replaceChildren(h("p", { class: "problem" }, error.message));
    }
    properties.removeAttribute("aria-busy");
  }

  #table(schema) {
    const rows = Object.entries(schema.properties ?? {}).map(([name, property]) =>
      h("tr", {},
        h("th", { scope: "row" }, this.#taker(name, this.#filter, insert)),
        h("td", {}, [property.type ?? property.format?.replace("-any", "") ?? ""].flat().join(" or ")),
        h("td", {}, property.description ?? property.title ?? "")));
    return h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Name"),
      h("th", { scope: "col" }, "Type"), h("th", { scope: "col" }, "Meaning"))),
    h("tbody", {}, rows));
  }

  /** A button that takes a text into an input of the form and closes the help. */
  #taker(text, input, take = replace) {
    return h("button", {
      type: "button",
      class: "taker",
      onclick: () => {
        take(input, text);
        this.#help.close();
        input.focus();
      },
    }, h("code", {}, text));
  }
}

function replace(input, text) {
  input.value = text;
}

/** Put a word where the cursor stands. */
function insert(input, word) {
  const { value, selectionEnd } = input;
  const end = selectionEnd ?? value.length;
  const space = end > 0 && value[end - 1] !== " " ? " " : "";
  input.setRangeText(`${space}${word} `, end, end, "end");
}
