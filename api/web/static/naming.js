// The form in the legend that names a cluster.

import { h } from "./dom.js";
import { crop } from "./words.js";

const MOST_CHARACTERS = 100;

/** Whether a name is being typed in this place, for clusters that are still shown. */
export function isNaming(place, of) {
  return place.querySelector("form.naming")?.dataset.of === of;
}

/**
 * A row with a form for the name of a cluster. `clusters.name(number, name)` gives it, "" taking it
 * away, and says what went wrong by what it throws; `close()` when the user is done with it.
 */
export function namingForm(cluster, clusters, close) {
  const { cluster: number, name } = cluster;
  const suggestions = h("datalist", { id: "cluster-names" },
    [...new Set([...(clusters.unassigned ?? []).map((one) => one.name), ...cluster.crops.map(crop)])]
      .map((value) => h("option", { value })));
  const input = h("input", {
    type: "text", value: name ?? "", maxlength: MOST_CHARACTERS, list: suggestions.id,
    "aria-label": `Name of cluster ${number}`, "aria-describedby": "naming-error",
    placeholder: "winter wheat", autocomplete: "off", spellcheck: false,
  });
  const problem = h("p", { id: "naming-error", class: "problem small", role: "alert", hidden: true });
  const save = h("button", { type: "submit", class: "primary" }, "Save");
  const cancel = h("button", { type: "button", class: "quiet", onclick: close }, "Cancel");
  const form = h("form", {
    class: "naming",
    "data-of": clusters.of,
    onsubmit: async (event) => {
      event.preventDefault();
      save.disabled = true;
      problem.hidden = true;
      input.removeAttribute("aria-invalid");
      try {
        await clusters.name(number, input.value.trim(), close);
      } catch (error) {
        problem.textContent = error.message;
        problem.hidden = false;
        input.setAttribute("aria-invalid", "true");
        input.focus();
      } finally {
        save.disabled = false;
      }
    },
    onkeydown: (event) => {
      if (event.key === "Escape") close();
    },
  },
  h("span", { "aria-hidden": "true" }, number), input, suggestions,
  h("div", { class: "buttons" }, save, cancel), problem);
  return h("li", {}, form);
}
