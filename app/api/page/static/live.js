// The last minutes of the service, from its own counters. Prometheus and Grafana have the history.

import { byId, count, make, percent, send } from "./dom.js";

const SECONDS = 5;

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
  const { recent, journal } = body;
  if (!recent.seconds) return place.replaceChildren(make("p", { class: "card" }, "The service has just started; the first figures appear in a few seconds."));
  const tested = facts?.evaluation;
  const minutes = Math.max(Math.round(recent.seconds / 60), 1);
  const tiles = [
    ["Requests", count(recent.requests), `${recent.per_second.toFixed(1)} per second`],
    ["Errors of the service", count(recent.server_errors), `${count(recent.client_errors)} invalid or refused requests`, recent.server_errors > 0],
    ["Predictions", count(recent.predictions), "recorded ones, without probes"],
    ["Share of alerts", percent(recent.alert_share), tested ? `${percent(tested.threshold.alert_share)} in the test period` : ""],
    ["Mean probability", percent(recent.mean_probability), tested ? `positive in the test period: ${percent(tested.rate.test)}` : ""],
    ["Unknown categories", count(recent.unseen), recent.missing === null ? "values that training had not seen" : `and ${recent.missing.toFixed(1)} missing features per prediction`],
    ["Journal", journal.state, journal.state === "off" ? "predictions are not recorded" : `${count(journal.waiting)} waiting, ${count(journal.dropped)} dropped`, journal.state === "down"],
  ];
  place.replaceChildren(
    make("p", { class: "quiet" }, `The last ${minutes === 1 ? "minute" : `${minutes} minutes`}. Latency and history are in Prometheus and Grafana; the drift monitor compares days and weeks.`),
    make("dl", { class: "tiles" }, tiles.map(([name, value, more, bad]) => make("div", { class: "tile" },
      make("dt", {}, name), make("dd", { class: bad ? "bad" : null }, value), make("dd", { class: "quiet" }, more)))));
}
