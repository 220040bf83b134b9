"""The Production pointer: two promotions at once, an interrupted one, and one paused for longer than its lock."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from app.registry.version import PRODUCTION_TAG
from ops.registry import commands as registry
from ops.registry import production as pointer
from ops.registry.production import Intent, PointerMoved
from tests.conftest import ROOT
from tests.support.processes import wait_for
from tests.support.promotion import NAME, Bench, aliases, assert_settled, decisions, record_of, two_at_once


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


@pytest.mark.parametrize(
    "step", ["set_model_version_tag", "set_registered_model_alias", "set_tag", "delete_registered_model_tag"]
)
def test_an_interrupted_promotion_is_completed_by_the_next_call(
    bench: Bench, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, p, v = bench.client, bench.params, bench.versions
    registry.promote(client, p, v["weak"])
    original: Callable[..., Any] = getattr(MlflowClient, step)

    def stop(self: MlflowClient, *arguments: Any, **options: Any) -> Any:
        key = arguments[{"set_tag": 1, "set_model_version_tag": 2}.get(step, 0)]  # other tags are not of the move
        if step.endswith("_tag") and not step.startswith("delete") and not key.startswith(("moved.", PRODUCTION_TAG)):
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

target, name = {"lock": (production, "_next"), "intent": (production, "_apply"), "record": (production, "_set_record"),
                "alias": (MlflowClient, "set_registered_model_alias")}[sys.argv[1]]
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
@pytest.mark.parametrize(("where", "first"), [("lock", ""), ("intent", "good"), ("record", "good"), ("alias", "good")])
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


@pytest.mark.long
def test_a_record_that_was_written_late_is_set_back_if_its_version_is_production_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, p, v = bench.client, bench.params, bench.versions
    registry.promote(client, p, v["weak"])
    original = pointer._set_record  # pylint: disable=protected-access # where the process is paused

    def pause(*arguments: Any) -> None:
        monkeypatch.setattr(pointer, "_set_record", original)
        monkeypatch.setattr(pointer, "LEASE_SECONDS", 0.2)
        registry.promote(client, p, v["better"])
        registry.rollback(client, p, None, "late alerts")
        original(*arguments)
        assert record_of(client).action == "promote"

    monkeypatch.setattr(pointer, "_set_record", pause)
    registry.promote(client, p, v["good"])
    assert [move["to"] for move in pointer.moves(client, NAME)] == [v[n] for n in ("weak", "good", "better", "good")]
    assert record_of(client).why == "late alerts" and aliases(client) == (v["good"], v["weak"])


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
