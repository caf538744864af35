// The parcels of the view, page by page, up to a bound.

const PAGE = 1000;

/** More are not drawn; who zooms in sees all. */
export const MOST_PARCELS = 5000;

export class ParcelLoader {
  #client;
  #loading = null;
  #loaded = null;

  constructor(client) {
    this.#client = client;
  }

  /**
   * Load the parcels that a question asks for: `{collection, box, filter, datetime}`, the box being
   * null for those of any place. `show({features, more, done})` is told after each page. What was
   * still loading is given up. Throws what the client throws.
   */
  async load(question, show) {
    this.#loading?.abort();
    this.#loading = new AbortController();
    this.#loaded = null;
    const { signal } = this.#loading;
    const features = [];
    let query = {
      limit: PAGE,
      bbox: question.box && bboxText(question.box),
      filter: question.filter,
      datetime: question.datetime,
    };
    while (query) {
      const page = await this.#client.items(question.collection, query, signal);
      features.push(...page.features);
      const next = page.links.find((link) => link.rel === "next");
      query = next && features.length < MOST_PARCELS ? new URL(next.href).searchParams : null;
      const more = next !== undefined;
      if (!query) this.#loaded = { ...question, more };
      show({ features, more, done: !query });
    }
  }

  /** Whether what was loaded last answers for this view as well. */
  covers(question, bounds) {
    const last = this.#loaded;
    if (!last) return false;
    const same = ["collection", "filter", "datetime"].every((part) => last[part] === question[part]);
    if (last.box === null || question.box === null) return same && last.box === question.box;
    return same && !last.more && contains(last.box, bounds);
  }

  stop() {
    this.#loading?.abort();
    this.#loaded = null;
  }
}

function contains(outer, inner) {
  return outer[0] <= inner[0] && outer[1] <= inner[1] && outer[2] >= inner[2] && outer[3] >= inner[3];
}

/** As the service reads it: longitudes from -180 to 180, west above east across the antimeridian. */
function bboxText([west, south, east, north]) {
  const whole = east - west >= 360;
  const [from, to] = whole ? [-180, 180] : [wrapped(west), wrapped(east)];
  return [from, Math.max(south, -90), to, Math.min(north, 90)].map((one) => one.toFixed(6)).join();
}

function wrapped(longitude) {
  return ((((longitude + 180) % 360) + 360) % 360) - 180;
}
