"""The real service: uvicorn in a process of its own, on the model of the small pipeline."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from app.interface import EXAMPLE, Lookups
from stages import interface, params, partitions
from stages.files import PREDICTIONS_FILE
from stages.frames import LOOKUPS_FILE
from tests.conftest import Clone

PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def api(small_service: str) -> httpx.Client:
    """A client of the service."""
    return httpx.Client(base_url=small_service, timeout=30)


def test_answers_of_the_service_are_the_predictions_of_evaluate(
    api: httpx.Client, small: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small.path)
    p = params.load()
    raw = partitions.written(p.problem).whole()
    rows = interface.rows(raw, p.problem)
    test = rows.where(rows.within(p.test_period))
    known = Lookups.from_json(json.loads(LOOKUPS_FILE.read_text()))
    evaluated = pd.read_parquet(PREDICTIONS_FILE)["probability"].to_numpy()
    chosen = np.sort(np.random.default_rng(0).choice(len(evaluated), 1000, replace=False))
    requests = interface.requests(interface.columns(test.frame.iloc[chosen], raw, known, p.problem))
    batch = api.post("/predict/batch", json={"flights": requests}).raise_for_status().json()["predictions"]
    apart = np.abs(np.array([answer["probability"] for answer in batch]) - evaluated[chosen])
    assert apart.max() <= 1e-9
    single = api.post("/predict", json=requests[17]).raise_for_status().json()
    assert single["probability"] == batch[17]["probability"]


def test_a_prediction_says_which_model_gave_it(api: httpx.Client) -> None:
    answer = api.post("/predict", json=EXAMPLE)
    body = answer.json()
    assert answer.status_code == 200
    assert set(body) == {"prediction_id", "probability", "alert", "threshold", "model"}
    assert body["model"] == {"name": "flight-delay", "version": "1"}
    assert answer.headers["X-Model-Version"] == "1"
    assert body["alert"] == (body["probability"] >= body["threshold"])


def test_every_example_of_the_schema_is_answered(api: httpx.Client) -> None:
    schemas = api.get("/openapi.json").json()["components"]["schemas"]
    for path, name in (("/predict", "Flight"), ("/predict/batch", "Batch")):
        for example in schemas[name]["examples"]:
            assert api.post(path, json=example).status_code == 200


def test_health_and_version_agree(api: httpx.Client) -> None:
    assert api.get("/livez").json() == {"status": "live"}
    ready, version = api.get("/readyz").json(), api.get("/version").json()
    assert ready == {"status": "ready", "model": version["model"]}
    assert len(version["bundle_digest"]) == 64 and version["alias"] == "production"


def changed(**changes: Any) -> dict[str, Any]:
    """Return the example flight with changes; None leaves a field out."""
    return {key: value for key, value in (EXAMPLE | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (changed(carrier=None), "carrier"),
        (changed(carrier="ual"), "carrier"),
        (changed(origin="BOS"), "origin"),
        (changed(dest="San Francisco"), "dest"),
        (changed(scheduled_departure="tomorrow"), "scheduled_departure"),
        (changed(dep_delay=5), "dep_delay"),
        (changed(weather=[]), "weather"),
        (changed(weather=[{}] * 8), "weather"),
        (changed(weather=[{"humidity_pct": 101}]), "weather.0.humidity_pct"),
        (changed(weather=[{"snow": 1}]), "weather.0.snow"),
    ],
)
def test_a_bad_field_is_named_in_a_problem(api: httpx.Client, body: dict[str, Any], field: str) -> None:
    answer = api.post("/predict", json=body)
    assert answer.status_code == 422 and answer.headers["Content-Type"] == PROBLEM
    assert field in [error["field"] for error in answer.json()["errors"]]
    assert answer.json()["status"] == 422


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheduled_departure": "2013-07-01T18:15:00Z"}, "should not have timezone"),
        ({"scheduled_arrival": "2013-07-04T18:15:00"}, "within 24 hours"),
    ],
)
def test_times_that_do_not_fit_are_explained(api: httpx.Client, changes: dict[str, str], message: str) -> None:
    answer = api.post("/predict", json=EXAMPLE | changes)
    assert answer.status_code == 422 and message in answer.json()["detail"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_is_no_number_is_refused(api: httpx.Client, number: str) -> None:
    body = json.dumps(EXAMPLE).replace("75.9", number)
    answer = api.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422 and "temperature_f" in answer.text


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[]", b"\xff\xfe", b'{"carrier": "UA"'])
def test_a_body_that_is_no_request_is_a_problem(api: httpx.Client, content: bytes) -> None:
    answer = api.post("/predict", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422) and answer.headers["Content-Type"] == PROBLEM
    assert "Traceback" not in answer.text and "site-packages" not in answer.text


@pytest.mark.parametrize("count", [0, 10_001])
def test_a_batch_has_1_to_10_000_flights(api: httpx.Client, count: int) -> None:
    answer = api.post("/predict/batch", json={"flights": [EXAMPLE] * count})
    assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "flights"


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", "/predict", 405)])
def test_other_errors_are_problems_too(api: httpx.Client, method: str, path: str, status: int) -> None:
    answer = api.request(method, path)
    assert answer.status_code == status and answer.headers["Content-Type"] == PROBLEM


def test_an_unknown_carrier_is_answered(api: httpx.Client) -> None:
    assert api.post("/predict", json=changed(carrier="ZZ", dest="ZZZ")).status_code == 200


def test_metrics_count_requests_and_predictions_by_version(api: httpx.Client) -> None:
    api.post("/predict", json=EXAMPLE)
    text = api.get("/metrics").text
    assert 'model_info{alias="production",name="flight-delay"' in text
    assert 'model_predictions_total{model_version="1",outcome="alert"}' in text
    assert 'model_inference_seconds_bucket{le="0.001",model_version="1"}' in text
    assert 'http_requests_total{handler="/predict",method="POST",status="2xx"}' in text


def test_openapi_describes_the_errors_that_are_sent(api: httpx.Client) -> None:
    spec = api.get("/openapi.json").json()
    assert "HTTPValidationError" not in json.dumps(spec)
    answers = spec["paths"]["/predict"]["post"]["responses"]
    assert set(answers) == {"200", "400", "401", "413", "415", "422", "500", "503", "504"}
    assert answers["422"]["content"][PROBLEM]["schema"]["$ref"].endswith("/Problem")
