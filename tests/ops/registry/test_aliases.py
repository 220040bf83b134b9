"""Moves of Production: an outdated one, two at the same moment, interrupted ones, and one made by hand."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from mlflow import MlflowClient

from app.errors import ModelUnavailable
from ops.registry import aliases, commands, history
from ops.registry.aliases import PRODUCTION, Move, PointerMoved
from stages.evaluation.floors import Bound, Decision
from tests.support.promotion import NAME, Bench, assert_settled, decisions, pointers

ACCEPTED = Decision((Bound.at_least("a check", 1, 1),))


def promote(bench: Bench, name: str) -> str:
    """Promote a version of the bench by the gate."""
    return commands.promote(bench.client, bench.params, bench.versions[name])


def test_outdated_promotion_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A promotion whose champion is not Production any more changes nothing."""
    promote(bench, "weak")
    move = aliases.move

    def late(*arguments: Any) -> None:
        monkeypatch.setattr(aliases, "move", move)
        promote(bench, "better")
        move(*arguments)

    monkeypatch.setattr(aliases, "move", late)
    with pytest.raises(PointerMoved, match="while version .* was judged; nothing was changed. Run the command again"):
        promote(bench, "good")
    assert pointers(bench.client) == (bench.versions["better"], bench.versions["weak"])
    assert {run.data.tags["decision"] for run in decisions(bench.client)} == {"accepted", "outdated"}
    assert_settled(bench.client)


def test_two_moves_at_the_same_moment(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one wins, and both are in the history, in their order."""
    promote(bench, "weak")
    client, v = bench.client, bench.versions
    both, original = Barrier(2), MlflowClient.set_registered_model_alias

    def together(*arguments: Any) -> None:
        both.wait(60)  # both have compared Production with their champion
        original(*arguments)

    moves = []
    for name in ("good", "better"):
        run_id = commands.record_decision(
            "promote", client.get_model_version(NAME, v[name]), None, ACCEPTED, bench.params
        )
        moves.append(Move("promote", v[name], v["weak"], run_id, "at the same moment"))
    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", together)
    with ThreadPoolExecutor(2) as pool:
        errors = [done.exception() for done in [pool.submit(aliases.move, client, NAME, move) for move in moves]]
    assert all(error is None or isinstance(error, PointerMoved) for error in errors) and None in errors, errors
    assert {move["to"] for move in aliases.moves(client, NAME)} == {v["weak"], v["good"], v["better"]}
    assert_settled(client)


class Interrupted(Exception):
    """The process ends here."""


@pytest.mark.parametrize("moved", [False, True], ids=["before the alias", "after the alias"])
def test_interrupted_promotion(moved: bool, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The history never says what did not happen, and the same command completes the promotion."""
    promote(bench, "weak")

    def stop(*_: Any) -> None:
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(*((aliases, "_record") if moved else (MlflowClient, "set_registered_model_alias")), stop)
        with pytest.raises(Interrupted):
            promote(bench, "good")
    assert pointers(bench.client)[0] == bench.versions["good" if moved else "weak"]
    assert [move["to"] for move in aliases.moves(bench.client, NAME)] == [bench.versions["weak"]]
    assert ("Production already" if moved else "is Production, accepted") in promote(bench, "good")
    assert pointers(bench.client) == (bench.versions["good"], bench.versions["weak"])
    assert_settled(bench.client)


def test_alias_moved_by_hand_is_named(bench: Bench) -> None:
    promote(bench, "weak")
    bench.client.set_registered_model_alias(NAME, PRODUCTION, bench.versions["better"])
    stated = f"Version {bench.versions['better']} of {NAME} is Production now, by no decision that is recorded here"
    assert stated in history.describe_history(bench.client, NAME)
    with pytest.raises(ModelUnavailable, match="no version was Production before .*`make history`"):
        commands.rollback(bench.client, bench.params, None, "a reason")
    commands.rollback(bench.client, bench.params, bench.versions["weak"], "a reason")
    assert pointers(bench.client) == (bench.versions["weak"], None)
