"""Promotion, rollback and history, on SQLite and on a real MLflow server, and what the gate refuses."""

from __future__ import annotations

import getpass
import json
import shutil
import time
from pathlib import Path

import click
import pytest

from app.errors import ModelUnavailable
from app.model import bundles
from app.registry import download
from app.registry.cache import Cache
from app.settings import Settings
from ops.registry import commands, history
from ops.registry.aliases import PRODUCTION
from ops.registry.commands import PromotionRefused
from stages.base.paths import write_json
from stages.tracking import mlflow_runs
from tests.support.promotion import (
    NAME,
    Bench,
    assert_settled,
    decision_of,
    decisions,
    fill,
    pointers,
    record_of,
)


def cached() -> str:
    """Return the version that a service started in this folder serves at once."""
    cache = Cache(Settings())
    known = cache.pointer()
    assert known and cache.load(known, "cache")
    return known.version


def whole_life(bench: Bench) -> None:
    """Promote, promote, refuse, roll back twice: aliases, evidence and history at each step."""
    client, p, v = bench.client, bench.params, bench.versions
    assert "no champion" in commands.promote(client, p, v["weak"])
    assert pointers(client) == (v["weak"], None)
    assert "is Production" in commands.promote(client, p, v["good"])
    assert pointers(client) == (v["good"], v["weak"])
    run = decisions(client)[0]
    assert {"decision.json", "decision.md"} <= {f.path for f in client.list_artifacts(run.info.run_id)}
    checks = {(check["name"], check["rule"]): check for check in decision_of(client, run.info.run_id)["checks"]}
    assert checks["roc_auc", "not worse"]["now"] > checks["roc_auc", "not worse"]["base"]
    for name in ("weak", "good"):
        version = client.get_model_version(NAME, v[name])
        assert version.tags["decision.run"] == run.info.run_id and run.info.run_id in version.description
    with pytest.raises(PromotionRefused, match="not worse"):
        commands.promote(client, p, v["weak"])
    assert decisions(client)[0].data.tags["decision"] == "refused" and pointers(client)[0] == v["good"]
    assert "Production already" in commands.promote(client, p, v["good"])
    commands.promote(client, p, v["better"])
    assert cached() == v["better"]
    known = download.registered(client.get_model_version_by_alias(NAME, PRODUCTION), PRODUCTION)
    record = known.production
    assert record and (record.action, record.by) == ("promote", getpass.getuser()) and "roc_auc" in record.why
    assert record.run_id == decisions(client)[0].info.run_id and abs(record.since - time.time()) < 600
    assert "again" in commands.rollback(client, p, None, "late alerts")
    assert pointers(client) == (v["good"], v["weak"]) and cached() == v["good"]
    assert (record_of(client).action, record_of(client).why) == ("rollback", "late alerts")
    commands.rollback(client, p, None, "still late")
    assert pointers(client) == (v["weak"], None)
    text = history.describe_history(client, NAME).splitlines()[1:]
    assert [line.split()[0] for line in text] == [v[n] for n in ("weak", "good", "better", "good", "weak")]
    assert "late alerts" in text[3] and "roc_auc" in text[1] and text[-1].count("UTC") == 1


def test_life_of_a_registry_on_sqlite(bench: Bench) -> None:
    whole_life(bench)


@pytest.mark.long
def test_life_of_a_registry_on_a_server(served: Bench) -> None:
    """Then two processes promote at the same time: one of their versions is Production, and the history is true."""
    whole_life(served)
    with served.promotion(served.versions["good"]) as one, served.promotion(served.versions["better"]) as other:
        codes = {process.wait(600) for process in (one, other)}
    assert 0 in codes and codes <= {0, 1, 3}, one.output() + other.output()
    assert_settled(served.client)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("shuffled", "roc_auc is"), ("broken slice", "carrier=UA log_loss (not worse)"), ("equal", "better than the")],
)
def test_worse_model_is_refused(bench: Bench, name: str, reason: str) -> None:
    champion = "weak" if name == "equal" else "good"
    commands.promote(bench.client, bench.params, bench.versions[champion])
    with pytest.raises(PromotionRefused) as refusal:
        commands.promote(bench.client, bench.params, bench.versions[name])
    assert reason in str(refusal.value) and pointers(bench.client) == (bench.versions[champion], None)


def test_tie_is_promoted_if_allowed(bench: Bench) -> None:
    commands.promote(bench.client, bench.params, bench.versions["weak"])
    commands.promote(bench.client, bench.params, bench.versions["equal"], allow_equal=True)
    assert_settled(bench.client)


@pytest.mark.parametrize("action", ["promote", "rollback"])
def test_damaged_version_is_refused(bench: Bench, action: str) -> None:
    client, p, v = bench.client, bench.params, bench.versions
    commands.promote(client, p, v["weak"])
    if action == "rollback":
        commands.promote(client, p, v["good"])
    before = pointers(client)
    victim = v["weak"] if action == "rollback" else v["good"]
    client.set_model_version_tag(NAME, victim, mlflow_runs.DIGEST_TAG, "0" * 64)
    with pytest.raises(PromotionRefused, match="not match the registry"):
        if action == "rollback":
            commands.rollback(client, p, None, "a reason")
        else:
            commands.promote(client, p, victim)
    assert pointers(client) == before and decisions(client)[0].data.tags["decision"] == "refused"


def test_rollback_needs_reason_and_promoted_version(bench: Bench) -> None:
    client, p, v = bench.client, bench.params, bench.versions
    commands.promote(client, p, v["good"])
    with pytest.raises(click.UsageError, match="REASON"):
        commands.rollback(client, p, v["weak"], " ")
    with pytest.raises(PromotionRefused, match="promoted before"):
        commands.rollback(client, p, v["weak"], "around the gate")
    assert pointers(client) == (v["good"], None)


def test_require_names_the_command(bench: Bench) -> None:
    with pytest.raises(ModelUnavailable, match="`make promote` makes version"):
        commands.require(bench.client, bench.params)
    bench.client.delete_registered_model(NAME)
    with pytest.raises(ModelUnavailable, match="`make repro` makes a model"):
        commands.require(bench.client, bench.params)


def test_comparison_without_complete_runs(bench: Bench) -> None:
    assert "no complete" in history.compare_runs(history.pipeline_runs(bench.client, [], 5))
    with pytest.raises(ModelUnavailable, match="no complete pipeline run made version 1"):
        history.pipeline_runs(bench.client, ["1"], 5)


@pytest.fixture(name="late")
def trained_into_the_test(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> tuple[str, str]:
    """Register `better` with another last day of training; return its version and why it is refused."""
    shutil.copytree(bench.path / "bundles/better", tmp_path / "bundles/late")
    manifest = tmp_path / "bundles/late" / bundles.MANIFEST_FILE
    facts = json.loads(manifest.read_bytes())
    last, why = request.param
    facts["rows"]["train"] = last
    write_json(manifest, facts)
    monkeypatch.chdir(bench.path)
    version = fill(tmp_path, ["late"])["late"]
    return version, f"training of version {version} to the test rows is {why}"


@pytest.mark.parametrize(
    "late",
    [
        ({"last": "2013-11-05"}, "-4, .*trained until 2013-11-05.*on-time data add"),
        ({}, "nan, .*its manifest does not name its last day of training.*--without-champion"),
    ],
    ids=["late", "unknown"],
    indirect=True,
)
def test_version_trained_on_test_rows_is_refused(bench: Bench, late: tuple[str, str]) -> None:
    """Whether it is the challenger or the champion, and also if nobody knows until when it was trained."""
    client, p, (version, why) = bench.client, bench.params, late
    with pytest.raises(PromotionRefused, match=why):
        commands.promote(client, p, version)
    assert pointers(client)[0] is None
    client.set_registered_model_alias(NAME, PRODUCTION, version)
    with pytest.raises(PromotionRefused, match=why):
        commands.promote(client, p, bench.versions["good"])


def test_test_rows_that_decided_too_often_are_refused(bench: Bench) -> None:
    client, v = bench.client, bench.versions
    promotion = bench.params.gate.promotion.model_copy(update={"max_decisions": 2})
    p = bench.params.model_copy(update={"gate": bench.params.gate.model_copy(update={"promotion": promotion})})
    commands.promote(client, p, v["weak"])
    commands.promote(client, p, v["good"])
    with pytest.raises(
        PromotionRefused, match="decided on these test rows before is 2, must be ≤ 1: .*on-time data add"
    ):
        commands.promote(client, p, v["better"])
    assert "rows, 2013-11-01 to" in decisions(client)[0].data.tags["rows"]
