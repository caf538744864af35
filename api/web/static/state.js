// The state of a parcel in words: what it looks like now, how that changed, how it stands.

import { h } from "./dom.js";
import { count, crop, day, number, percent, signed } from "./words.js";

// Slopes of NDVI per day below which nobody would call a parcel changing: 0.03 in a month.
const STEADY_PER_DAY = 0.001;

/** Definitions for a list: what it is about, what is to be said, and a picture where it helps. */
export function stateRows(state) {
  return [latest(state), cluster(state), trend(state), lastChange(state), ...peers(state), lookAlikes(state), seen(state)]
    .filter(Boolean)
    .flatMap(([term, ...told]) => [h("dt", {}, term), h("dd", {}, ...told)]);
}

/** What must catch the eye: a declared crop that the look-alikes contradict. */
export function contradiction(state) {
  const vote = state.peers?.crop;
  if (vote?.agrees !== false) return null;
  return `Declared as ${crop(vote.declared) ?? "nothing"}, but ${percent(vote.share)} of `
    + `${count(vote.n, "look-alike")} grow ${crop(vote.suggested)}.`;
}

function latest(state) {
  const reliable = state.observations.filter((one) => one.reliable && one.indices?.NDVI);
  const last = reliable.at(-1);
  if (!last) return ["Now", "No observation is reliable, so nothing can be said of its state."];
  if (!last.datetime) return ["Now", h("strong", {}, `NDVI ${number(last.indices.NDVI.median)}`), ", without a known date."];
  const peak = state.peak ? ` Its peak was ${number(state.peak.median)} on ${day(state.peak.datetime)}.` : "";
  return ["Now", h("strong", {}, `NDVI ${number(last.indices.NDVI.median)}`),
    ` on ${day(last.datetime)}, the last reliable date.${peak}`];
}

function cluster(state) {
  const { cluster: name, "cluster:number": which, "cluster:score": closeness } = state;
  if (!which) return null;
  const told = name === null ? `Number ${which}, which has no name yet` : h("strong", {}, name);
  return ["Cluster", told, `; closeness to its center ${number(closeness)} (cosine).`];
}

function trend({ trend: found }) {
  if (!found) return ["Trend", "Too few reliable dates to tell."];
  const word = Math.abs(found.per_day) < STEADY_PER_DAY ? "Steady"
    : found.per_day > 0 ? "Rising" : "Falling";
  return ["Trend", h("strong", {}, word),
    `: ${found.index} ${signed(found.per_day, 4)} a day over ${found.observations} dates, `
    + `${day(found.start)} to ${day(found.end)}.`];
}

function lastChange({ last_change: change }) {
  if (!change) return null;
  const indices = ["NDVI", "NDMI"].filter((name) => name in change.indices)
    .map((name) => `${name} ${signed(change.indices[name])}`).join(", ");
  return ["Last change", `${day(change.start)} to ${day(change.end)} (${count(Math.round(change.days), "day")}): `
    + `${indices}; likeness ${number(change.score)} (cosine of the embeddings).`];
}

function peers({ peers: found }) {
  if (!found) return [];
  const { similar, nearby } = found;
  const groups = same(similar, nearby)
    ? [["similar", "Its kind"]] : [["similar", "Look-alikes"], ["nearby", "Neighbors"]];
  return groups
    .filter(([group]) => found[group])
    .map(([group, term]) => standing(term, found[group], crop(found.crop.declared)));
}

/** Whether the parcels of the crop are so few that both groups hold all of them. */
function same(similar, nearby) {
  return similar !== null && nearby !== null
    && ["n", "farthest_km", "indices"].every((part) =>
      JSON.stringify(similar[part]) === JSON.stringify(nearby[part]));
}

function standing(term, group, grown) {
  const many = `${count(group.n, "parcel")} of ${grown}`;
  const ndvi = group.indices.NDVI;
  if (group.too_few || !ndvi) return [term, `Only ${many} at that time: too few to compare.`];
  const far = group.farthest_km === null ? "" : ` within ${number(group.farthest_km, 1)} km`;
  return [term,
    h("strong", {}, `Greener than ${Math.round(ndvi.percentile)} %`), ` of ${many}${far}.`,
    strip(ndvi)];
}

/** Where a value stands between the 10 % and 90 % quantiles of its peers; the words tell the same. */
function strip({ value, p10, median, p90 }) {
  const low = Math.min(value, p10);
  const high = Math.max(value, p90);
  const margin = (high - low || 0.1) * 0.08;
  const place = (x) => `${((x - low + margin) / (high - low + 2 * margin)) * 100}%`;
  const part = (name, left, right) => {
    const element = h("span", { class: name });
    element.style.left = place(left);
    if (right !== undefined) element.style.width = `calc(${place(right)} - ${place(left)})`;
    return element;
  };
  return h("span", { class: "standing" },
    h("span", { class: "strip", "aria-hidden": "true" },
      part("spread", p10, p90), part("median", median), part("value", value)),
    h("span", { class: "small" }, `NDVI ${number(value)}; theirs ${number(p10)} to ${number(p90)}, `
      + `median ${number(median)}`));
}

function lookAlikes({ peers: found }) {
  const vote = found?.crop;
  if (!vote || vote.too_few || contradiction({ peers: found })) return null;
  const agrees = vote.agrees ? ", as declared" : "";
  return ["Crop", `Its look-alikes grow ${crop(vote.suggested)} (${percent(vote.share)} of ${vote.n})${agrees}.`];
}

function seen({ reliability, gaps }) {
  const text = `${count(reliability.observations, "observation")}, ${reliability.reliable} of them reliable`;
  const every = gaps ? `; every ${Math.round(gaps.typical_days)} days, longest gap `
    + `${Math.round(gaps.longest_days)} days` : "";
  return ["Seen", `${text}${every}.`];
}
