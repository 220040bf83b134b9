// Starts the parts of the page.

import * as answer from "./answer.js";
import { byId, problem } from "./dom.js";
import * as live from "./live.js";
import * as model from "./model.js";

const REFRESH_SECONDS = 30;
let facts = null;

async function refresh() {
  facts = await model.load();
}

answer.start();
byId("key").hidden = !problem.keys;
byId("api-key").addEventListener("change", refresh);
await refresh();
live.start(() => facts);
setInterval(async () => {
  if (document.visibilityState === "visible" && document.activeElement?.closest("#model") === null) await refresh();
}, 1000 * REFRESH_SECONDS);
