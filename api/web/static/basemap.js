// The basemap that the service may offer, and whether the user wants it.

const KEPT = "parcelle-basemap";

/** URL template and attribution of the basemap, or null where the service offers none. */
export function offeredBasemap() {
  const meta = document.querySelector('meta[name="parcelle-basemap"]');
  return meta.content ? { url: meta.content, attribution: meta.dataset.attribution } : null;
}

/** Whether it was turned on the last time. */
export function wantsBasemap() {
  try {
    return localStorage.getItem(KEPT) === "on";
  } catch {
    // Storage may be switched off; the link keeps it as well.
    return false;
  }
}

/** Remember whether it is turned on. */
export function keepBasemap(on) {
  try {
    localStorage.setItem(KEPT, on ? "on" : "off");
  } catch {
    // As above.
  }
}
