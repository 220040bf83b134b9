"""The real service: uvicorn in a process of its own, on the model of the small pipeline."""

from __future__ import annotations

import json
from datetime import date

import httpx
import numpy as np
import pandas as pd
import pytest

from app.interface import EXAMPLE, Lookups
from ops.monitoring.replay import ReplayFailed, days
from stages import interface, params
from stages.base.paths import PREDICTIONS_FILE
from stages.features import feature_files
from stages.features.feature_files import LOOKUPS_FILE, TARGET
from stages.tables import partitions
from tests.conftest import Clone


@pytest.fixture(scope="module")
def api(small_service: str) -> httpx.Client:
    """A client of the service."""
    return httpx.Client(base_url=small_service, timeout=30)


def test_responses_are_the_predictions_of_evaluate(
    api: httpx.Client, small: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small.path)
    p = params.load()
    raw = partitions.written(p.problem).whole()
    rows = interface.labelled_rows(raw, p.problem)
    test = rows.where(rows.within(p.test_period))
    known = Lookups.from_json(json.loads(LOOKUPS_FILE.read_text()))
    evaluated = pd.read_parquet(PREDICTIONS_FILE)["probability"].to_numpy()
    chosen = np.sort(np.random.default_rng(0).choice(len(evaluated), 1000, replace=False))
    requests = interface.requests(interface.arrays_of_rows(test.frame.iloc[chosen], raw, known, p.problem))
    batch = api.post("/predict/batch", json={"flights": requests}).raise_for_status().json()["predictions"]
    apart = np.abs(np.array([answer["probability"] for answer in batch]) - evaluated[chosen])
    assert apart.max() <= 1e-9
    single = api.post("/predict", json=requests[17]).raise_for_status().json()
    assert single["probability"] == batch[17]["probability"]


def test_the_examples_of_the_schema_are_answered(api: httpx.Client) -> None:
    spec = api.get("/openapi.json").json()
    schemas = spec["components"]["schemas"]
    for path, name in (("/predict", "Flight"), ("/predict/batch", "Batch")):
        for example in schemas[name]["examples"]:
            assert api.post(path, json=example).status_code == 200
    assert "HTTPValidationError" not in json.dumps(spec)
    responses = spec["paths"]["/predict"]["post"]["responses"]
    assert set(responses) == {"200", "400", "401", "413", "415", "422", "500", "503", "504"}


def test_health_version_and_metrics_agree(api: httpx.Client) -> None:
    assert api.get("/livez").json() == {"status": "live"}
    ready, version = api.get("/readyz").json(), api.get("/version").json()
    assert ready == {"status": "ready", "model": version["model"]}
    assert version["model"] == api.post("/predict", json=EXAMPLE).json()["model"]
    assert len(version["bundle_digest"]) == 64 and version["alias"] == "production"
    metrics = api.get("/metrics").text
    assert 'model_info{alias="production",name="flight-delay"' in metrics
    assert 'model_predictions_total{model_version="1",outcome="alert"}' in metrics
    assert 'model_inference_seconds_bucket{le="0.001",model_version="1"}' in metrics


def test_the_replay_has_the_days_that_were_featurized(small: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small.path)
    made = days(date(2013, 3, 11), date(2013, 3, 13))
    test = feature_files.read("test")
    first = test["day"].min() + 10  # 11 March
    assert [d.day.isoformat() for d in made] == ["2013-03-11", "2013-03-12", "2013-03-13"]
    for i, one in enumerate(made):
        rows = test[test["day"] == first + i]
        late = sum(known.get("delay_minutes", 9999) >= 15 for known in one.outcomes)
        assert (len(one.requests), late) == (len(rows), rows[TARGET].sum())
    with pytest.raises(ReplayFailed, match="no flights from 2014-03-11 to 2014-03-13: .* --first and --last"):
        days(date(2014, 3, 11), date(2014, 3, 13))
