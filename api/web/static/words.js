// Numbers, dates and areas as people read them.

const DAY = new Intl.DateTimeFormat("en-GB", {
  day: "numeric", month: "short", year: "numeric", timeZone: "UTC",
});
const COUNT = new Intl.NumberFormat("en-US");

/** "12 Aug 2023" of an RFC 3339 time, or "no date". */
export function day(time) {
  return time ? DAY.format(new Date(time)) : "no date";
}

/** A number to so many decimals with a real minus sign, or a dash. */
export function number(value, decimals = 2) {
  if (!Number.isFinite(value)) return "–";
  const text = Math.abs(value).toFixed(decimals);
  return value < 0 && Number(text) !== 0 ? `−${text}` : text;
}

/** The same, with a plus sign where it is positive. */
export function signed(value, decimals = 2) {
  const text = number(value, decimals);
  return value > 0 && Number(text) !== 0 ? `+${text}` : text;
}

/** A share of one, in percent. */
export function percent(share) {
  return Number.isFinite(share) ? `${Math.round(share * 100)} %` : "–";
}

/** Square meters as hectares, or null where the area is not known. */
export function area(squareMeters) {
  if (!Number.isFinite(squareMeters)) return null;
  const hectares = squareMeters / 10000;
  return `${number(hectares, hectares < 10 ? 2 : 1)} ha`;
}

/** "1 parcel", "2,000 parcels". */
export function count(n, one, many = `${one}s`) {
  return `${COUNT.format(n)} ${n === 1 ? one : many}`;
}

/** What is grown, by its name or else its code. */
export function crop(properties) {
  return properties["crop:name"] ?? properties["crop:code"] ?? null;
}
