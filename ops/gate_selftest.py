"""How often the promotion gate is wrong: equal models refused (A/A), and the smallest loss that it catches (power)."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from app import model
from app.features import FEATURES
from ops.gate import Evidence, decide_promotion
from ops.promotion import TestRows, compare
from stages import evaluate, metrics, params
from stages.decision import Decision
from stages.errors import run
from stages.evaluate import METRICS_FILE
from stages.featurize import DAY, OUT_DIR, TARGET
from stages.metrics import Scored, Settings
from stages.params import Params
from stages.train import BUNDLE_DIR, fit, matrix

NOISE_SHARES = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2)
"""Shares of the flights whose clock times are those of another flight."""


@dataclass(frozen=True)
class Bench:
    """What every trial of the gate shares; floors are given the committed metrics, as they are not what is measured."""

    p: Params
    rows: TestRows
    floors: dict[str, dict[str, float]]

    def decide(self, challenger: Scored, champion: Scored, kept: npt.NDArray[np.int64] | None = None) -> Decision:
        """Judge two sets of predictions of the test rows, or of the rows `kept`; latency and size are equal.

        A slice that a resample of the days has emptied is not watched: the gate would refuse it, whatever the model.
        """
        frame = self.rows.frame if kept is None else self.rows.frame.iloc[kept]
        slices = evaluate.slices(frame, self.rows.tables)
        watched = [name for name in self.p.gate.slices if slices[name].sum() >= evaluate.MIN_SLICE_ROWS]
        slices = {name: slices[name] for name in watched}
        settings = Settings(self.p.evaluate.ece_bins, self.p.evaluate.riskiest_share)
        whole, parts, _ = compare(challenger, champion, slices, self.p.gate.promotion, settings)
        evidence = Evidence(self.floors, "", True, whole, parts, (1.0, 1.0), (1.0, 1.0))
        return decide_promotion(evidence, self.p.gate.model_copy(update={"slices": watched}), allow_equal=True)


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson, 1927)."""
    z, share = 1.959964, hits / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    return max(0.0, middle - half), min(1.0, middle + half)


def resample(
    days: npt.NDArray[np.integer], rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draw as many days as there are, with replacement; return the rows, and for each the number of its draw."""
    order = np.argsort(days, kind="stable")
    groups = np.split(order, np.cumsum(np.unique(days, return_counts=True)[1])[:-1])
    drawn = rng.integers(0, len(groups), len(groups))
    sizes = [len(groups[i]) for i in drawn]
    return np.concatenate([groups[i] for i in drawn]), np.repeat(np.arange(len(drawn)), sizes)


def models(bench: Bench, count: int, every: int, rounds: int, rate: float, by_days: bool) -> Iterator[Scored]:
    """Yield test predictions of models that differ by chance only.

    Each has its own resample of the same training days, or (not `by_days`) all of them and its own seed.
    """
    train = pd.read_parquet(OUT_DIR / "train.parquet").iloc[::every]
    features, target, days = matrix(train), train[TARGET].to_numpy(), train[DAY].to_numpy()
    test, frame = matrix(bench.rows.frame), bench.rows.frame
    for seed in range(count):
        p = bench.p.train.model_copy(update={"rounds": rounds, "learning_rate": rate, "seed": seed})
        rows = resample(days, np.random.default_rng(seed))[0] if by_days else np.arange(len(days))
        booster = fit(features[rows], target[rows], p, label=f"model {seed + 1} of {count}")
        yield Scored(frame[TARGET].to_numpy(), model.predict(booster, test).round(9), frame[DAY].to_numpy())


def equal_models(bench: Bench, made: Iterator[Scored]) -> list[Decision]:
    """Judge the first against the second model, the third against the fourth, and so on."""
    return [bench.decide(challenger, champion) for challenger, champion in zip(made, made, strict=False)]


def equal_row(name: str, decisions: list[Decision]) -> str:
    """Return how many pairs were refused and why, and the margin of ROC AUC that 95 % of them would have cleared."""
    refused = sum(not decision.accepted for decision in decisions)
    reasons = Counter(check.name for decision in decisions for check in decision.checks if not check.passed)
    areas = [c for decision in decisions for c in decision.checks if c.name == "roc_auc (not worse)"]
    spread = np.std([c.now - c.base for c in areas])
    needed = -np.quantile([c.value for c in areas], 0.05)
    low, high = wilson(refused, len(decisions))
    why = ", ".join(f"{check} ({n})" for check, n in reasons.most_common(3)) or "–"
    share = f"{refused / len(decisions):.0%} ({low:.1%} to {high:.1%})"
    return f"| {name} | {len(decisions)} | {refused} | {share} | {spread:.4f} | {needed:.4f} | {why} |"


def _area(scored: Scored) -> float:
    return metrics.measure(scored, Settings(1, 0.1))["roc_auc"]


def degraded(bench: Bench, repeats: int) -> list[tuple[float, float, float, int]]:
    """Return, by share of noise, mean and standard deviation of the loss in ROC AUC, and how many were refused.

    Every repeat judges the committed model with noise in its inputs against itself, on another resample of the days.
    """
    bundle = model.load(BUNDLE_DIR / model.MODEL_FILE, BUNDLE_DIR / model.MANIFEST_FILE)
    features, frame = matrix(bench.rows.frame), bench.rows.frame
    clock = [FEATURES.index("departure_minute"), FEATURES.index("arrival_minute")]
    intact, target = model.predict(bundle.booster, features).round(9), frame[TARGET].to_numpy()
    losses: dict[float, list[float]] = {share: [] for share in NOISE_SHARES}
    refused = Counter[float]()
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        mixed = features.copy()
        mixed[:, clock] = rng.permutation(features[:, clock])
        noisy = model.predict(bundle.booster, mixed).round(9)
        lot = rng.random(len(features))
        rows, day = resample(frame[DAY].to_numpy(), rng)
        champion = Scored(target[rows], intact[rows], day)
        for share in NOISE_SHARES:
            challenger = Scored(target[rows], np.where(lot < share, noisy, intact)[rows], day)
            refused[share] += not bench.decide(challenger, champion, rows).accepted
            losses[share].append(_area(champion) - _area(challenger))
        print(f"power: {seed + 1} of {repeats}", file=sys.stderr, flush=True)
    return [(s, float(np.mean(losses[s])), float(np.std(losses[s])), refused[s]) for s in NOISE_SHARES]


def power_table(curve: list[tuple[float, float, float, int]], repeats: int) -> str:
    """Return the curve as a Markdown table, and the smallest loss that is refused at least 80 % of the time."""
    lines = ["| noise | loss in ROC AUC (± sd) | refused | share (95 % interval) |", "|--:|--:|--:|---|"]
    for noise, loss, spread, hits in curve:
        low, high = wilson(hits, repeats)
        share = f"{hits / repeats:.0%} ({low:.0%} to {high:.0%})"
        lines.append(f"| {noise:.0%} | {loss:.4f} ± {spread:.4f} | {hits} of {repeats} | {share} |")
    for _, loss, spread, hits in curve:
        if hits >= 0.8 * repeats:
            low, high = loss - 1.96 * spread / math.sqrt(repeats), loss + 1.96 * spread / math.sqrt(repeats)
            found = f"{loss:.4f} (95 % interval {low:.4f} to {high:.4f})"
            return "\n".join([*lines, "", f"Smallest of these losses refused at least 80 % of the time: {found}."])
    return "\n".join([*lines, "", "None of these losses is refused 80 % of the time."])


def main() -> None:
    """Run the measurements on build/ and print their tables; a number of 0 leaves one out."""
    parser = argparse.ArgumentParser(prog="python -m ops.gate_selftest")
    parser.add_argument("--pairs", type=int, default=100, help="pairs of models from resamples of the training days")
    parser.add_argument("--seed-pairs", type=int, default=40, help="pairs of models that differ by their seed")
    parser.add_argument(
        "--repeats", type=int, default=30, help="resamples of the test days in the measurement of power"
    )
    parser.add_argument("--every", type=int, default=4, help="train these models on every n-th flight")
    parser.add_argument("--rounds", type=int, default=40, help="rounds of these models")
    parser.add_argument("--rate", type=float, default=0.15, help="learning rate of these models")
    a = parser.parse_args()
    bench = Bench(params.load(), TestRows.load(), json.loads(METRICS_FILE.read_text(encoding="utf-8")))
    print(
        "| equal models | pairs | refused | share (95 % interval) | sd of the difference in ROC AUC "
        "| margin that 95 % clear | most frequent reasons |\n|---|--:|--:|---|--:|--:|---|"
    )
    bundle = model.load(BUNDLE_DIR / model.MODEL_FILE, BUNDLE_DIR / model.MANIFEST_FILE)
    frame = bench.rows.frame
    same = Scored(frame[TARGET].to_numpy(), model.predict(bundle.booster, matrix(frame)), frame[DAY].to_numpy())
    print(equal_row("the committed model, twice", [bench.decide(same, same)]))
    for name, pairs, by_days in (("other seed", a.seed_pairs, False), ("resampled training days", a.pairs, True)):
        if pairs:
            made = models(bench, 2 * pairs, a.every, a.rounds, a.rate, by_days)
            print(equal_row(name, equal_models(bench, made)))
    if a.repeats:
        print("\n" + power_table(degraded(bench, a.repeats), a.repeats))


if __name__ == "__main__":
    run(main)
