// Colors that mean something, chosen so that people who see few colors can tell them apart.

// Paul Tol, "Colour Schemes", SRON/EPS/TN/09-002, issue 3.2 (2021): "muted", and for dark
// grounds the same with its green, indigo, purple and wine lifted. Under the simulation of Machado et
// al. (2009) any two stay 15 apart in CIELAB, without red, green or blue cones alike.
const CATEGORIES = {
  light: [
    "#ddcc77", "#117733", "#cc6677", "#88ccee", "#332288", "#999933", "#44aa99", "#aa4499",
    "#882255",
  ],
  dark: [
    "#ddcc77", "#178540", "#cc6677", "#88ccee", "#6a5acd", "#999933", "#44aa99", "#b055a4",
    "#9c2b65",
  ],
};

// Cynthia Brewer, ColorBrewer 2.0: YlGn in 9 classes. Its lightness falls all the way, so it
// reads without its hue.
const NDVI_RAMP = [
  "#ffffe5", "#f7fcb9", "#d9f0a3", "#addd8e", "#78c679", "#41ab5d", "#238443", "#006837", "#004529",
];

/** NDVI of the first and the last color. */
export const NDVI_RANGE = [0.1, 0.9];

const REST = { light: "#b4b8b1", dark: "#69726c" };

/**
 * Colors of the map itself, which CSS cannot reach. Parcels have edges of `edge`, or of `ramp`
 * where neighbors may have the same pale color.
 */
export const MAP_COLORS = {
  light: { ground: "#eceee7", edge: "#ffffff", ramp: "#8b968f", mark: "#161c18", casing: "#ffffff" },
  dark: { ground: "#121614", edge: "#121614", ramp: "#66756d", mark: "#ffffff", casing: "#0b0e0c" },
};

/** How many categories have a color of their own. */
export const MOST_CATEGORIES = CATEGORIES.light.length;

export function categoryColor(position, scheme) {
  return CATEGORIES[scheme][position] ?? REST[scheme];
}

export function restColor(scheme) {
  return REST[scheme];
}

export function ndviColor(value, scheme) {
  if (!Number.isFinite(value)) return REST[scheme];
  const [low, high] = NDVI_RANGE;
  const place = Math.min(Math.max((value - low) / (high - low), 0), 1) * (NDVI_RAMP.length - 1);
  const start = Math.min(Math.floor(place), NDVI_RAMP.length - 2);
  return blend(NDVI_RAMP[start], NDVI_RAMP[start + 1], place - start);
}

export function ndviGradient() {
  return `linear-gradient(to right, ${NDVI_RAMP.join(", ")})`;
}

function blend(from, to, share) {
  const parts = [1, 3, 5].map((at) => {
    const [a, b] = [from, to].map((color) => parseInt(color.slice(at, at + 2), 16));
    return Math.round(a + (b - a) * share).toString(16).padStart(2, "0");
  });
  return `#${parts.join("")}`;
}
