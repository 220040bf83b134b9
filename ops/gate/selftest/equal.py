"""Models that differ by chance only: what the gate says of pairs of them, and the margins that they would need."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from app.model import bundle as model
from app.problem.lookups import Floats, Tables
from ops.gate.evidence import Resampled, TestRows, compare, resampled
from ops.gate.pull_request import decide_not_worse
from stages import evaluate, progress
from stages.decision import Decision
from stages.featurize import DAY, OUT_DIR, TARGET
from stages.fetch import sha256
from stages.metrics import Scored, Settings
from stages.params import GateParams, Params
from stages.train import fit, matrix, month_of

CACHE_DIR = Path("build/selftest")
ACCEPTED = 0.95  # of the pairs that differ by chance only
SEASONS = ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10))
"""Pairs of training months, as long as the test; each is predicted from all the other training months."""


@dataclass(frozen=True)
class Period:
    """Flights to train on, and the other ones on which the models are compared."""

    name: str
    train: pd.DataFrame
    scored: pd.DataFrame
    tables: Tables

    @classmethod
    def test(cls) -> Period:
        """Return all training months, compared on the test months."""
        rows = TestRows.load()
        return cls("test", pd.read_parquet(OUT_DIR / "train.parquet"), rows.frame, rows.tables)

    @classmethod
    def season(cls, months: tuple[int, ...]) -> Period:
        """Return the training months but `months`, compared on these."""
        whole = cls.test()
        within = np.isin(month_of(whole.train[DAY].to_numpy()), months)
        return cls("-".join(map(str, months)), whole.train[~within], whole.train[within], whole.tables)

    def slices(self, p: Params) -> dict[str, npt.NDArray[np.bool_]]:
        """Return the rows of the watched slices that are large enough to be measured here."""
        found = evaluate.slices(self.scored, self.tables)
        return {name: found[name] for name in p.gate.slices if found[name].sum() >= evaluate.MIN_SLICE_ROWS}

    def measure(self, probability: Floats, p: Params) -> Resampled:
        """Measure predictions of the scored flights as a promotion does."""
        scored = Scored(self.scored[TARGET].to_numpy(), probability.round(9), self.scored[DAY].to_numpy())
        settings = Settings(p.evaluate.ece_bins, p.evaluate.riskiest_share)
        return resampled(scored, self.slices(p), p.gate.promotion, settings)


def judge(challenger: Resampled, champion: Resampled, policy: GateParams) -> Decision:
    """Judge whether a challenger is worse than a champion; a slice that is too small in the period is not watched.

    Floors, latency, size and ties are no matter of chance, and not part of it.
    """
    whole, parts, _ = compare(challenger, champion, policy.promotion)
    return decide_not_worse(whole, parts, policy.model_copy(update={"slices": list(parts)}))


def resample(
    days: npt.NDArray[np.integer], rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draw as many days as there are, with replacement; return the rows, and for each the number of its draw."""
    order = np.argsort(days, kind="stable")
    groups = np.split(order, np.cumsum(np.unique(days, return_counts=True)[1])[:-1])
    drawn = rng.integers(0, len(groups), len(groups))
    sizes = [len(groups[i]) for i in drawn]
    return np.concatenate([groups[i] for i in drawn]), np.repeat(np.arange(len(drawn)), sizes)


def models(period: Period, p: Params, count: int, by_days: bool) -> Iterator[Resampled]:
    """Yield full-size models that differ by chance only, measured on the period's scored flights.

    Each has its own seed and (`by_days`) its own resample of the same training days. Their predictions are kept in
    build/selftest, so that an interrupted run goes on where it was.
    """
    features, target, days = matrix(period.train), period.train[TARGET].to_numpy(), period.train[DAY].to_numpy()
    scored = matrix(period.scored)
    inputs = [sha256(OUT_DIR / f"{name}.parquet") for name in ("train", "test")]
    key = hashlib.sha256(json.dumps([inputs, len(days), p.train.model_dump()]).encode()).hexdigest()[:12]
    for seed in progress.track(range(count), f"{period.name}: models", lines=False):
        path = CACHE_DIR / f"{period.name}-{'days' if by_days else 'seed'}-{key}-{seed}.npy"
        if not path.exists():
            rows = resample(days, np.random.default_rng(seed))[0] if by_days else np.arange(len(days))
            label = f"{period.name}: model {seed + 1} of {count}"
            booster = fit(features[rows], target[rows], p.train.model_copy(update={"seed": seed}), label=label)
            _write(path, model.predict(booster, scored))
        yield period.measure(np.load(path), p)


def _write(path: Path, probability: Floats) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished.npy")
    np.save(unfinished, probability)
    unfinished.rename(path)


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson, 1927)."""
    z, share = 1.959964, hits / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    return max(0.0, middle - half), min(1.0, middle + half)


def pairs_row(name: str, decisions: list[Decision]) -> str:
    """Return how many pairs were refused and why, and how far apart their ROC AUC is."""
    refused = sum(not decision.accepted for decision in decisions)
    reasons = Counter(check.name for decision in decisions for check in decision.checks if not check.passed)
    areas = [check for decision in decisions for check in decision.checks if check.name == "roc_auc (not worse)"]
    spread = np.std([check.now - check.base for check in areas])
    low, high = wilson(refused, len(decisions))
    why = ", ".join(f"{check.removesuffix(' (not worse)')} {n}" for check, n in reasons.most_common(3)) or "–"
    share = f"{refused / len(decisions):.0%} ({low:.1%} to {high:.1%})"
    return f"| {name} | {len(decisions)} | {refused} | {share} | {spread:.4f} | {why} |"


PAIRS_HEAD = (
    "| equal models | pairs | refused | share (95 % interval) | sd of the difference in ROC AUC | by |\n"
    "|---|--:|--:|---|--:|---|"
)


def needs(measured: list[Resampled], policy: GateParams) -> dict[str, Floats]:
    """Return, by margin, how wide it would have to be for each ordered pair of models; slices share a margin."""
    rules = policy.promotion
    found: dict[str, list[float]] = {
        name: [] for name in (*rules.margins, *(f"slice {m}" for m in rules.slice_margins))
    }
    for challenger, champion in permutations(measured, 2):
        whole, parts, _ = compare(challenger, champion, rules)
        for name, pair in whole.items():
            found[name].append(-pair.lower)
        for name in rules.slice_margins:
            found[f"slice {name}"].append(max(-part[name].lower for part in parts.values()))
    return {name: np.array(values) for name, values in found.items()}


def margins(needed: dict[str, Floats]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the margins that 95 % of pairs clear one by one, and those that 95 % clear all at once.

    The second are the first times one factor.
    """
    single = {name: float(np.quantile(values, ACCEPTED)) for name, values in needed.items()}
    worst = np.max([values / single[name] for name, values in needed.items()], axis=0)
    factor = float(np.quantile(worst, ACCEPTED))
    return single, {name: value * factor for name, value in single.items()}


def margins_table(by_period: dict[str, dict[str, Floats]]) -> str:
    """Return as Markdown the margins that each period asks for, and the widest of them, rounded up to two digits."""
    names = list(next(iter(by_period.values())))
    lines = [f"| months | {' | '.join(names)} |", "|---|" + "--:|" * len(names)]
    joint = {period: margins(needed)[1] for period, needed in by_period.items()}
    lines += [f"| {period} | {' | '.join(f'{found[n]:.4f}' for n in names)} |" for period, found in joint.items()]
    widest = {name: max(found[name] for found in joint.values()) for name in names}
    return "\n".join([*lines, f"| margin | {' | '.join(f'{_up(widest[n]):g}' for n in names)} |"])


def _up(value: float) -> float:
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / step) * step
