// The last minutes of the service, from its own counters.

import { trend } from "./charts.js";
import { byId, count, make, percent, send } from "./dom.js";

const SECONDS = 5;
const milliseconds = (seconds) => (seconds === null ? "–" : `${(1000 * seconds).toFixed(seconds < 0.01 ? 1 : 0)} ms`);

/** Show the figures now and, while the page is visible, every few seconds. `model` returns the facts of the served model. */
export function start(model) {
  const update = async () => {
    if (document.visibilityState === "visible") await show(model());
    setTimeout(update, 1000 * SECONDS);
  };
  update();
}

async function show(facts) {
  const place = byId("live-facts");
  const { status, body } = await send("page/live").catch((error) => ({ status: 0, body: { detail: error.message } }));
  if (status !== 200) return place.replaceChildren(make("p", { class: "card" }, body.detail));
  const { recent, series, journal } = body;
  if (!recent.seconds) return place.replaceChildren(make("p", { class: "card" }, "The service has just started; the first figures are there in some seconds."));
  place.replaceChildren(tiles(recent, journal, facts), make("div", { class: "card charts" },
    chart("Requests per second", series.per_second, (value) => value.toFixed(1), series.time),
    chart("95 % of the requests within", series.p95, milliseconds, series.time),
    chart("Share of alerts", series.alert_share, (value) => percent(value, 0), series.time)));
}

function tiles(recent, journal, facts) {
  const tested = facts?.evaluation;
  const minutes = Math.max(Math.round(recent.seconds / 60), 1);
  const entries = [
    ["Requests", count(recent.requests), `${recent.per_second.toFixed(1)} per second`],
    ["Errors of the service", count(recent.server_errors), `${count(recent.client_errors)} invalid or refused requests`, recent.server_errors > 0],
    ["Half of the requests within", milliseconds(recent.p50), `95 %: ${milliseconds(recent.p95)}, 99 %: ${milliseconds(recent.p99)}`],
    ["Predictions", count(recent.predictions), "recorded ones, without probes"],
    ["Share of alerts", percent(recent.alert_share), tested ? `${percent(tested.threshold.alert_share)} in the test period` : ""],
    ["Mean probability", percent(recent.mean_probability), tested ? `positive in the test period: ${percent(tested.rate.test)}` : ""],
    ["Inputs", `${count(recent.unseen)} unknown`, `category values; ${recent.missing === null ? "–" : recent.missing.toFixed(1)} missing features a prediction`],
    ["Journal", journal.state, written(journal), journal.state === "down"],
  ];
  return make("div", {}, make("p", { class: "quiet" }, `The last ${minutes === 1 ? "minute" : `${minutes} minutes`}. Drift over days and weeks is measured by the drift monitor and shown in Grafana.`),
    make("dl", { class: "tiles" }, entries.map(([name, value, more, bad]) => make("div", { class: "tile" },
      make("dt", {}, name), make("dd", { class: bad ? "bad" : null }, value), make("dd", { class: "quiet" }, more)))));
}

function written({ state, waiting, dropped }) {
  if (state === "off") return "predictions are not recorded";
  return `${count(waiting)} waiting${state === "down" ? `, ${count(dropped)} dropped` : ""}`;
}

function chart(name, values, text, times) {
  const known = values.filter((value) => value !== null);
  const label = known.length ? `at most ${text(Math.max(...known))}` : "nothing yet";
  const minutes = times.length ? Math.round((times.at(-1) - times[0]) / 60) : 0;
  return make("figure", {}, make("figcaption", {}, name, make("span", { class: "quiet small" }, ` ${label}`)),
    trend(values, `${name} over ${minutes} minutes, ${label}`), make("p", { class: "quiet small" }, `last ${Math.max(minutes, 1)} min`));
}
