"""`on-time problem check`: silent about this problem, and a line for each thing that does not hold."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.batches import read
from app.interface import arrays_of_requests, compute, from_arrays
from ops.problem import problem_check
from ops.problem.problem_check import problems
from stages import interface, params
from stages.problem import Params
from stages.problem.rows import labelled_rows
from stages.problem.rules import RULES
from stages.problem_kit.columns import text
from stages.problem_kit.rules import Flags, Rule, Tables
from stages.tables import checks
from stages.tables.read import load_tables
from tests.conftest import ROOT

RAW_ROWS: Any = interface.raw_rows  # pylint: disable=invalid-name # the function itself, before a test replaces it


@pytest.fixture(scope="module")
def p() -> params.Params:
    """The parameters of the project."""
    return params.load(ROOT / "params.yaml")


@pytest.fixture(scope="module")
def raw() -> Tables:
    """The raw tables, with an eighth of the flights."""
    tables = load_tables(ROOT / "data")
    return tables | {"flights": tables["flights"][::8].reset_index(drop=True)}


@pytest.fixture(autouse=True)
def data(raw: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the checks read these tables."""
    monkeypatch.setattr(problem_check, "load_tables", lambda _: raw)


def test_this_problem_has_the_whole_interface(p: params.Params) -> None:
    assert problems(p) == []


def raising(*_: Any) -> Any:
    """Fail as a name that is not finished does."""
    raise ZeroDivisionError("half done")


@pytest.mark.parametrize(
    ("module", "name", "value", "message"),
    [
        (
            problem_check,
            "compute_one",
            lambda r, known: (compute(arrays_of_requests([r]), known)[0] + 1).tolist(),
            "compute_one",
        ),
        (read, "from_arrays", lambda t: from_arrays(t | {"origin": t["dest"]}), "from_arrays"),
        (problem_check, "compute", lambda *_: np.zeros((1, 1)), r"compute returns the shape \(1, 1\)"),
        (problem_check, "EXAMPLE", {"origin": "EWR"}, "EXAMPLE is not a valid Request"),
        (interface, "EDGE_CASES", [{"origin": "XXX"}], "the edge case .*XXX.* is not a valid Request"),
        (interface, "outcomes", lambda frame, _: [{"delay_minutes": 0}] * len(frame), "differs from the target"),
        (interface, "days", lambda *_: [1], "days: flights has .* rows and not as many days"),
        (interface, "scenarios", raising, "raises ZeroDivisionError: half done"),
        (
            interface,
            "labelled_rows",
            lambda t, p: replace(labelled_rows(t, p), key=labelled_rows(t, p).key // 2**60),
            "rows have only 16 keys",
        ),
        (interface, "raw_rows", lambda r, o, t: RAW_ROWS(r, o[::-1], t), "raw_rows: .* other days or targets"),
        (interface, "CARD", {"limits": "none"}, "CARD has other keys"),
    ],
)
def test_what_does_not_hold_is_named(
    p: params.Params, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, value: Any, message: str
) -> None:
    monkeypatch.setattr(module, name, value)
    for slow in ("check_tables", "_by_month"):  # not what is broken here
        monkeypatch.setattr(problem_check, slow, lambda *_: [])
    assert any(re.search(message, line) for line in problems(p))


def test_what_differs_by_month_is_named(p: params.Params, monkeypatch: pytest.MonkeyPatch) -> None:
    def own_planes(tables: Tables, _: Params) -> Flags:
        return tables["flights"].groupby("tailnum").size() < 6

    planted = Rule("flights.own_planes", "error", "A plane has 50 flights.", own_planes)
    known = [replace(rule, reach=0) for rule in RULES if rule.table == "weather" and not rule.across]
    monkeypatch.setattr(checks, "RULES", [*known, planted])
    monkeypatch.setattr(interface, "reach_days", lambda _: 0)
    monkeypatch.setitem(interface.TABLES["flights"], "tailnum", text(unique=True))
    for other in ("_serving", "_training"):
        monkeypatch.setattr(problem_check, other, lambda _: [])
    found = problems(p)
    expected = [
        "TABLES: flights.tailnum is unique",
        "rule flights.tailnum: by month",
        *(f"rule weather.{name}: by month" for name in ("temp_jump", "temp_spike", "dewp_spike")),
        "rule flights.own_planes: by month",
        "reach_days: .*2013-02",
    ]
    assert all(re.match(start, line) for start, line in zip(expected, found, strict=True)), found
