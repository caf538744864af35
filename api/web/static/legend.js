// What the colors of the map mean.

import { h, swatch } from "./dom.js";
import { isNaming, namingForm } from "./naming.js";
import { NDVI_RANGE, ndviGradient, restColor } from "./palette.js";

/**
 * Fill the legend. Where colors mean clusters, `clusters` is `{k, stored, unassigned, message,
 * change(k), name(number, name), given()}`, `k` being null for the stored ones and `stored` how many there
 * are: null where that is not known, 0 for none.
 */
export function showLegend(place, coloring, features, clusters) {
  if (coloring.by === "cluster" && isNaming(place, clusters.of)) return;
  const held = place.contains(document.activeElement) && document.activeElement.dataset.key;
  place.replaceChildren(...parts(coloring, features, clusters));
  if (held) place.querySelector(`[data-key="${held}"]`)?.focus();
}

function parts(coloring, features, clusters) {
  if (coloring.by === "ndvi") return ramp(coloring.scheme);
  const rows = coloring.legend(features).map((row) => legendRow(row, clusters));
  const list = h("ul", { class: "legend" }, rows);
  return coloring.by === "cluster" ? [howMany(clusters), ...messages(clusters), list] : [list];
}

function legendRow({ color, name, n, cluster }, clusters) {
  const named = cluster?.name ? "name named" : "name";
  const row = h("li", {}, swatch(color), h("span", { class: named }, name),
    h("span", { class: "detail" }, n.toLocaleString("en-US"),
      h("span", { class: "unseen" }, " parcels in view")));
  if (cluster && clusters.k === null && clusters.stored) row.append(namer(row, cluster, clusters));
  return row;
}

/** The button that turns a row of the legend into a form for the name of its cluster. */
function namer(row, cluster, clusters) {
  const label = `Name cluster ${cluster.cluster}`;
  return h("button", {
    type: "button",
    class: "namer",
    "data-key": label,
    title: label,
    "aria-label": label,
    onclick: () => {
      const form = namingForm(cluster, clusters, () => {
        row.removeAttribute("hidden");
        form.remove();
        row.querySelector(".namer").focus();
        clusters.given();
      });
      row.after(form);
      row.hidden = true;
      form.querySelector("input").focus();
    },
  }, "✎");
}

function ramp(scheme) {
  const [low, high] = NDVI_RANGE;
  const bar = h("div", { class: "ramp", "aria-hidden": "true" });
  bar.style.backgroundImage = ndviGradient();
  const middle = ((low + high) / 2).toFixed(1);
  return [
    bar,
    h("div", { class: "ramp-ticks" }, h("span", {}, `≤ ${low}`), h("span", {}, middle),
      h("span", {}, `≥ ${high}`)),
    h("p", { class: "small" }, "NDVI, unitless: bare soil is low, dense green is high."),
    h("ul", { class: "legend" }, h("li", {}, swatch(restColor(scheme)),
      h("span", { class: "name" }, "not measured"))),
  ];
}

function howMany({ k, stored, made, change }) {
  const options = [2, 3, 4, 5, 6, 7, 8, 9].map((n) =>
    h("option", { value: n, selected: n === (k ?? (stored === 0 ? made : null)) }, n));
  if (stored !== 0) {
    const text = stored === null ? "as stored" : `${stored}, as stored`;
    options.unshift(h("option", { value: "", selected: k === null }, text));
  }
  const select = h("select", {
    "data-key": "how-many",
    onchange: () => change(select.value === "" ? null : Number(select.value)),
  }, options);
  return h("label", { class: "how-many" }, "Clusters ", select);
}

function messages({ message: text, unassigned }) {
  const waiting = (unassigned ?? []).map(({ name, candidates }) => {
    const perhaps = candidates.map((one) => one.cluster).join(" or ");
    return h("p", { class: "small waiting" }, "Which cluster is now ", h("strong", {}, name), "?",
      perhaps && ` Perhaps ${perhaps}.`);
  });
  return [h("p", { class: "small", hidden: !text }, text), ...waiting];
}
