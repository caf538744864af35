// Shows what /api says, and sends the key of the service along where it asks for one.

// The map page keeps it under the same name, for as long as the tab is open.
const KEY = "parcelle-key";

const byId = (id) => document.getElementById(id);

/** The key as a header takes it: its bytes in UTF-8, one character each. */
function storedKey() {
  const key = sessionStorage.getItem(KEY);
  return key && String.fromCharCode(...new TextEncoder().encode(key));
}

async function start() {
  const key = storedKey();
  const response = await fetch("api", { headers: key ? { "X-API-Key": key } : {} });
  if (response.status === 401) {
    askKey(key !== null);
    return;
  }
  if (!response.ok) throw new Error(`The service answers ${response.status}.`);
  show(await response.json());
}

function askKey(refused) {
  sessionStorage.removeItem(KEY);
  byId("key-refused").hidden = !refused;
  byId("key-form").hidden = false;
  byId("key").focus();
}

function show(spec) {
  byId("key-form").hidden = true;
  window.SwaggerUIBundle({
    spec: withoutGuesses(spec),
    dom_id: "#swagger-ui",
    displayRequestDuration: true,
    defaultModelsExpandDepth: 0,
    // It would send the document to a service elsewhere.
    validatorUrl: null,
    requestInterceptor: withKey,
  });
}

/** Tell examples of what may be left out in words: as values they would all be sent along. */
function withoutGuesses(spec) {
  for (const operation of Object.values(spec.paths).flatMap((path) => Object.values(path))) {
    for (const parameter of operation.parameters ?? []) {
      const { example, ...schema } = parameter.schema ?? {};
      if (parameter.required || example === undefined) continue;
      parameter.schema = schema;
      const text = [example].flat().join(",");
      if (text !== "") parameter.description = `${parameter.description ?? ""} For example: \`${text}\``;
    }
  }
  return spec;
}

/** What was entered under "Authorize" goes first. */
function withKey(request) {
  const key = storedKey();
  const named = Object.keys(request.headers).map((name) => name.toLowerCase());
  if (key && !named.includes("x-api-key") && !named.includes("authorization")) {
    request.headers["X-API-Key"] = key;
  }
  return request;
}

function tell(error) {
  byId("trouble").textContent = `The documentation cannot be shown: ${error.message}`;
  byId("trouble").hidden = false;
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, byId("key").value.trim());
  byId("key").value = "";
  start().catch(tell);
});

start().catch(tell);
