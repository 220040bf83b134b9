// What is known of the served version: where it is from, what was measured, and its limits.

import { curve, span } from "./charts.js";
import { byId, cell, clock, count, make, numberHead, percent, problem, rowHead, send, table, words } from "./dom.js";
import { suggest } from "./form.js";

const SLICE_METRICS = ["rate", "mean_probability", "roc_auc", "log_loss", "ece"];

/** Load the facts and show them; return them, or null if no model is served. */
export async function load() {
  const { status, body } = await send("page/model").catch((error) => ({ status: 0, body: { detail: error.message } }));
  const badge = byId("served");
  badge.classList.toggle("bad", status !== 200);
  if (status !== 200) {
    badge.textContent = status === 401 ? "An API key is required" : "No model";
    byId("model-facts").replaceChildren(make("p", { class: "card" }, body.detail));
    return null;
  }
  badge.textContent = `${body.model.name}, version ${body.model.version}`;
  suggest(body.vocabularies);
  byId("model-facts").replaceChildren(...(body.evaluation ? [origin(body), ...evaluation(body.evaluation)] : [origin(body),
    make("p", { class: "card" }, "No evaluation is stored with this version. It was registered by a former release; `make repro` adds it.")]));
  return body;
}

function origin(facts) {
  const { production: moved, rows } = facts;
  const period = (part) => part && `${part.first} to ${part.last}, ${count(part.rows)} ${problem.rows}`;
  const evidence = moved?.experiment && problem.mlflow ? [" ", make("a", { href: `${problem.mlflow.replace(/\/$/, "")}/#/experiments/${moved.experiment}/runs/${moved.run_id}` }, "Evidence in MLflow")] : "";
  const entries = {
    Version: `${facts.model.version}${facts.alias ? `, ${facts.alias}` : ""} (from ${{ registry: "the registry", baked: "the image", cache: "the last start" }[facts.source]})`,
    Registered: facts.created && clock(facts.created),
    Production: moved && [`since ${clock(moved.since)}, ${moved.action === "rollback" ? "rolled back" : "promoted"} by ${moved.by}: ${moved.why}`, evidence],
    "Trained on": period(rows.train),
    "Tested on": period(rows.test),
    Threshold: facts.evaluation ? `${percent(facts.threshold)}: ${percent(facts.evaluation.threshold.alert_share)} of the ${problem.rows} tested got an alert, ${percent(facts.evaluation.threshold.precision)} of the alerts were right, ${percent(facts.evaluation.threshold.recall)} of the positives got one` : percent(facts.threshold),
    Bundle: make("code", {}, facts.bundle_digest.slice(0, 16)),
  };
  return make("dl", { class: "card" }, Object.entries(entries).filter(([, value]) => value).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

function evaluation(found) {
  const { texts } = found;
  return [
    make("div", { class: "card" }, metrics(found)),
    make("div", { class: "card charts" },
      make("figure", {}, make("figcaption", {}, "ROC"), curve(found.curves.roc.false_positive_rate, found.curves.roc.true_positive_rate, `ROC curve; the area under it is ${found.test.roc_auc.toFixed(3)}`, ["false positive rate", "true positive rate"])),
      make("figure", {}, make("figcaption", {}, "Calibration"), curve(found.curves.calibration.predicted, found.curves.calibration.observed, "Observed rate by predicted probability", ["predicted", "observed"], true)),
      importance(found.importance)),
    make("div", { class: "card" }, slices(found)),
    make("div", { class: "card" }, make("h3", {}, "Limits"), make("p", {}, texts.limits)),
  ];
}

function metrics({ test, intervals, baselines, metrics: known }) {
  const rows = Object.entries(known).map(([name, { title, higher_is_better: higher }]) => make("tr", {},
    rowHead(`${title} ${higher ? "↑" : "↓"}`), cell(test[name].toFixed(4)), cell(intervals[name].map((value) => value.toFixed(4)).join(" to ")),
    Object.values(baselines).map((one) => cell(one[name].toFixed(4)))));
  return table("Metrics on the test period; ↑ higher is better, ↓ lower is better",
    ["Metric", ...["Model", "95 % interval", ...Object.keys(baselines).map(words)].map(numberHead)], rows);
}

function importance(shares) {
  const largest = Object.entries(shares).slice(0, 10);
  const [, most] = largest[0];
  return make("figure", {}, make("figcaption", {}, "Features by share of the gain"),
    make("table", {}, make("caption", { class: "quiet" }, `The first ${largest.length} of ${Object.keys(shares).length}`), make("tbody", {}, largest.map(([name, share]) => make("tr", {}, rowHead(words(name)), cell(percent(share)),
      make("td", { class: "bar" }, span(0, share, [0, most], "fill-accent")))))));
}

/** Return the slices as a table that can be sorted by each column. */
function slices({ slices: parts, metrics: known }) {
  const names = SLICE_METRICS.filter((name) => known[name] || name === "rate" || name === "mean_probability");
  const values = Object.entries(parts).filter(([, part]) => "rate" in part).map(([name, part]) => [name, part.rows, ...names.map((metric) => part[metric])]);
  const body = make("tbody");
  const draw = () => body.replaceChildren(...values.map(([name, rows, ...rest]) => make("tr", {}, rowHead(name), cell(count(rows)), rest.map((value) => cell(value.toFixed(3))))));
  const heads = ["Slice", words(problem.rows), ...names.map((name) => known[name]?.title ?? words(name))].map((title, i) =>
    make("th", { scope: "col", class: i ? "number" : null }, make("button", { type: "button", click: () => sort(i) }, title)));
  const sort = (column) => {
    const down = heads[column].getAttribute("aria-sort") === "ascending";
    for (const head of heads) head.removeAttribute("aria-sort");
    heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    values.sort((a, b) => (down ? -1 : 1) * (column ? a[column] - b[column] : a[0].localeCompare(b[0], "en", { numeric: true })));
    draw();
  };
  draw();
  const small = Object.keys(parts).filter((name) => !("rate" in parts[name]));
  const whole = table("By slice of the test period; a column's name sorts by it", heads, []);
  whole.querySelector("tbody").replaceWith(body);
  return make("div", {}, whole, small.length ? make("p", { class: "quiet small" }, `Too few ${problem.rows} to measure: ${small.join(", ")}.`) : null);
}
