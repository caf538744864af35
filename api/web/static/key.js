// The dialog that asks for a key of the service.

import { byId } from "./dom.js";

/** Ask the user; resolves to the key, or to null where the user cancels. */
export function askKey({ refused }) {
  const dialog = byId("key-dialog");
  const input = byId("key");
  byId("key-detail").textContent = refused
    ? "The service does not know that key." : "Whoever runs the service can give you one.";
  input.value = "";
  dialog.returnValue = "cancel";
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const key = input.value.trim();
      input.value = "";
      resolve(dialog.returnValue === "ok" && key ? key : null);
    }, { once: true });
    dialog.showModal();
  });
}
