"""`on-time problem check`: silent about this problem, and a line for each thing that does not hold."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.columns import batches
from app.interface import columns, compute, from_arrays
from stages import interface, params, problem_check
from stages.problem.table import rows
from stages.problem_check import problems
from tests.conftest import ROOT

RAW_ROWS: Any = interface.raw_rows


@pytest.fixture(scope="module")
def p() -> params.Params:
    """The parameters of the project."""
    return params.load(ROOT / "params.yaml")


def test_this_problem_has_the_whole_interface(p: params.Params) -> None:
    assert problems(p) == []


def raising(*_: Any) -> Any:
    """Fail as a name that is not finished does."""
    raise ZeroDivisionError("half done")


@pytest.mark.parametrize(
    ("module", "name", "value", "message"),
    [
        (problem_check, "compute_one", lambda r, known: (compute(columns([r]), known)[0] + 1).tolist(), "compute_one"),
        (batches, "from_arrays", lambda t: from_arrays(t | {"origin": t["dest"]}), "from_arrays"),
        (problem_check, "compute", lambda *_: np.zeros((1, 1)), r"compute returns the shape \(1, 1\)"),
        (problem_check, "EXAMPLE", {"origin": "EWR"}, "EXAMPLE is no valid Request"),
        (interface, "EDGE_CASES", [{"origin": "XXX"}], "the edge case .*XXX.* is no valid Request"),
        (interface, "outcomes", lambda frame, _: [{"delay_minutes": 0}] * len(frame), "differs from the target"),
        (interface, "days", lambda *_: [1], "days: flights has .* rows and not as many days"),
        (interface, "scenarios", raising, "raises ZeroDivisionError: half done"),
        (interface, "rows", lambda t, p: replace(rows(t, p), key=rows(t, p).key // 2**60), "rows have only 16 keys"),
        (interface, "raw_rows", lambda r, o, t: RAW_ROWS(r, o[::-1], t), "raw_rows: .* other days or targets"),
        (interface, "CARD", {"limits": "none"}, "CARD has other keys"),
    ],
)
def test_what_does_not_hold_is_named(
    p: params.Params, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, value: Any, message: str
) -> None:
    monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(problem_check, "check_rules", lambda *_: None)  # slow, and not what is broken here
    assert any(re.search(message, line) for line in problems(p))
