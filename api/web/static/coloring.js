// Which color a parcel has, and the legend that says so.

import { MOST_CATEGORIES, categoryColor, ndviColor, restColor } from "./palette.js";
import { count, crop, percent } from "./words.js";

export class Coloring {
  by = "crop";
  scheme = "light";
  #crops = new Map();
  #members = new Map();
  #clusters = [];

  /** Give crops their colors: the most frequent first, and those unseen so far after them. */
  learnCrops(features) {
    const found = tally(features.map((feature) => crop(feature.properties)));
    for (const [name] of found) {
      if (name !== null && !this.#crops.has(name)) this.#crops.set(name, this.#crops.size);
    }
  }

  forgetCrops() {
    this.#crops.clear();
  }

  /** Take the answer of `/clusters`, or null where there is none. */
  learnClusters(answer) {
    this.#clusters = answer?.clusters ?? [];
    this.#members = new Map(Object.entries(answer?.members ?? {}));
  }

  /** Give one of the clusters another name, null for none. */
  nameCluster(number, name) {
    this.#clusters = this.#clusters.map((one) => (one.cluster === number ? { ...one, name } : one));
  }

  /** The color of a parcel by the properties of its feature. */
  of(properties) {
    if (this.by === "ndvi") return ndviColor(ndvi(properties), this.scheme);
    const place = this.by === "crop"
      ? this.#crops.get(crop(properties))
      : this.#clusters.findIndex((one) => one.cluster === this.#members.get(properties.id));
    return place === undefined || place < 0
      ? restColor(this.scheme)
      : categoryColor(place, this.scheme);
  }

  /**
   * Rows of the legend: `{color, name, n}`, how many of the features, and `cluster` where the row is
   * one; none for NDVI, whose legend is a ramp.
   */
  legend(features) {
    if (this.by === "crop") return this.#cropLegend(features);
    if (this.by === "cluster") return this.#clusterLegend(features);
    return [];
  }

  #cropLegend(features) {
    const found = tally(features.map((feature) => crop(feature.properties)));
    const named = found.filter(([name]) => this.#crops.get(name) < MOST_CATEGORIES);
    const others = found.filter(([name]) => name !== null && !named.some(([one]) => one === name));
    const rest = restColor(this.scheme);
    const rows = named.map(([name, n]) => ({
      color: categoryColor(this.#crops.get(name), this.scheme), name, n,
    }));
    if (others.length) {
      const n = others.reduce((sum, [, some]) => sum + some, 0);
      rows.push({ color: rest, name: count(others.length, "other crop"), n });
    }
    const undeclared = found.find(([name]) => name === null);
    if (undeclared) {
      rows.push({ color: rest, name: "not declared", n: undeclared[1] });
    }
    return rows;
  }

  #clusterLegend(features) {
    const tallied = new Map(tally(features.map((one) => this.#members.get(one.properties.id))));
    const rows = this.#clusters.map((one, place) => ({
      color: categoryColor(place, this.scheme),
      name: `${one.cluster} · ${clusterName(one)}`,
      n: tallied.get(one.cluster) ?? 0,
      cluster: one,
    }));
    const without = tallied.get(undefined);
    if (rows.length && without) {
      rows.push({ color: restColor(this.scheme), name: "in no cluster", n: without });
    }
    return rows;
  }
}

/** NDVI of a parcel's or a match's feature. */
export function ndvi(properties) {
  return properties.NDVI ?? properties.medians?.NDVI ?? NaN;
}

function clusterName(one) {
  if (one.name) return one.name;
  const [first] = one.crops ?? [];
  const name = first && crop(first);
  return name ? `${name} ${percent(first.share)}` : "no declared crop";
}

/** Distinct values with how often they occur, most frequent first, then by name. */
function tally(values) {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts].sort(([a, n], [b, m]) => m - n || String(a).localeCompare(String(b)));
}
