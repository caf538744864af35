// What the colors of the map mean.

import { h, swatch } from "./dom.js";
import { NDVI_RANGE, ndviGradient, restColor } from "./palette.js";

/** Fill the legend; `clusters` is `{k, change(k), message}` where colors mean clusters. */
export function showLegend(place, coloring, features, clusters) {
  if (coloring.by === "ndvi") {
    place.replaceChildren(...ramp(coloring.scheme));
    return;
  }
  const rows = coloring.legend(features).map((row) =>
    h("li", {}, swatch(row.color), h("span", { class: "name" }, row.name),
      h("span", { class: "detail" }, row.n.toLocaleString("en-US"),
        h("span", { class: "unseen" }, " parcels in view"))));
  const list = h("ul", { class: "legend" }, rows);
  if (coloring.by === "cluster") place.replaceChildren(howMany(clusters), message(clusters), list);
  else place.replaceChildren(list);
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

function howMany({ k, change }) {
  const options = [2, 3, 4, 5, 6, 7, 8, 9].map((n) =>
    h("option", { value: n, selected: n === k }, n));
  const select = h("select", { onchange: () => change(Number(select.value)) }, options);
  return h("label", { class: "how-many" }, "Clusters ", select);
}

function message({ message: text }) {
  return h("p", { class: "small", hidden: !text }, text);
}
