// Asking the service. Addresses are relative, so that it may live below a path of a larger site.

const KEY = "parcelle-key";

/** An answer that tells what is wrong: RFC 9457. */
export class Problem extends Error {
  constructor(status, kind, detail) {
    super(detail);
    this.status = status;
    this.kind = kind;
  }
}

/** There was no answer at all. */
export class Unreachable extends Error {
  constructor() {
    super("The service does not answer. Is it running, and are you connected?");
  }
}

/** Whether a request was given up because another took its place. */
export function isAborted(error) {
  return error?.name === "AbortError";
}

export class Client {
  #askKey;
  #asking = null;
  #key = null;

  /** `askKey({refused})`, where a key was refused, resolves to a key of the service, or to null where the user has none. */
  constructor(askKey) {
    this.#askKey = askKey;
    try {
      this.#key = sessionStorage.getItem(KEY);
    } catch {
      // Storage may be switched off; then the key is kept by this page alone.
    }
  }

  get hasKey() {
    return this.#key !== null;
  }

  set key(key) {
    this.#key = key;
    try {
      if (key === null) sessionStorage.removeItem(KEY);
      else sessionStorage.setItem(KEY, key);
    } catch {
      // As above.
    }
  }

  collections(signal) {
    return this.#json("collections", { signal });
  }

  queryables(collection, signal) {
    return this.#json(`${at(collection)}/queryables`, { signal });
  }

  /** A page of parcels; `query` may be that of a `next` link. */
  items(collection, query, signal) {
    return this.#json(`${at(collection)}/items`, { query, signal });
  }

  item(collection, id, signal) {
    return this.#json(at(collection, id), { signal });
  }

  state(collection, id, signal) {
    return this.#json(`${at(collection, id)}/state`, { signal });
  }

  /** The stored clusters of a collection, or `k` of the moment; `k` is null for the stored ones. */
  clusters(collection, k, signal) {
    return this.#json("clusters", { query: { collection, k, members: true }, signal });
  }

  /** Name a stored cluster, or take its name away with ""; `clustering` is what it is one of. */
  nameCluster({ collection, clustering, number, name }) {
    return this.#json(`clusters/${number}/name`, {
      query: { collection, clustering },
      ...(name ? { method: "PUT", body: { name } } : { method: "DELETE" }),
    });
  }

  similar(collection, id, query, signal) {
    return this.#json(`${at(collection, id)}/similar`, { query, signal });
  }

  search(question, signal) {
    return this.#json("search", { body: question, signal });
  }

  /** Address of a blob that holds the picture; whoever shows it revokes it. */
  async preview(collection, id, query, signal) {
    const response = await this.#ask(`${at(collection, id)}/preview.png`, { query, signal });
    return URL.createObjectURL(await response.blob());
  }

  async #json(path, request) {
    const response = await this.#ask(path, request);
    return response.json();
  }

  async #ask(path, { query, body, signal, method = body ? "POST" : "GET" }) {
    const used = this.#key;
    const headers = body ? { "Content-Type": "application/json" } : {};
    if (used !== null) headers["X-API-Key"] = utf8(used);
    const response = await send(address(path, query), {
      method,
      body: body && JSON.stringify(body),
      headers,
      signal,
    });
    if (response.ok) return response;
    const problem = await problemOf(response);
    if (problem.status !== 401) throw problem;
    // Another request may have got a key meanwhile; else one dialog asks for all that wait.
    if (used === this.#key) await this.#renewKey(problem);
    signal?.throwIfAborted();
    return this.#ask(path, { query, body, signal, method });
  }

  async #renewKey(problem) {
    this.#asking ??= this.#askKey({ refused: this.hasKey }).finally(() => (this.#asking = null));
    const key = await this.#asking;
    if (key === null) throw problem;
    this.key = key;
  }
}

function at(collection, id) {
  const place = `collections/${encodeURIComponent(collection)}`;
  return id === undefined ? place : `${place}/items/${encodeURIComponent(id)}`;
}

function address(path, query) {
  if (!query) return path;
  const given = query instanceof URLSearchParams ? [...query] : Object.entries(query);
  const set = given.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return set.length ? `${path}?${new URLSearchParams(set)}` : path;
}

async function send(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (isAborted(error)) throw error;
    throw new Unreachable();
  }
}

async function problemOf(response) {
  let told = {};
  try {
    told = await response.json();
  } catch {
    // A proxy in between may answer with a page of its own.
  }
  const detail = told.detail ?? `The service answered ${response.status} ${response.statusText}.`;
  return new Problem(response.status, told.kind ?? "unknown", detail);
}

// Header values are bytes; the service reads UTF-8 from them.
function utf8(text) {
  return String.fromCharCode(...new TextEncoder().encode(text));
}
