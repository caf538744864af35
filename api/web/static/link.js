// The view in the address, after the #: what a link to the page restores.

export const COLORINGS = ["crop", "cluster", "ndvi"];

/** Where nothing else is said. */
export function emptyView() {
  return {
    collection: null,
    center: null,
    zoom: null,
    color: "crop",
    // How many of the moment; null for the stored ones.
    clusters: null,
    parcel: null,
    like: [],
    unlike: [],
    filter: "",
    datetime: "",
    basemap: false,
  };
}

/** The view that a hash tells; what cannot be read is left out. */
export function readLink(hash) {
  const told = new URLSearchParams(hash.replace(/^#/, ""));
  const view = emptyView();
  view.collection = told.get("collection");
  const [west, south, zoom] = (told.get("at") ?? "").split(",").map(parseNumber);
  if (Math.abs(west) <= 180 && Math.abs(south) <= 90 && zoom >= 0 && zoom <= 24) {
    view.center = [west, south];
    view.zoom = zoom;
  }
  if (COLORINGS.includes(told.get("color"))) view.color = told.get("color");
  const clusters = parseNumber(told.get("clusters") ?? "");
  if (Number.isInteger(clusters) && clusters >= 2 && clusters <= 9) view.clusters = clusters;
  view.parcel = told.get("parcel");
  view.like = told.getAll("like");
  view.unlike = told.getAll("unlike");
  view.filter = told.get("filter") ?? "";
  view.datetime = told.get("datetime") ?? "";
  view.basemap = told.get("basemap") === "on";
  return view;
}

/** The hash that tells a view. */
export function writeLink(view) {
  const told = new URLSearchParams();
  if (view.collection !== null) told.set("collection", view.collection);
  if (view.center) {
    told.set("at", [view.center[0].toFixed(5), view.center[1].toFixed(5), view.zoom.toFixed(2)]);
  }
  if (view.color !== "crop") told.set("color", view.color);
  if (view.color === "cluster" && view.clusters !== null) told.set("clusters", view.clusters);
  if (view.filter) told.set("filter", view.filter);
  if (view.datetime) told.set("datetime", view.datetime);
  if (view.parcel !== null) told.set("parcel", view.parcel);
  for (const id of view.like) told.append("like", id);
  for (const id of view.unlike) told.append("unlike", id);
  if (view.basemap) told.set("basemap", "on");
  // Commas, colons and slashes may stand in a fragment as they are.
  return `#${told}`.replace(/%2C/g, ",").replace(/%3A/g, ":").replace(/%2F/g, "/");
}

function parseNumber(text) {
  return text.trim() === "" ? NaN : Number(text);
}
