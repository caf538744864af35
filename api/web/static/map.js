// The map: parcels, the one that was chosen, those that look like it.

import { MAP_COLORS } from "./palette.js";
import { h } from "./dom.js";

const maplibregl = globalThis.maplibregl;
const NOTHING = { type: "FeatureCollection", features: [] };

/** Loaded around the view as well, so that small moves ask nothing; a share of its width. */
const MARGIN = 0.25;

/** How close the map goes of its own accord. */
const CLOSEST_ZOOM = 16;

/** Parcels that would be smaller on the screen are drawn as points. */
const SMALLEST_PX = 6;

/** How far from a parcel a click may miss it, in pixels. */
const NEAR_PX = 5;

const boxes = new WeakMap();

export class ParcelMap {
  #map;
  #ready;
  #padding;
  #badges = [];
  #hovered = null;
  #drawn = new Map();

  /**
   * Draw an empty map.
   *
   * `on` holds what is told: `move()` when the view has changed, `choose(properties)` when a parcel
   * is clicked, `hover(properties, point)` as the pointer passes, with null where there is none.
   * `padding()` tells how many pixels of each side are to be kept free.
   * Throws where the browser has no WebGL.
   */
  constructor(container, { bounds, center, zoom, padding, scheme, basemap, on }) {
    this.#map = new maplibregl.Map({
      container,
      style: styleOf(scheme, basemap),
      ...(center ? { center, zoom } : { bounds, fitBoundsOptions: { padding: padding(), maxZoom: CLOSEST_ZOOM } }),
      attributionControl: false,
      dragRotate: false,
      pitchWithRotate: false,
      touchPitch: false,
      maxZoom: 20,
      fadeDuration: 0,
      locale: { "Map.Title": "Map of the parcels; arrow keys move it, + and − zoom" },
    });
    this.#padding = padding;
    this.#map.touchZoomRotate.disableRotation();
    this.#map.keyboard.disableRotation();
    this.#map.addControl(new maplibregl.NavigationControl({ showCompass: false }), "top-right");
    this.#map.addControl(new maplibregl.ScaleControl({ unit: "metric" }), "bottom-right");
    if (basemap?.attribution) {
      const credit = new maplibregl.AttributionControl({ compact: false });
      this.#map.addControl(credit, "bottom-right");
    }
    this.#ready = new Promise((resolve) => this.#map.once("load", resolve));
    this.#listen(on);
  }

  /** MapLibre's own map, for whoever drives this page with a program. */
  get maplibre() {
    return this.#map;
  }

  get view() {
    const { lng, lat } = this.#map.getCenter().wrap();
    return { center: [lng, lat], zoom: this.#map.getZoom() };
  }

  /** West, south, east, north of the view, in degrees. */
  get bounds() {
    const seen = this.#map.getBounds();
    return [seen.getWest(), seen.getSouth(), seen.getEast(), seen.getNorth()];
  }

  /** The view and a margin around it. */
  get surroundings() {
    const [west, south, east, north] = this.bounds;
    const [across, up] = [(east - west) * MARGIN, (north - south) * MARGIN];
    return [west - across, south - up, east + across, north + up];
  }

  /** Show parcels: features with a `color` among their properties, edged in another. */
  async showParcels(features, edge) {
    await this.#draw("parcels", features);
    this.#map.setPaintProperty("parcels-edge", "line-color", edge);
    this.#map.setPaintProperty("parcels-point", "circle-stroke-color", edge);
  }

  /**
   * Show what was chosen, a feature or null, what looks like it, closest first, and the examples
   * beside it: `[feature, sign]` each.
   */
  async showAnswer(chosen, matches, examples) {
    for (const badge of this.#badges) badge.remove();
    const texts = [
      ...matches.map((match) => [match, match.properties.rank, "badge"]),
      ...examples.map(([example, sign]) => [example, sign, "badge example"]),
    ];
    this.#badges = texts.filter(([feature]) => feature.geometry).map(([feature, text, name]) => {
      const element = h("span", { class: name, "aria-hidden": "true" }, text);
      const marker = new maplibregl.Marker({ element });
      return marker.setLngLat(middleOf(feature.geometry)).addTo(this.#map);
    });
    await this.#draw("matches", matches);
    await this.#draw("chosen", chosen ? [chosen] : []);
    const faded = matches.length > 0;
    this.#map.setPaintProperty("parcels-fill", "fill-opacity", faded ? 0.28 : 0.82);
    this.#map.setPaintProperty("parcels-point", "circle-opacity", faded ? 0.28 : 0.82);
  }

  /** Mark a parcel as the pointer or the keyboard passes over it in a list; null for none. */
  async hover(feature) {
    await this.#draw("hovered", feature?.geometry ? [feature] : []);
  }

  /** Bring features into view, unless all of them are; no closer than one looks already. */
  reveal(features) {
    const box = boundsOf(features);
    if (!box || this.#shows(box)) return;
    this.fit(box, Math.min(this.#map.getZoom(), CLOSEST_ZOOM));
  }

  /** Go to a box in degrees. */
  fit(box, maxZoom = CLOSEST_ZOOM) {
    const options = { padding: this.#padding(), maxZoom, duration: 700 };
    this.#map.fitBounds([[box[0], box[1]], [box[2], box[3]]], options);
  }

  /** Whether a box is in view, and not below the legend. */
  #shows([west, south, east, north]) {
    const { clientWidth, clientHeight } = this.#map.getContainer();
    const { left } = this.#padding();
    const [a, b] = [this.#map.project([west, north]), this.#map.project([east, south])];
    return a.x >= left && a.y >= 0 && b.x <= clientWidth && b.y <= clientHeight;
  }

  jump(center, zoom) {
    this.#map.jumpTo({ center, zoom });
  }

  /** Take on the colors of a scheme, and show a basemap or none. */
  async restyle(scheme, basemap) {
    await this.#ready;
    const colors = MAP_COLORS[scheme];
    const set = (layer, property, value) => this.#map.setPaintProperty(layer, property, value);
    set("ground", "background-color", colors.ground);
    for (const layer of ["matches-casing", "chosen-casing"]) set(layer, "line-color", colors.casing);
    for (const layer of ["matches-edge", "chosen-edge", "hovered-edge"]) {
      set(layer, "line-color", colors.mark);
    }
    for (const layer of ["matches-point", "chosen-point", "hovered-point"]) {
      set(layer, "circle-stroke-color", colors.mark);
    }
    if (this.#map.getLayer("basemap")) {
      const visibility = basemap ? "visible" : "none";
      this.#map.setLayoutProperty("basemap", "visibility", visibility);
    }
  }

  resize() {
    this.#map.resize();
  }

  async #draw(source, features) {
    await this.#ready;
    this.#drawn.set(source, new Map(features.map((one) => [keyOf(one.properties), one])));
    const drawable = features.filter((feature) => feature.geometry).flatMap((feature) => {
      const { geometry, properties } = feature;
      const drawn = { key: keyOf(properties), color: properties.color, size: sizeOf(feature) };
      const point = { type: "Point", coordinates: middleOf(geometry) };
      return [geometry, point].map((one) => ({ type: "Feature", geometry: one, properties: drawn }));
    });
    this.#map.getSource(source).setData({ ...NOTHING, features: drawable });
  }

  #listen(on) {
    this.#map.on("moveend", () => on.move());
    this.#map.on("click", (event) => {
      const found = this.#at(event.point);
      if (found) on.choose(found.properties);
    });
    this.#map.on("mousemove", (event) => {
      const found = this.#at(event.point);
      this.#map.getCanvas().style.cursor = found ? "pointer" : "";
      if (found !== this.#hovered) {
        this.#hovered = found;
        this.hover(found);
      }
      on.hover(found?.properties ?? null, event.point);
    });
    this.#map.on("mouseout", () => {
      this.#hovered = null;
      this.hover(null);
      on.hover(null);
    });
    // A tile of the basemap that cannot be had is no fault of the page.
    this.#map.on("error", (event) => console.info("Map:", event.error?.message));
  }

  /** The parcel at a point of the screen, matches before others, or null. */
  #at(point) {
    const layers = ["chosen", "matches", "parcels"].flatMap((one) => [`${one}-fill`, `${one}-point`]);
    if (!layers.every((layer) => this.#map.getLayer(layer))) return null;
    const { x, y } = point;
    const near = [[x - NEAR_PX, y - NEAR_PX], [x + NEAR_PX, y + NEAR_PX]];
    const [found] = [point, near].flatMap((one) => this.#map.queryRenderedFeatures(one, { layers }));
    return found ? (this.#drawn.get(found.source)?.get(found.properties.key) ?? null) : null;
  }
}

/** Box around features, or null where none has a place. */
export function boundsOf(features) {
  const found = features.map(boxOf).filter(Boolean);
  return found.length ? found.reduce(around) : null;
}

/** Box around one feature, or null where it has no place. */
export function boxOf(feature) {
  const { geometry } = feature;
  if (!geometry) return null;
  if (!boxes.has(geometry)) {
    const points = geometry.coordinates.flat(geometry.type === "Polygon" ? 1 : 2);
    boxes.set(geometry, points.map(([x, y]) => [x, y, x, y]).reduce(around));
  }
  return boxes.get(geometry);
}

/** The longer side of a feature's box, in degrees of longitude as the map draws them. */
function sizeOf(feature) {
  const [west, south, east, north] = boxOf(feature);
  const stretch = 1 / Math.max(Math.cos((((south + north) / 2) * Math.PI) / 180), 0.01);
  return Math.max(east - west, (north - south) * stretch);
}

function around(a, b) {
  return [
    Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[2], b[2]), Math.max(a[3], b[3]),
  ];
}

/** Centroid of the outer ring, of the largest part where there are several. */
export function middleOf(geometry) {
  const parts = geometry.type === "Polygon" ? [geometry.coordinates] : geometry.coordinates;
  const rings = parts.map(([outer]) => ringCentroid(outer));
  return rings.reduce((best, one) => (one.area > best.area ? one : best)).middle;
}

function ringCentroid(ring) {
  // Relative to the first corner: degrees to seven decimals lose too much when multiplied.
  const [x0, y0] = ring[0];
  let [area, x, y] = [0, 0, 0];
  for (let i = 0; i < ring.length - 1; i += 1) {
    const [ax, ay] = [ring[i][0] - x0, ring[i][1] - y0];
    const [bx, by] = [ring[i + 1][0] - x0, ring[i + 1][1] - y0];
    const cross = ax * by - bx * ay;
    area += cross / 2;
    x += ((ax + bx) * cross) / 6;
    y += ((ay + by) * cross) / 6;
  }
  return { area: Math.abs(area), middle: area ? [x0 + x / area, y0 + y / area] : ring[0] };
}

function keyOf(properties) {
  return `${properties.collection}/${properties.id}`;
}

function styleOf(scheme, basemap) {
  const colors = MAP_COLORS[scheme];
  const sources = {};
  for (const name of ["parcels", "matches", "chosen", "hovered"]) {
    sources[name] = { type: "geojson", data: NOTHING };
  }
  const layers = [{ id: "ground", type: "background", paint: { "background-color": colors.ground } }];
  if (basemap) {
    sources.basemap = {
      type: "raster", tiles: [basemap.url], tileSize: 256, attribution: escaped(basemap.attribution),
    };
    layers.push({
      id: "basemap",
      type: "raster",
      source: "basemap",
      layout: { visibility: basemap.shown ? "visible" : "none" },
      paint: { "raster-saturation": -0.6, "raster-opacity": 0.8 },
    });
  }
  const fill = (source, opacity) => ({
    id: `${source}-fill`,
    type: "fill",
    source,
    paint: { "fill-color": ["get", "color"], "fill-opacity": opacity },
  });
  const line = (id, source, color, width) => ({
    id,
    type: "line",
    source,
    layout: { "line-join": "round" },
    paint: { "line-color": color, "line-width": width },
  });
  // A world is 512 pixels wide at zoom 0; MapLibre asks this at whole zooms.
  const tiny = ["<", ["get", "size"], ["/", (360 * SMALLEST_PX) / 512, ["^", 2, ["zoom"]]]];
  const point = (source, radius, opacity, edge, width) => ({
    id: `${source}-point`,
    type: "circle",
    source,
    filter: ["all", ["==", ["geometry-type"], "Point"], tiny],
    paint: {
      "circle-color": ["get", "color"],
      "circle-opacity": opacity,
      "circle-radius": radius,
      "circle-stroke-color": edge,
      "circle-stroke-width": width,
    },
  });
  const thin = ["interpolate", ["linear"], ["zoom"], 9, 0.2, 14, 1.2];
  layers.push(
    point("parcels", 3, 0.82, colors.edge, 0.5),
    fill("parcels", 0.82),
    line("parcels-edge", "parcels", colors.edge, thin),
    point("matches", 4.5, 0.95, colors.mark, 1.6),
    fill("matches", 0.95),
    line("matches-casing", "matches", colors.casing, 4),
    line("matches-edge", "matches", colors.mark, 1.6),
    point("chosen", 6, 1, colors.mark, 3.5),
    fill("chosen", 1),
    line("chosen-casing", "chosen", colors.casing, 8),
    line("chosen-edge", "chosen", colors.mark, 3.5),
    point("hovered", 5, 0, colors.mark, 2.2),
    line("hovered-edge", "hovered", colors.mark, 2.2),
  );
  return { version: 8, sources, layers };
}

// MapLibre takes attributions for markup.
function escaped(text) {
  return h("span", {}, text ?? "").innerHTML;
}
