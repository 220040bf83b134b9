// Elements, numbers and requests: what the other modules share.

export const problem = JSON.parse(document.getElementById("problem").textContent);
export const byId = (id) => document.getElementById(id);

const SVG = new Set(["svg", "rect", "line", "path", "text", "circle", "title", "g"]);

/** Return an element with attributes and children; null and undefined are left out, texts are never HTML. */
export function make(tag, attributes = {}, ...children) {
  const element = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

/** Return a name as words: `scheduled_departure` becomes `Scheduled departure`. */
export function words(name) {
  const text = name.replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export const percent = (share, digits = 1) => (share === null || share === undefined ? "–" : `${(100 * share).toFixed(digits)} %`);
export const count = (number) => number.toLocaleString("en");
export const clock = (seconds) => new Date(1000 * seconds).toISOString().slice(0, 16).replace("T", " ") + " UTC";

/** Return a number with at most four significant digits. */
export const short = (value) => (typeof value === "number" ? String(Number(value.toPrecision(4))) : String(value));

/** Send a request to the service; return status and parsed body. Throws an Error with a sentence if there is no response. */
export async function send(path, body) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  const key = byId("api-key").value;
  if (key) headers["X-API-Key"] = key;
  const options = body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The service does not respond; it may have been stopped.");
  }
  return { status: response.status, body: await response.json().catch(() => ({ detail: `Status ${response.status}.` })) };
}

/** Return a table that scrolls sideways where it has no room; the first row is the header. */
export function table(caption, header, rows) {
  const head = header.map((cell) => (cell instanceof Node ? cell : make("th", { scope: "col" }, cell)));
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    make("table", {}, make("caption", {}, caption), make("thead", {}, make("tr", {}, head)), make("tbody", {}, rows)));
}

export const cell = (text, options = {}) => make("td", { class: "number", ...options }, text);
export const rowHead = (text) => make("th", { scope: "row" }, text);
export const numberHead = (text) => make("th", { scope: "col", class: "number" }, text);
