"""Journals on both databases, and predictions for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from app.interface import EXAMPLE, FEATURE_NAMES, Request
from app.journal.writer import Journal
from app.metrics import Metrics
from app.model.bundle import Bundle
from app.model.prediction import Predictions, new_ids
from app.model.served import ServedModel
from tests.support.journal import Run, Running, keep


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/journal.db"
    return str(request.getfixturevalue("postgres").database())


@pytest.fixture
def metrics() -> Metrics:
    """The metrics of one application."""
    return Metrics()


@pytest.fixture
def journal(url: str, metrics: Metrics) -> Iterator[Journal]:
    """A journal that is not started."""
    made = keep(url, metrics)
    yield made
    made.engine.dispose()


@pytest.fixture
def answer(bundle: Bundle) -> Callable[..., Predictions]:
    """Return a function that makes an answer to some requests."""
    served = ServedModel("flight-delay", "7", "production", None, bundle)

    def make(count: int = 1, at: float | None = None) -> Predictions:
        row = [1.0, 2.0, float("nan"), *np.arange(3, len(FEATURE_NAMES)) / 3.0]
        made, request = at or time.time(), Request.model_validate(EXAMPLE)
        ids = new_ids(made, count)
        return Predictions(made, served, ids, [row] * count, [0.25] * count, [request] * count)

    return make


@pytest.fixture
def run_journal(metrics: Metrics, answer: Callable[..., Predictions]) -> Iterator[Run]:
    """Return a function that starts a journal on a database."""
    started: list[Running] = []

    def start(url: str) -> Running:
        started.append(Running(url, metrics, answer))
        return started[-1]

    yield start
    for each in started:
        each.journal.close()
