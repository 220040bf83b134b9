"""Promotion, rollback and history, on SQLite and on a real MLflow server; two at once; interrupted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from mlflow import MlflowClient
from sklearn.metrics import roc_auc_score

from app.errors import ModelUnavailable
from app.model import bundle as model
from ops.gate.evidence import compare, latencies, resampled
from ops.registry import commands as registry
from ops.registry import history
from ops.registry import production as pointer
from ops.registry.commands import PromotionRefused
from ops.registry.production import PREVIOUS, PRODUCTION, Intent, PointerMoved, by_alias
from stages import metrics, params, tracking
from stages.files import write_json
from stages.metrics import MetricSettings, Scored
from tests.conftest import ROOT
from tests.support.processes import wait_for
from tests.support.promotion import Bench, decision_of, fill

NAME = "flight-delay"
POLICY = params.load(ROOT / "params.yaml").gate.promotion


def aliases(client: MlflowClient) -> tuple[str | None, str | None]:
    """Return the versions that are Production and previous."""
    found = [by_alias(client, NAME, alias) for alias in (PRODUCTION, PREVIOUS)]
    return (str(found[0].version) if found[0] else None, str(found[1].version) if found[1] else None)


def decisions(client: MlflowClient) -> list[Any]:
    """Return the decision runs, newest first."""
    return tracking.find_runs(client, {tracking.STAGE_TAG: "decision"})


def assert_settled(client: MlflowClient) -> None:
    """Assert that aliases, history and registry tell one story, and nothing is under way."""
    last = pointer.moves(client, NAME)[-1]
    assert aliases(client) == (last["to"], last["from"] or None)
    assert pointer.INTENT_TAG not in client.get_registered_model(NAME).tags
    assert [found.name for found in client.search_registered_models()] == [NAME]


def whole_life(bench: Bench) -> None:
    """Promote, promote, refuse, roll back twice: aliases, evidence and history at each step."""
    client, p, v = bench.client, bench.params, bench.versions
    assert "no champion" in registry.promote(client, p, v["weak"])
    assert aliases(client) == (v["weak"], None)
    assert "is Production" in registry.promote(client, p, v["good"])
    assert aliases(client) == (v["good"], v["weak"])
    run = decisions(client)[0]
    assert {"bootstrap.png", "decision.json", "decision.md"} <= {f.path for f in client.list_artifacts(run.info.run_id)}
    checks = {(check["name"], check["rule"]): check for check in decision_of(client, run.info.run_id)["checks"]}
    assert checks["roc_auc", "not worse"]["now"] > checks["roc_auc", "not worse"]["base"]
    for name in ("weak", "good"):
        version = client.get_model_version(NAME, v[name])
        assert version.tags["decision.run"] == run.info.run_id and run.info.run_id in version.description
    with pytest.raises(PromotionRefused, match="not worse"):
        registry.promote(client, p, v["weak"])
    assert decisions(client)[0].data.tags["decision"] == "refused" and aliases(client)[0] == v["good"]
    assert "Production already" in registry.promote(client, p, v["good"])
    registry.promote(client, p, v["better"])
    assert "again" in registry.rollback(client, p, None, "late alerts")
    assert aliases(client) == (v["good"], v["weak"])
    registry.rollback(client, p, None, "still late")
    assert aliases(client) == (v["weak"], None)
    text = history.text(client, NAME).splitlines()[1:]
    assert [line.split()[0] for line in text] == [v[n] for n in ("weak", "good", "better", "good", "weak")]
    assert "late alerts" in text[3] and "roc_auc" in text[1] and text[-1].count("UTC") == 1


def test_promotion_rollback_and_history_on_sqlite(bench: Bench) -> None:
    whole_life(bench)


@pytest.mark.long
def test_promotion_rollback_and_history_on_a_real_server_and_two_at_once(served: Bench) -> None:
    whole_life(served)
    two_at_once(served)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("shuffled", "roc_auc is"), ("broken slice", "carrier=UA log_loss (not worse)"), ("equal", "better than the")],
)
def test_a_worse_model_is_refused_by_name_and_production_stays(bench: Bench, name: str, reason: str) -> None:
    champion = "weak" if name == "equal" else "good"
    registry.promote(bench.client, bench.params, bench.versions[champion])
    with pytest.raises(PromotionRefused) as refusal:
        registry.promote(bench.client, bench.params, bench.versions[name])
    assert reason in str(refusal.value) and aliases(bench.client) == (bench.versions[champion], None)


def test_a_tie_is_promoted_when_that_is_allowed(bench: Bench) -> None:
    registry.promote(bench.client, bench.params, bench.versions["weak"])
    registry.promote(bench.client, bench.params, bench.versions["equal"], allow_equal=True)
    assert_settled(bench.client)


@pytest.mark.parametrize("action", ["promote", "rollback"])
def test_a_version_that_is_not_what_was_registered_does_not_become_production(bench: Bench, action: str) -> None:
    client, p, v = bench.client, bench.params, bench.versions
    registry.promote(client, p, v["weak"])
    if action == "rollback":
        registry.promote(client, p, v["good"])
    before = aliases(client)
    victim = v["weak"] if action == "rollback" else v["good"]
    client.set_model_version_tag(NAME, victim, tracking.DIGEST_TAG, "0" * 64)
    with pytest.raises(PromotionRefused, match="not match the registry"):
        if action == "rollback":
            registry.rollback(client, p, None, "a reason")
        else:
            registry.promote(client, p, victim)
    assert aliases(client) == before and decisions(client)[0].data.tags["decision"] == "refused"


def test_a_rollback_needs_a_reason_and_a_version_that_was_promoted(bench: Bench) -> None:
    client, p, v = bench.client, bench.params, bench.versions
    registry.promote(client, p, v["good"])
    with pytest.raises(click.UsageError, match="REASON"):
        registry.rollback(client, p, v["weak"], " ")
    with pytest.raises(PromotionRefused, match="promoted before"):
        registry.rollback(client, p, v["weak"], "around the gate")
    assert aliases(client) == (v["good"], None)


def two_at_once(bench: Bench) -> None:
    """Promote two versions over the first by two processes at the same time."""
    bench.client.set_registered_model_alias(NAME, PRODUCTION, bench.versions["weak"])
    versions = bench.versions
    with bench.promotion(versions["good"]) as one, bench.promotion(versions["better"]) as other:
        codes = sorted(process.wait(600) for process in (one, other))
        assert codes in ([0, 0], [0, 1], [0, 3]), one.output() + other.output()
    assert_settled(bench.client)


@pytest.mark.long
def test_two_promotions_at_once_end_in_one_state(bench: Bench) -> None:
    registry.promote(bench.client, bench.params, bench.versions["weak"])
    two_at_once(bench)


def test_production_that_moved_meanwhile_is_not_overwritten(bench: Bench) -> None:
    client, p, v = bench.client, bench.params, bench.versions
    registry.promote(client, p, v["weak"])
    run_id = decisions(client)[0].info.run_id
    with pytest.raises(PointerMoved, match="Run the command again"):
        pointer.move(client, NAME, Intent("promote", v["good"], v["better"], v["better"], run_id, "late", 1))
    assert_settled(client)


class Interrupted(Exception):
    """The process ends here."""


@pytest.mark.parametrize("step", ["set_registered_model_alias", "set_tag", "delete_registered_model_tag"])
def test_an_interrupted_promotion_is_completed_by_the_next_call(
    bench: Bench, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, p, v = bench.client, bench.params, bench.versions
    registry.promote(client, p, v["weak"])
    original: Callable[..., Any] = getattr(MlflowClient, step)

    def stop(self: MlflowClient, *arguments: Any, **options: Any) -> Any:
        if step == "set_tag" and not arguments[1].startswith("moved."):
            return original(self, *arguments, **options)
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, step, stop)
        with pytest.raises(Interrupted):
            registry.promote(client, p, v["good"])
    assert pointer.INTENT_TAG in client.get_registered_model(NAME).tags
    assert "completed" in str(pointer.settled(client, NAME))
    assert aliases(client) == (v["good"], v["weak"])
    assert_settled(client)


PAUSED = """
import os, signal, sys
from mlflow import MlflowClient
from ops.cli import main
from ops.registry import production

target, name, when = {"lock": (production, "_next", 1), "intent": (production, "_apply", 1),
                      "alias": (MlflowClient, "set_registered_model_alias", 1)}[sys.argv[1]]
original = getattr(target, name)

def pause(*arguments, **options):
    setattr(target, name, original)
    os.kill(os.getpid(), signal.SIGSTOP)
    return original(*arguments, **options)

setattr(target, name, pause)
sys.argv = ["on-time", *sys.argv[2:]]
main()
"""


def stopped(program: subprocess.Popen[str]) -> bool:
    """Return whether a process was stopped by a signal."""
    assert program.poll() is None, program.stderr and program.stderr.read()
    return Path(f"/proc/{program.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "T"


@pytest.mark.long
@pytest.mark.parametrize("store", ["bench", "served"])
@pytest.mark.parametrize(("where", "first"), [("lock", ""), ("intent", "good"), ("alias", "good")])
def test_a_promoter_that_was_paused_for_longer_than_its_lock_changes_nothing(
    store: str, where: str, first: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench: Bench = request.getfixturevalue(store)
    client, p, v = bench.client, bench.params, bench.versions
    registry.promote(client, p, v["weak"])
    command = [sys.executable, "-c", PAUSED, where, "model", "promote", "--version", v["good"]]
    env = os.environ | {"MLFLOW_TRACKING_URI": bench.uri, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=bench.path, env=env, stderr=subprocess.PIPE, text=True) as program:
        try:
            wait_for("the promoter is paused", lambda: stopped(program), 60)
            monkeypatch.setattr(pointer, "LEASE_SECONDS", 0.5)
            registry.promote(client, p, v["better"])
            program.send_signal(signal.SIGCONT)
            assert program.wait(60) != 0 and program.stderr
            assert "Production of flight-delay moved" in program.stderr.read()
        finally:
            program.kill()
    assert aliases(client) == (v["better"], v[first or "weak"])
    assert [move["to"] for move in pointer.moves(client, NAME)] == [
        v[name] for name in ("weak", first, "better") if name
    ]
    assert_settled(client)


def test_an_intent_to_a_version_that_is_gone_is_undone(bench: Bench) -> None:
    client, p, v = bench.client, bench.params, bench.versions
    registry.promote(client, p, v["weak"])
    intent = Intent("promote", "99", v["weak"], v["weak"], decisions(client)[0].info.run_id, "gone", 1)
    client.set_registered_model_tag(NAME, pointer.INTENT_TAG, json.dumps(asdict(intent)))
    assert "undone" in str(pointer.settled(client, NAME))
    assert_settled(client)


def test_the_lock_of_a_dead_process_is_broken_after_its_lease(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    client = bench.client
    client.create_registered_model(f"{NAME}-pointer-lock", tags={pointer.TOKEN_TAG: "dead"})
    monkeypatch.setattr(pointer, "LEASE_SECONDS", 0.2)
    assert pointer.settled(client, NAME) is None
    assert [found.name for found in client.search_registered_models()] == [NAME]


def test_the_same_predictions_have_no_advantage_and_a_slice_without_rows_is_left_out() -> None:
    rng = np.random.default_rng(0)
    scored = Scored(rng.integers(0, 2, 4000).astype(np.int8), rng.random(4000), np.repeat(np.arange(20), 200))
    slices = {"all": np.ones(4000, bool), "empty": np.zeros(4000, bool), "few": np.arange(4000) < 50}
    p = POLICY
    measured = resampled(scored, slices, p, MetricSettings(10, 0.1))
    whole, parts, _ = compare(measured, measured, p)
    assert {pair.bound for pair in whole.values()} == {0.0} and list(parts) == ["all"]


def test_the_bootstrap_of_a_slice_is_that_of_its_rows() -> None:
    rng = np.random.default_rng(0)
    day = np.repeat(np.arange(20), 200)
    ours, theirs = (Scored(rng.integers(0, 2, 4000).astype(np.int8), rng.random(4000), day) for _ in range(2))
    rows = rng.random(4000) < 0.5
    p = POLICY
    _, parts, replicates = compare(
        *(resampled(s, {"half": rows}, p, MetricSettings(10, 0.1)) for s in (ours, theirs)), p
    )
    drawn = metrics.resample_groups(day, p.bootstrap, p.seed)[3]
    weight = drawn[day[rows]]
    losses = [np.average(metrics.pointwise(s.where(rows))["log_loss"], weights=weight) for s in (ours, theirs)]
    areas = [roc_auc_score(s.target[rows], s.probability[rows], sample_weight=weight) for s in (ours, theirs)]
    assert replicates.slices["half"]["log_loss"][3] == pytest.approx(losses[1] - losses[0])
    assert replicates.slices["half"]["roc_auc"][3] == pytest.approx(areas[0] - areas[1])
    for metric, pair in parts["half"].items():
        gain = (pair.challenger - pair.champion) * (1 if metric == "roc_auc" else -1)
        spread = replicates.slices["half"][metric].std()
        assert pair.bound == pytest.approx(gain + 2.093 * spread, rel=0.01)  # 5 % in all, two checks, 20 days


def test_a_resample_that_has_drawn_one_outcome_only_does_not_count_in_a_slice() -> None:
    rng = np.random.default_rng(0)
    day = np.repeat(np.arange(4), 100)
    target = np.where(day == 0, rng.integers(0, 2, 400), 0).astype(np.int8)  # only day 0 has both outcomes
    rows = np.ones(400, bool)
    measured = resampled(Scored(target, rng.random(400), day), {"all": rows}, POLICY, MetricSettings(10, 0.1))
    with_day_0 = metrics.resample_groups(day, POLICY.bootstrap, POLICY.seed)[:, 0] > 0
    for values in measured.slices["all"].values():
        assert len(values) == 1 + with_day_0.sum() and np.isfinite(values).all()
    one_class = resampled(
        Scored(np.zeros(400, np.int8), rng.random(400), day), {"all": rows}, POLICY, MetricSettings(10, 0.1)
    )
    assert not one_class.slices


def test_a_slower_model_is_measured_as_slower(bundle: model.Bundle) -> None:
    quick, slow = latencies([bundle, replace(bundle)], 30)
    assert slow < 3 * quick
    quick, slow = latencies([bundle, _Slow(**vars(bundle))], 30)
    assert slow > 3 * quick


class _Slow(model.Bundle):
    """A model that takes its time."""

    def probabilities(self, requests: Any) -> Any:
        for _ in range(9):
            super().probabilities(requests)
        return super().probabilities(requests)


def test_without_production_the_command_that_makes_it_is_named(bench: Bench) -> None:
    with pytest.raises(ModelUnavailable, match="`make promote` makes version"):
        registry.require(bench.client, bench.params)
    bench.client.delete_registered_model(NAME)
    with pytest.raises(ModelUnavailable, match="`make repro` makes a model"):
        registry.require(bench.client, bench.params)


def test_a_comparison_without_complete_runs_says_so(bench: Bench) -> None:
    assert "no complete" in history.compare(history.pipeline_runs(bench.client, [], 5))
    with pytest.raises(ModelUnavailable, match="no complete pipeline run made version 1"):
        history.pipeline_runs(bench.client, ["1"], 5)


@pytest.fixture(name="late")
def trained_into_the_test(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Register `better` with a manifest by which it was trained on the first test days, and return its version."""
    shutil.copytree(bench.path / "bundles/better", tmp_path / "bundles/late")
    manifest = tmp_path / "bundles/late" / model.MANIFEST_FILE
    facts = json.loads(manifest.read_bytes())
    facts["rows"]["train"]["last"] = "2013-11-05"
    write_json(manifest, facts)
    monkeypatch.chdir(bench.path)
    return fill(tmp_path, ["late"])["late"]


def test_a_version_that_was_trained_on_test_rows_is_refused_on_either_side(bench: Bench, late: str) -> None:
    client, p = bench.client, bench.params
    why = rf"training of version {late} to the test rows is -4, .*trained until 2013-11-05.*on-time data add"
    with pytest.raises(PromotionRefused, match=why):
        registry.promote(client, p, late)
    assert aliases(client)[0] is None
    client.set_registered_model_alias(NAME, PRODUCTION, late)
    with pytest.raises(PromotionRefused, match=why):
        registry.promote(client, p, bench.versions["good"])


def test_test_rows_that_have_decided_too_often_are_refused(bench: Bench) -> None:
    client, v = bench.client, bench.versions
    promotion = bench.params.gate.promotion.model_copy(update={"max_decisions": 2})
    p = bench.params.model_copy(update={"gate": bench.params.gate.model_copy(update={"promotion": promotion})})
    registry.promote(client, p, v["weak"])
    registry.promote(client, p, v["good"])
    with pytest.raises(
        PromotionRefused, match="decided on these test rows before is 2, must be ≤ 1: .*on-time data add"
    ):
        registry.promote(client, p, v["better"])
    assert "rows, 2013-11-01 to" in decisions(client)[0].data.tags["rows"]
