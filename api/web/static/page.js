// The page: what is shown, and what happens when something is chosen.

import { keepBasemap, offeredBasemap, wantsBasemap } from "./basemap.js";
import { Client, Problem, isAborted } from "./client.js";
import { Coloring } from "./coloring.js";
import { byId, h } from "./dom.js";
import { FilterForm } from "./filter.js";
import { askKey } from "./key.js";
import { showLegend } from "./legend.js";
import { readLink, writeLink } from "./link.js";
import { ParcelList } from "./list.js";
import { ParcelMap, boxOf } from "./map.js";
import { clearMessage, say, showHover, tell } from "./messages.js";
import { MAP_COLORS } from "./palette.js";
import { ParcelPanel } from "./panel.js";
import { MOST_PARCELS, ParcelLoader } from "./parcels.js";
import { SimilarParcels } from "./similar.js";
import { count } from "./words.js";

const MATCHES = 12;
const SETTLE_MS = 150;

const dark = matchMedia("(prefers-color-scheme: dark)");
const basemap = offeredBasemap();
const view = readLink(location.hash);
const coloring = new Coloring();
const client = new Client(async (why) => {
  const key = await askKey(why);
  byId("forget-key").hidden = key === null;
  return key;
});
const loader = new ParcelLoader(client);
const form = new FilterForm({
  apply: applyFilter,
  askQueryables: () => client.queryables(view.collection),
});
const list = new ParcelList(byId("list-view"), {
  choose,
  hover: (feature) => map?.hover(feature),
  home: () => showExtent(),
});
const similar = new SimilarParcels(client, {
  mark,
  choose,
  hover: (feature) => map?.hover(feature),
  reveal: () => map?.reveal([chosen, ...matches].filter(Boolean)),
});
const panel = new ParcelPanel(byId("parcel-view"), client, {
  back: closeParcel,
  results: similar.element,
});

const known = new Map();
let map = null;
let collections = [];
let features = [];
let more = false;
let refused = null;
let chosen = null;
let matches = [];
let asking = { parcel: null, search: null, clusters: null };
let clusters = noClusters();

// For programs that drive this page, such as its tests.
globalThis.parcelle = {
  get map() {
    return map?.maplibre ?? null;
  },
  get view() {
    return structuredClone(view);
  },
};

// Starting --------------------------------------------------------------------------------------

async function start() {
  clearMessage();
  syncControls();
  say("Loading…");
  try {
    ({ collections } = await client.collections());
  } catch (error) {
    say("");
    tell(error, start);
    return;
  }
  byId("forget-key").hidden = !client.hasKey;
  if (!collections.length) {
    say("");
    tell(new Error("There is no collection of parcels yet. Index some images with: parcelle reindex"),
      start);
    return;
  }
  if (!collections.some((one) => one.id === view.collection)) {
    if (view.collection !== null) Object.assign(view, { parcel: null, like: [], unlike: [] });
    Object.assign(view, { collection: collections[0].id });
  }
  fillCollections();
  openMap();
  await showCollection();
}

function fillCollections() {
  const select = byId("collection");
  select.replaceChildren(...collections.map(({ id }) => h("option", { value: id }, id)));
  select.value = view.collection;
  select.disabled = false;
}

function openMap() {
  if (map) return;
  const shown = { ...basemap, shown: view.basemap };
  try {
    map = new ParcelMap(byId("map"), {
      bounds: extent() ?? [-180, -60, 180, 75],
      center: view.center,
      zoom: view.zoom,
      padding: besideTheLegend,
      scheme: scheme(),
      basemap: basemap && shown,
      on: { move: settle(onMove, SETTLE_MS), choose: chooseOnTheMap, hover: showHover },
    });
  } catch {
    byId("no-map").textContent =
      "This browser cannot draw the map, which needs WebGL. The list shows all the same.";
    byId("no-map").hidden = false;
  }
}

/** Pixels that the map keeps free at its sides, where there is room. */
function besideTheLegend() {
  const legend = byId("legend-card");
  const left = legend.open && byId("map").clientWidth > 2 * legend.offsetWidth
    ? legend.offsetLeft + legend.offsetWidth + 16 : 30;
  return { top: 40, right: 50, bottom: 50, left };
}

/** Show the collection of the view from the beginning: its colors, its parcels, the chosen one. */
async function showCollection({ reveal = view.center === null } = {}) {
  form.show(view);
  syncControls();
  features = [];
  refused = null;
  clusters = noClusters();
  known.clear();
  coloring.forgetCrops();
  showLists();
  say("Loading…");
  remember();
  byId("progress").hidden = false;
  const { collection } = view;
  try {
    // Colors follow from the collection, whatever part of it is in view.
    const sample = await client.items(collection, { limit: 1000 });
    if (collection !== view.collection) return;
    coloring.learnCrops(sample.features);
  } catch (error) {
    if (collection !== view.collection) return;
    byId("progress").hidden = true;
    say("");
    tell(error, start);
    return;
  }
  await Promise.all([learnClusters(), loadParcels(), openParcel({ reveal })]);
}

// The map and the list --------------------------------------------------------------------------

async function loadParcels({ anew = false } = {}) {
  const { collection, filter, datetime } = view;
  const box = map && extent() ? map.surroundings : null;
  const question = { collection, box, filter, datetime };
  if (loader.covers(question, map?.bounds)) {
    showLists();
    return true;
  }
  // What was refused once is not asked again each time the map moves.
  if (refused && refused.filter === filter && refused.datetime === datetime && !anew) return false;
  refused = null;
  byId("progress").hidden = false;
  try {
    await loader.load(question, (found) => {
      ({ features, more } = found);
      coloring.learnCrops(features);
      form.complain(null);
      clearMessage();
      paint();
      if (!found.done) say(`Loading… ${count(features.length, "parcel")} so far`);
    });
  } catch (error) {
    if (isAborted(error)) return false;
    byId("progress").hidden = true;
    say(features.length ? "" : "No parcels to show.");
    if (error instanceof Problem && error.status === 400) {
      refused = { filter, datetime };
      form.complain(error.message);
    } else tell(error, tryAgain);
    return false;
  }
  byId("progress").hidden = true;
  return true;
}

/** Ask once more for all that is missing. */
async function tryAgain() {
  if (!(await loadParcels({ anew: true }))) return;
  learnClusters();
  if (view.parcel !== null && chosen === null) openParcel();
}

/** Give everything its color, and show it. */
function paint() {
  for (const feature of [...features, ...matches]) {
    if (feature.properties.collection === view.collection) known.set(feature.properties.id, feature);
  }
  const colored = [...features, ...matches, ...(chosen ? [chosen] : [])];
  for (const { properties } of colored) properties.color = coloring.of(properties);
  const { edge, ramp } = MAP_COLORS[scheme()];
  map?.showParcels(features, view.color === "ndvi" ? ramp : edge);
  map?.showAnswer(chosen, matches, examples());
  similar.recolor((properties) => coloring.of(properties));
  showLists();
}

/** The examples that have been seen, each with the sign that it has on the map. */
function examples() {
  const signed = [...view.like.map((id) => [id, "+"]), ...view.unlike.map((id) => [id, "−"])];
  return signed.map(([id, sign]) => [known.get(id), sign]).filter(([feature]) => feature);
}

function showLists() {
  const seen = inView();
  const placed = map && extent();
  list.show(seen, (properties) => coloring.of(properties), placed ? "Parcels in view" : "Parcels");
  if (map) {
    byId("no-map").textContent = "These parcels have no place on the map: their images have no "
      + "reference system. Choose from the list.";
    byId("no-map").hidden = placed;
  }
  showLegend(byId("legend"), coloring, seen, {
    ...clusters,
    k: view.clusters,
    name: nameCluster,
    given: () => {
      // Somebody grouped the parcels anew: nothing of what is shown has a number any more.
      if (clusters.outdated) learnClusters({ anew: true });
    },
    change: (k) => {
      view.clusters = k;
      remember();
      learnClusters();
    },
  });
  say(summary(seen.length));
}

function inView() {
  if (!map || !extent()) return features;
  const [west, south, east, north] = map.bounds;
  return features.filter((feature) => {
    const box = boxOf(feature);
    return box && box[0] <= east && box[2] >= west && box[1] <= north && box[3] >= south;
  });
}

function summary(n) {
  const narrowed = view.filter || view.datetime;
  if (more && features.length >= MOST_PARCELS) {
    return `The first ${count(features.length, "parcel")}; zoom in to see all.`;
  }
  const parcels = n ? count(n, "parcel") : "No parcels";
  if (map && !extent()) return `${parcels}, without a place on the map`;
  return narrowed ? `${parcels} in view that fit the filter` : `${parcels} in view`;
}

function onMove() {
  Object.assign(view, map.view);
  remember();
  loadParcels();
}

async function learnClusters({ anew = false } = {}) {
  asking.clusters?.abort();
  if (view.color !== "cluster") return;
  const wanted = `${view.collection} ${view.clusters}`;
  if (clusters.of !== wanted || anew) {
    asking.clusters = new AbortController();
    // Whether any are stored is remembered while others are shown.
    const { stored } = clusters;
    clusters = { ...noClusters("Loading…"), stored };
    coloring.learnClusters(null);
    showLists();
    try {
      const { signal } = asking.clusters;
      const answer = await client.clusters(view.collection, view.clusters, signal);
      coloring.learnClusters(answer);
      clusters = {
        of: wanted,
        message: (answer.notes ?? []).join(" "),
        stored: view.clusters === null ? (answer.stored ? answer.clusters.length : 0) : stored,
        made: answer.k,
        clustering: answer.clustering,
        unassigned: answer.unassigned ?? [],
      };
    } catch (error) {
      if (isAborted(error)) return;
      clusters = { ...noClusters(error.message), stored };
    }
  }
  paint();
}

/** What is known of the clusters before the service told any. */
function noClusters(message = "") {
  return { of: null, message, stored: null, made: null, clustering: null, unassigned: [] };
}

/** Give a stored cluster a name, "" taking it away, and call `close()` before that is shown. */
async function nameCluster(number, name, close) {
  const { of, clustering } = clusters;
  let told;
  try {
    told = await client.nameCluster({ collection: view.collection, clustering, number, name });
  } catch (error) {
    clusters.outdated = error.kind === "cluster-not-found";
    throw error;
  }
  if (clusters.of !== of) return;
  coloring.nameCluster(number, told.name);
  clusters.unassigned = clusters.unassigned.filter((one) => one.name !== told.name);
  close();
  showLists();
  if (view.parcel !== null) openParcel();
}

// The chosen parcel -----------------------------------------------------------------------------

function choose({ collection, id }, { focus = true, reveal = true } = {}) {
  if (collection === view.collection && id === view.parcel) {
    if (focus) panel.focus();
    return;
  }
  const elsewhere = collection !== view.collection;
  Object.assign(view, { collection, parcel: id, like: [], unlike: [] });
  if (elsewhere) Object.assign(view, { filter: "", datetime: "" });
  remember({ push: true });
  if (elsewhere) showCollection({ reveal });
  else openParcel({ focus, reveal });
}

// It is in view already; the map stays as it is.
function chooseOnTheMap(properties) {
  choose(properties, { focus: false, reveal: false });
}

function closeParcel() {
  const last = view.parcel;
  Object.assign(view, { parcel: null, like: [], unlike: [] });
  remember({ push: true });
  openParcel();
  list.focus(last);
}

/** Show the parcel of the view, or the list where there is none. */
async function openParcel({ focus = false, reveal = false } = {}) {
  asking.parcel?.abort();
  asking.search?.abort();
  const { collection, parcel } = view;
  byId("list-view").hidden = parcel !== null;
  byId("parcel-view").hidden = parcel === null;
  document.title = parcel === null ? "Parcelle" : `${parcel} · Parcelle`;
  [chosen, matches] = [null, []];
  similar.clear();
  paint();
  if (parcel === null) return;
  asking.parcel = new AbortController();
  const { signal } = asking.parcel;
  panel.wait(parcel);
  scrollToTop();
  if (focus) panel.focus();
  const held = focus || byId("parcel-view").contains(document.activeElement);
  const searched = search();
  try {
    const [state, feature] = await Promise.all([
      client.state(collection, parcel, signal), featureOf(collection, parcel, signal),
    ]);
    signal.throwIfAborted();
    chosen = withNdvi(feature, state);
    paint();
    panel.show(state, signal);
    if (held) panel.focus();
    if (reveal) map?.reveal([chosen]);
  } catch (error) {
    if (isAborted(error)) return;
    // What is wrong with the question itself stays wrong.
    const lasting = error instanceof Problem && error.status < 500 && error.status !== 401;
    panel.fail(parcel, error, lasting ? null : () => openParcel({ focus: true, reveal }));
    return;
  }
  await searched;
}

/** Bring the beginning of the panel into view; on a phone the whole page scrolls. */
function scrollToTop() {
  const place = byId("panel");
  place.scrollTop = 0;
  if (place.getBoundingClientRect().top < 0) place.scrollIntoView();
}

async function featureOf(collection, id, signal) {
  return structuredClone(known.get(id) ?? (await client.item(collection, id, signal)));
}

function withNdvi(feature, state) {
  const last = state.observations.filter((one) => one.reliable && one.indices?.NDVI).at(-1);
  feature.properties.NDVI ??= last?.indices.NDVI.median ?? null;
  return feature;
}

async function search() {
  asking.search?.abort();
  asking.search = new AbortController();
  const { signal } = asking.search;
  const question = { ...view };
  similar.showQuestion(question);
  similar.wait();
  try {
    const answer = await askSimilar(question, signal);
    signal.throwIfAborted();
    matches = answer.features;
    paint();
    similar.show(matches, question, (properties) => coloring.of(properties), signal);
    panel.addNotes(answer.notes);
  } catch (error) {
    if (!isAborted(error)) similar.fail(error);
  }
}

function askSimilar({ collection, parcel, like, unlike, filter, datetime }, signal) {
  if (!like.length && !unlike.length) {
    return client.similar(collection, parcel, { k: MATCHES, filter, datetime }, signal);
  }
  return client.search({
    collection,
    positive: [parcel, ...like],
    negative: unlike,
    k: MATCHES,
    ...(filter ? { filter } : {}),
    ...(datetime ? { datetime } : {}),
  }, signal);
}

/** Make a parcel an example of what is wanted or not, or neither. */
function mark(id, kind) {
  for (const each of ["like", "unlike"]) {
    view[each] = view[each].filter((one) => one !== id);
    if (each === kind) view[each].push(id);
  }
  remember();
  search();
}

// Controls --------------------------------------------------------------------------------------

async function applyFilter({ filter, datetime }) {
  Object.assign(view, { filter, datetime });
  form.show(view);
  form.complain(null);
  remember();
  if ((await loadParcels({ anew: true })) && view.parcel !== null) search();
}

function syncControls() {
  coloring.by = view.color;
  coloring.scheme = scheme();
  if (view.collection !== null) byId("collection").value = view.collection;
  for (const radio of document.querySelectorAll("#color-by input")) {
    radio.checked = radio.value === view.color;
  }
  byId("basemap").checked = view.basemap;
}

function restyle() {
  coloring.scheme = scheme();
  map?.restyle(scheme(), view.basemap);
  paint();
}

byId("collection").addEventListener("change", (event) => {
  Object.assign(view, {
    collection: event.target.value, parcel: null, like: [], unlike: [], filter: "", datetime: "",
  });
  remember({ push: true });
  showExtent();
  showCollection();
});

byId("color-by").addEventListener("change", (event) => {
  view.color = event.target.value;
  coloring.by = view.color;
  remember();
  paint();
  learnClusters();
});

byId("basemap").addEventListener("change", (event) => {
  view.basemap = event.target.checked;
  keepBasemap(view.basemap);
  remember();
  restyle();
});

byId("forget-key").addEventListener("click", () => {
  client.key = null;
  location.reload();
});

byId("parcel-view").addEventListener("keydown", (event) => {
  if (event.key === "Escape") closeParcel();
});

dark.addEventListener("change", restyle);

// Back and forward, or a link typed over this one.
addEventListener("popstate", () => {
  const before = { ...view };
  Object.assign(view, readLink(location.hash));
  if (!collections.some((one) => one.id === view.collection)) view.collection = before.collection;
  if (map && view.center) map.jump(view.center, view.zoom);
  else if (view.collection !== before.collection) showExtent();
  showAfter(before);
});

function showAfter(before) {
  if (view.collection !== before.collection) {
    showCollection();
    return;
  }
  form.show(view);
  syncControls();
  restyle();
  learnClusters();
  if (view.filter !== before.filter || view.datetime !== before.datetime) loadParcels();
  if (view.parcel !== before.parcel) openParcel();
  else if (view.parcel !== null) search();
}

function remember({ push = false } = {}) {
  history[push ? "pushState" : "replaceState"](null, "", writeLink(view));
}

// Helpers ---------------------------------------------------------------------------------------

function scheme() {
  return dark.matches ? "dark" : "light";
}

/** Box of the collection, or null where none of its parcels has a place. */
function extent() {
  return collections.find((one) => one.id === view.collection)?.extent?.spatial?.bbox?.[0] ?? null;
}

/** Go to where the parcels of the collection are. */
function showExtent() {
  if (map && extent()) map.fit(extent());
}

/** A function that waits until it has not been called for a while. */
function settle(act, milliseconds) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(act, milliseconds);
  };
}

byId("basemap-choice").hidden = basemap === null;
view.basemap ||= basemap !== null && wantsBasemap();
byId("legend-card").open = innerWidth > 900;
start();
