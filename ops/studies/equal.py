"""Models that differ by chance only: how often the gate refuses one of a pair."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binomtest

from app.features import Floats
from app.interface import Lookups
from app.model import bundle as model
from ops.gate.evidence import Resampled, TestRows, compare, resampled
from ops.gate.policy import decide_not_worse, table
from stages import evaluate, frames, progress
from stages.boosting import Source, fit
from stages.decision import Decision
from stages.frames import GROUP, matrix
from stages.metrics import MIN_ROWS, MetricSettings
from stages.params import Params
from stages.sections import GateParams

CACHE_DIR = Path("build/selftest")


@dataclass(frozen=True)
class Period:
    """Rows to train on, and the other ones on which the models are compared."""

    name: str
    train: Source
    scored: pd.DataFrame
    lookups: Lookups

    @classmethod
    def test(cls) -> Period:
        """Return all training months, compared on the test months."""
        rows = TestRows.load()
        return cls("test", Source.files("train"), rows.frame, rows.lookups)

    def slices(self, p: Params) -> dict[str, npt.NDArray[np.bool_]]:
        """Return the rows of the watched slices that are large enough to be measured here."""
        found = evaluate.slices(self.scored, self.lookups)
        return {name: found[name] for name in p.gate.slices if found[name].sum() >= MIN_ROWS}

    def measure(self, probability: Floats, p: Params) -> Resampled:
        """Measure predictions of the scored rows as a promotion does."""
        scored = evaluate.score(self.scored, probability.round(9))
        settings = MetricSettings(p.evaluate.ece_bins, p.evaluate.riskiest_share)
        return resampled(scored, self.slices(p), p.gate.promotion, settings)


def judge(challenger: Resampled, champion: Resampled, policy: GateParams) -> Decision:
    """Judge whether a challenger is worse than a champion; a slice that is too small in the period is not watched.

    Floors, latency, size and ties do not depend on chance and are left out.
    """
    whole, parts, _ = compare(challenger, champion, policy.promotion)
    return decide_not_worse(whole, parts, policy.model_copy(update={"slices": list(parts)}))


def resample(
    groups: npt.NDArray[np.integer[Any]], rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draw as many groups as there are, with replacement; return the rows, and for each the number of its draw."""
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.cumsum(np.unique(groups, return_counts=True)[1])[:-1])
    drawn = rng.integers(0, len(members), len(members))
    sizes = [len(members[i]) for i in drawn]
    return np.concatenate([members[i] for i in drawn]), np.repeat(np.arange(len(drawn)), sizes)


def drawn(source: Source, rows: npt.NDArray[np.int64]) -> Source:
    """Return rows of a source, some of them several times, in memory."""
    features = source.features(np.ones(len(source.facts), dtype=bool))[rows]
    return Source(source.facts.iloc[rows].reset_index(drop=True), [lambda: features], [len(rows)])


def models(period: Period, p: Params, count: int, by_groups: bool) -> Iterator[Resampled]:
    """Yield full-size models that differ by chance only, measured on the period's scored rows.

    Each has its own seed and (`by_groups`) its own resample of the groups of training rows. Their predictions are kept
    in build/selftest, so that an interrupted run can be continued.
    """
    scored, groups = matrix(period.scored), period.train.facts[GROUP].to_numpy()
    inputs = [frames.digest(name) for name in ("train", "test")]
    key = hashlib.sha256(json.dumps([inputs, len(groups), p.train.model_dump()]).encode()).hexdigest()[:12]
    for seed in progress.track(range(count), f"{period.name}: models", lines=False):
        path = CACHE_DIR / f"{period.name}-{'groups' if by_groups else 'seed'}-{key}-{seed}.npy"
        if not path.exists():
            rows = resample(groups, np.random.default_rng(seed))[0]
            train = drawn(period.train, rows) if by_groups else period.train
            label = f"{period.name}: model {seed + 1} of {count}"
            booster = fit(train, p.train.model_copy(update={"seed": seed}), label=label)
            _write(path, model.predict(booster, scored))
        yield period.measure(np.load(path), p)


def _write(path: Path, probability: Floats) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished.npy")
    np.save(unfinished, probability)
    unfinished.rename(path)


def pairs_table(decisions: dict[str, list[Decision]]) -> str:
    """Return as Markdown how many pairs of each kind were refused and why, and how far apart their ROC AUC is."""
    head = ["equal models", "pairs", "refused", "share (95 % interval)", "sd of the difference in ROC AUC", "by"]
    return table(head, [_pairs_row(name, made) for name, made in decisions.items()])


def _pairs_row(name: str, decisions: list[Decision]) -> list[str]:
    refused = sum(not decision.accepted for decision in decisions)
    checks = [check for decision in decisions for check in decision.checks]
    areas = [check for check in checks if (check.part, check.name) == ("", "roc_auc")]
    spread = np.std([check.now - check.base for check in areas])
    low, high = binomtest(refused, len(decisions)).proportion_ci(method="wilson")
    reasons = Counter(f"{check.part} {check.name}".strip() for check in checks if not check.passed)
    why = ", ".join(f"{check} {n}" for check, n in reasons.most_common(3)) or "–"
    share = f"{refused / len(decisions):.0%} ({low:.1%} to {high:.1%})"
    return [name, str(len(decisions)), str(refused), share, f"{spread:.4f}", why]
