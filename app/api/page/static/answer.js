// The form's answer: the probability with the threshold, and the contributions, which add up.

import { gauge, span } from "./charts.js";
import { byId, cell, make, numberHead, percent, problem, rowHead, send, short, table, words } from "./dom.js";
import { build, mark } from "./form.js";

const SHOWN = 8;
const NAMED = new Intl.NumberFormat("en", { signDisplay: "always", minimumFractionDigits: 2, maximumFractionDigits: 2 });
let form;

/** Show the form and its buttons; the example is filled in. */
export function start() {
  form = build(byId("fields"));
  const fill = (value) => { form.write(value); mark([]); code(); };
  byId("example").addEventListener("click", () => fill(problem.example));
  byId("clear").addEventListener("click", () => fill({}));
  byId("try").addEventListener("submit", (event) => { event.preventDefault(); predict(); });
  byId("try").addEventListener("input", code);
  for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => copy(button.dataset.copy));
  fill(problem.example);
}

async function predict() {
  const button = byId("try").querySelector("[type=submit]");
  button.disabled = true;
  try {
    const { status, body } = await send(`predict?explain=true${byId("record").checked ? "" : "&probe=true"}`, form.read());
    const elsewhere = mark(body.errors ?? []);
    if (status === 200) return show(body);
    fail(body.errors ? `${body.errors.length === 1 ? "One field is" : `${body.errors.length} fields are`} not valid.` : body.detail, elsewhere);
  } catch (error) {
    fail(error.message, []);
  } finally {
    button.disabled = false;
  }
}

function fail(text, more) {
  byId("answer").replaceChildren(make("p", { class: "wrong", role: "alert" }, text), make("ul", {}, more.map((line) => make("li", {}, line))));
}

function show(body) {
  const verdict = body.alert ? make("strong", { class: "alert" }, "Alert") : make("strong", {}, "No alert");
  byId("answer").replaceChildren(
    make("h3", {}, `Probability of ${problem.positive}`),
    make("p", { class: "big", role: "status" }, percent(body.probability)),
    gauge(body.probability, body.threshold, `Probability ${percent(body.probability)}, threshold ${percent(body.threshold)}`),
    make("p", {}, verdict, `: the threshold is ${percent(body.threshold)}. Version ${body.model.version} of ${body.model.name}.`),
    contributions(body.explanation));
}

/** Return the contributions as a table whose bars start where the former one ended. */
function contributions({ baseline, contributions: parts, log_odds: total }) {
  const rest = parts.slice(SHOWN).reduce((sum, part) => sum + part.contribution, 0);
  const lines = parts.slice(0, SHOWN).map(({ feature, value, contribution }) => {
    const { unit, text } = problem.features[feature];
    return [words(feature), text, value === null ? "missing" : `${short(value)} ${unit}`, contribution];
  });
  if (parts.length > SHOWN) lines.push([`${parts.length - SHOWN} other features`, "", "", rest]);
  const ends = lines.reduce((all, line) => [...all, all.at(-1) + line[3]], [baseline]);
  const scale = [Math.min(...ends, 0), Math.max(...ends, 0)];
  const bar = (from, to, kind) => make("td", { class: "bar" }, span(from, to, scale, kind));
  const rows = lines.map(([name, text, value, part], i) => make("tr", { title: text || null }, rowHead(name), cell(value), cell(NAMED.format(part)),
    bar(ends[i], ends[i + 1], part > 0 ? "fill-up" : "fill-down")));
  return make("div", {},
    table(`What adds up to the probability, in log-odds: the largest ${Math.min(SHOWN, parts.length)} contributions`, ["Feature", numberHead("Value"), numberHead("Log-odds"), "Sum so far"], [
      make("tr", {}, rowHead("Average of the training rows"), cell(""), cell(NAMED.format(baseline)), bar(0, baseline, "fill-quiet")),
      ...rows,
      make("tr", {}, rowHead("Sum"), cell(percent(1 / (1 + Math.exp(-total)))), cell(NAMED.format(total)), bar(0, total, "fill-accent")),
    ]));
}

/** Write the request as code. */
function code() {
  const body = form.read();
  const address = new URL("predict", document.baseURI).href;
  const key = problem.keys ? { shell: " -H 'X-API-Key: KEY'", python: ', headers={"X-API-Key": "KEY"}' } : { shell: "", python: "" };
  byId("curl").textContent = `curl ${address}${key.shell} --json '${JSON.stringify(body).replaceAll("'", "'\\''")}'`;
  byId("python").textContent = `import httpx\n\nrequest = ${python(body)}\nresponse = httpx.post("${address}", json=request${key.python})\nprint(response.raise_for_status().json())`;
}

/** Return a JSON value as a Python literal. */
function python(value, indent = "") {
  const inner = `${indent}    `;
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return value.length ? `[\n${value.map((one) => `${inner}${python(one, inner)},\n`).join("")}${indent}]` : "[]";
  if (typeof value === "object") return `{\n${Object.entries(value).map(([name, one]) => `${inner}${JSON.stringify(name)}: ${python(one, inner)},\n`).join("")}${indent}}`;
  return JSON.stringify(value);
}

async function copy(id) {
  try {
    await navigator.clipboard.writeText(byId(id).textContent);
    byId("copied").textContent = `Copied as ${id === "curl" ? "curl" : "Python"}.`;
  } catch {
    getSelection().selectAllChildren(byId(id));
    byId("copied").textContent = "Selected; copy it with Ctrl-C.";
  }
}
