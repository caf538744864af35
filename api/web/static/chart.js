// A spectral index of one parcel over time, as SVG, with a table that tells the same.

import { h, s } from "./dom.js";
import { count, day, number, percent } from "./words.js";

const WIDTH = 360;
const HEIGHT = 190;
const FRAME = { left: 44, right: 352, top: 12, bottom: 150 };
const DAY_MS = 86_400_000;

/** The chart of one index; observations without it or without a date are left out. */
export function indexChart(observations, name) {
  const points = pointsOf(observations, name);
  if (!points.length) {
    const measured = observations.some((one) => Number.isFinite(one.indices?.[name]?.median));
    return h("p", { class: "small" }, measured
      ? "No date of acquisition is known, so there is nothing to draw; the table below tells the values."
      : `${name} was not measured on any date.`);
  }
  const [x, months] = timeAxis(points);
  const [y, ticks] = valueAxis(points);
  return s("svg", {
    class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": told(points, name),
  },
  ticks.map((tick) => [
    s("line", { class: "grid", x1: FRAME.left, x2: FRAME.right, y1: y(tick), y2: y(tick) }),
    s("text", { class: "tick", x: FRAME.left - 7, y: y(tick) + 3.5, "text-anchor": "end" },
      number(tick, 1)),
  ]),
  months.map(({ time, text }) => [
    s("line", { class: "mark", x1: x(time), x2: x(time), y1: FRAME.bottom, y2: FRAME.bottom + 4 }),
    s("text", { class: "tick", x: x(time), y: FRAME.bottom + 16, "text-anchor": "middle" }, text),
  ]),
  s("line", { class: "mark", x1: FRAME.left, x2: FRAME.right, y1: FRAME.bottom, y2: FRAME.bottom }),
  axisTitles(name, points),
  s("polyline", {
    class: "line",
    points: points.filter((one) => one.reliable).map((one) => `${x(one.time)},${y(one.median)}`).join(" "),
  }),
  points.map((one) => mark(one, name, x, y)));
}

/** The same as a table, with how much of the parcel was seen. */
export function observationTable(observations, name) {
  const rows = [...observations].reverse().map((one) =>
    h("tr", {},
      h("th", { scope: "row" }, day(one.datetime)),
      h("td", {}, number(one.indices?.[name]?.median)),
      h("td", {}, `${number(one.indices?.[name]?.p10)} to ${number(one.indices?.[name]?.p90)}`),
      h("td", {}, percent(one.valid_fraction)),
      h("td", {}, one.reliable ? "yes" : "no")));
  return h("details", {}, h("summary", {}, "As a table"), h("div", { class: "scroll" },
    h("table", {},
      h("thead", {}, h("tr", {}, ["Date", `${name}, median`, "10 to 90 %", "Seen", "Reliable"].map(
        (title) => h("th", { scope: "col" }, title)))),
      h("tbody", {}, rows))));
}

/** What the marks mean. */
export function chartKey(observations) {
  const key = (reliable, text) => h("span", {},
    s("svg", { class: "chart key", viewBox: "0 0 14 14", width: 14, height: 14, "aria-hidden": "true" },
      shape(reliable, 7, 7)), text);
  const doubtful = observations.some((one) => !one.reliable);
  return h("p", { class: "small chart-key" }, key(true, "reliable"),
    doubtful ? key(false, "not reliable: few or clouded pixels") : null,
    h("span", {}, "bars: 10 % to 90 % of the pixels"));
}

function pointsOf(observations, name) {
  return observations
    .filter((one) => one.datetime && Number.isFinite(one.indices?.[name]?.median))
    .map((one) => ({
      ...one.indices[name], time: Date.parse(one.datetime), date: one.datetime, reliable: one.reliable,
    }));
}

function mark(one, name, x, y) {
  const text = `${day(one.date)}: ${name} ${number(one.median)}, 10 % to 90 % of the pixels `
    + `${number(one.p10)} to ${number(one.p90)}${one.reliable ? "" : ", not reliable"}`;
  return s("g", {}, s("title", {}, text),
    s("line", { class: "range", x1: x(one.time), x2: x(one.time), y1: y(one.p10), y2: y(one.p90) }),
    shape(one.reliable, x(one.time), y(one.median)));
}

// Told apart by shape, not by color alone.
function shape(reliable, x, y) {
  if (reliable) return s("circle", { class: "reliable", cx: x, cy: y, r: 4.2 });
  return s("path", { class: "doubtful", d: `M${x} ${y - 5.5}l5.5 5.5l-5.5 5.5l-5.5-5.5z` });
}

function axisTitles(name, points) {
  const years = [...new Set(points.map((one) => one.date.slice(0, 4)))];
  const when = years.length > 1 ? `${years[0]} to ${years.at(-1)}` : years[0];
  const middle = (FRAME.top + FRAME.bottom) / 2;
  return [
    s("text", { class: "title", x: (FRAME.left + FRAME.right) / 2, y: HEIGHT - 6,
      "text-anchor": "middle" }, `Date of acquisition, ${when}`),
    s("text", { class: "title", x: 0, y: 0, transform: `translate(11 ${middle}) rotate(-90)`,
      "text-anchor": "middle" }, `${name} (unitless)`),
  ];
}

/** Position of a time, and the first days of months that are written below the axis. */
function timeAxis(points) {
  const times = points.map((one) => one.time);
  const [first, last] = [Math.min(...times), Math.max(...times)];
  const margin = Math.max((last - first) * 0.05, 10 * DAY_MS);
  const [from, to] = [first - margin, last + margin];
  const x = (time) => FRAME.left + ((time - from) / (to - from)) * (FRAME.right - FRAME.left);
  const monthsApart = Math.ceil((to - from) / (30 * DAY_MS) / 7);
  const step = [1, 2, 3, 6, 12, 24, 60, 120].find((one) => one >= monthsApart) ?? 240;
  const months = [];
  const month = new Date(from);
  month.setUTCFullYear(month.getUTCFullYear(), 0, 1);
  month.setUTCHours(0, 0, 0, 0);
  while (month.getTime() <= to) {
    if (month.getTime() >= from) months.push({ time: month.getTime(), text: monthName(month, step) });
    month.setUTCMonth(month.getUTCMonth() + step);
  }
  return [x, months];
}

function monthName(month, step) {
  if (step >= 12) return String(month.getUTCFullYear());
  const name = month.toLocaleDateString("en-GB", { month: "short", timeZone: "UTC" });
  return month.getUTCMonth() === 0 ? `${name} ${month.getUTCFullYear()}` : name;
}

/** Position of a value, and the values that are written beside the axis. */
function valueAxis(points) {
  const values = points.flatMap((one) => [one.p10 ?? one.median, one.p90 ?? one.median]);
  const step = 0.2;
  const low = Math.min(0, Math.floor(Math.min(...values) / step) * step);
  const high = Math.max(low + 2 * step, Math.ceil(Math.max(...values) / step) * step);
  const y = (value) => FRAME.bottom - ((value - low) / (high - low)) * (FRAME.bottom - FRAME.top);
  const ticks = [];
  for (let i = 0; low + i * step <= high + 1e-9; i += 1) ticks.push(low + i * step);
  return [y, ticks];
}

function told(points, name) {
  const [first, last] = [points[0], points.at(-1)];
  const most = points.reduce((best, one) => (one.median > best.median ? one : best));
  const doubtful = points.filter((one) => !one.reliable).length;
  return `${name} on ${count(points.length, "date")} from ${day(first.date)} to ${day(last.date)}`
    + `${doubtful ? `, ${doubtful} of them not reliable` : ""}: first ${number(first.median)}, `
    + `highest ${number(most.median)} on ${day(most.date)}, last ${number(last.median)}. `
    + "The table below tells all.";
}
