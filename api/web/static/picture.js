// Preview images: fetched with the key, shown as blobs, a neutral ground where there is none.

import { h } from "./dom.js";
import { isAborted } from "./client.js";

/** A picture of a parcel that appears when it has arrived; `alt` is "" beside its name. */
export function picture(client, { collection, id, style, size, datetime, signal, alt }) {
  const image = h("img", { alt, hidden: true, draggable: "false" });
  const frame = h("span", { class: "picture" }, image);
  client.preview(collection, id, { style, size, datetime }, signal).then(
    (address) => {
      image.addEventListener("load", () => URL.revokeObjectURL(address), { once: true });
      image.src = address;
      image.hidden = false;
    },
    (error) => {
      if (isAborted(error)) return;
      frame.classList.add("missing");
      frame.title = error.message;
      if (alt) frame.append(h("span", { class: "small" }, "No image to show"));
    },
  );
  return frame;
}
