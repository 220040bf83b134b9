"""The self-test of the promotion gate on the real model: each control is refused by its check, and losses are found."""

from __future__ import annotations

import pytest

from ops.studies import controls, gate
from stages import params
from tests.conftest import Clone

pytestmark = pytest.mark.long

EVERY = 8  # of the training rows


@pytest.fixture
def p(pipeline: Clone, monkeypatch: pytest.MonkeyPatch) -> params.Params:
    """The parameters of the real pipeline, in whose folder the test runs, with fewer resamples."""
    monkeypatch.chdir(pipeline.path)
    read = params.load()
    promotion = read.gate.promotion.model_copy(update={"bootstrap": 200, "latency_calls": 100})
    return read.model_copy(update={"gate": read.gate.model_copy(update={"promotion": promotion})})


def test_every_control_is_refused_by_its_check(p: params.Params) -> None:
    rows = controls.promote_all(p, EVERY).splitlines()[2:]
    assert len(rows) == len(controls.CONTROLS)
    assert [row.split("|")[2].strip() for row in rows] == ["refused"] * (len(rows) - 1) + ["accepted"]


def test_worsened_model_is_refused_at_some_step(p: params.Params) -> None:
    text = gate.measure_power(p, 1)
    assert text.count("is refused 80 % of the time") == 2 and "inf" not in text
