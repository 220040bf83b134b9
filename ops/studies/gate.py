"""`on-time model gate-selftest`: how often the promotion gate is wrong, and what it refuses, as tables.

Two measurements: how often the gate refuses a model that differs from its champion by the seed alone, and the smallest
loss that it catches (the committed model, made worse step by step, against itself).
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from app.model import bundles
from app.problem_kit.features import Floats
from ops.gate.evidence import Resampled, TestRows, check_outputs, compare_models, resampled
from ops.gate.policy import decide_not_worse, table
from ops.studies import controls
from stages import params
from stages.base import progress
from stages.base.paths import BUNDLE_DIR
from stages.evaluation import scores
from stages.evaluation.floors import Decision
from stages.evaluation.metrics import MetricSettings, Scored, measure
from stages.features.feature_files import GROUP, TARGET, matrix
from stages.params import Params
from stages.problem_kit.params import GateParams
from stages.training.boosting import Source, fit

NOISE_STEPS = 1000  # the last one: every row has the features of another one
CAUGHT = 0.8
LOSSES = (0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04)
Steps = tuple[int, Callable[[int], Floats]]
"""The number of steps, and the predictions of the test rows after a number of them; 0 is the model itself."""


def judge_pair(challenger: Resampled, champion: Resampled, policy: GateParams) -> Decision:
    """Judge whether a challenger is worse than a champion; a slice that is too small to be measured is not watched.

    Floors, latency, size and ties do not depend on chance and are left out.
    """
    whole, parts, _ = compare_models(challenger, champion, policy.promotion)
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


class Study:
    """The test rows and the committed model, and the gate's decisions on other models of these rows."""

    def __init__(self, p: Params) -> None:
        self.p, self.rows = p, TestRows.load()
        self.features = matrix(self.rows.frame)
        self.settings = MetricSettings(p.evaluate.ece_bins, p.evaluate.riskiest_share)
        self.booster = lightgbm.Booster(model_file=BUNDLE_DIR / bundles.MODEL_FILE)
        self.intact = bundles.predict(self.booster, self.features)
        self.after_rounds = cache(lambda rounds: np.asarray(self.booster.predict(self.features, num_iteration=rounds)))

    def measure(self, scored: Scored, rows: npt.NDArray[np.int64]) -> Resampled:
        """Measure predictions of some of the test rows as a promotion does."""
        slices = scores.slices(self.rows.frame.iloc[rows], self.rows.lookups)
        watched = {name: slices[name] for name in self.p.gate.slices}
        return resampled(scored, watched, self.p.gate.promotion, self.settings)

    def equal_models(self, count: int) -> Iterator[Resampled]:
        """Yield full-size models that differ by their seed only, measured on the test rows."""
        train, every_row = Source.files("train"), np.arange(len(self.features))
        for seed in progress.track(range(count), "equal models", lines=False):
            settings = self.p.train.model_copy(update={"seed": seed})
            booster = fit(train, settings, label=f"model {seed + 1} of {count}")
            probability = bundles.predict(booster, self.features).round(9)
            yield self.measure(scores.score(self.rows.frame, probability), every_row)

    def noise(self, rng: np.random.Generator) -> Steps:
        """Give a growing share of the rows the features, and so the prediction, of another row drawn at random."""
        noisy, lot = rng.permutation(self.intact), rng.random(len(self.intact)) * NOISE_STEPS
        return NOISE_STEPS, lambda step: np.where(lot < step, noisy, self.intact)

    def fewer_rounds(self, _: np.random.Generator) -> Steps:
        """Leave out the last trees."""
        last = self.booster.current_iteration()
        return last - 1, lambda step: self.after_rounds(last - step)

    def critical_loss(self, steps: Steps, rng: np.random.Generator) -> float:
        """Return the least loss in ROC AUC that the gate refuses, on one resample of the groups; infinite if none.

        The loss is that on the test rows as they are.
        """
        count, predict = steps
        frame = self.rows.frame
        rows, group = resample(frame[GROUP].to_numpy(), rng)
        target = frame[TARGET].to_numpy()[rows]

        def measured(step: int) -> Resampled:
            return self.measure(Scored(target, predict(step)[rows].round(9), group), rows)

        champion = measured(0)
        first = 1 + bisect_left(
            range(1, count + 1), True, key=lambda step: not judge_pair(measured(step), champion, self.p.gate).accepted
        )
        if first > count:
            return float("inf")
        areas = [measure(scores.score(frame, predict(step)), self.settings)["roc_auc"] for step in (0, first)]
        return areas[0] - areas[1]


def pairs_table(decisions: list[Decision]) -> str:
    """Return as Markdown how many pairs were refused and why, and how far apart their ROC AUC is."""
    refused = sum(not decision.accepted for decision in decisions)
    checks = [check for decision in decisions for check in decision.checks]
    areas = [check for check in checks if (check.part, check.name) == ("", "roc_auc")]
    spread = np.std([check.now - check.base for check in areas])
    low, high = binomtest(refused, len(decisions)).proportion_ci(method="wilson")
    reasons = Counter(f"{check.part} {check.name}".strip() for check in checks if not check.passed)
    why = ", ".join(f"{check} {n}" for check, n in reasons.most_common(3)) or "–"
    share = f"{refused / len(decisions):.0%} ({low:.1%} to {high:.1%})"
    head = ["pairs with another seed", "refused", "share (95 % interval)", "sd of the difference in ROC AUC", "by"]
    return table(head, [[str(len(decisions)), str(refused), share, f"{spread:.4f}", why]])


def measure_power(p: Params, repeats: int) -> str:
    """Return as Markdown how often losses are refused, and the smallest one that is refused 80 % of the time."""
    study = Study(p)
    critical: dict[str, Floats] = {}
    for name, degrade in (("features of other rows", study.noise), ("fewer rounds", study.fewer_rounds)):
        losses = []
        for seed in progress.track(range(repeats), f"power, {name}"):
            rng = np.random.default_rng(seed)
            losses.append(study.critical_loss(degrade(rng), rng))
        critical[name] = np.array(losses)
    rows = [[str(loss), *(f"{np.mean(losses <= loss):.0%}" for losses in critical.values())] for loss in LOSSES]
    notes = [f"{name.capitalize()}: {smallest(losses)}" for name, losses in critical.items()]
    return "\n".join([table(["loss in ROC AUC", *critical], rows), "", *notes])


def smallest(critical: Floats) -> str:
    """Return the loss that is refused 80 % of the time, with its interval by a bootstrap over the repeats."""
    drawn = np.random.default_rng(0).choice(critical, (1000, len(critical)))
    estimate = np.quantile(critical, CAUGHT, method="higher")
    low, high = np.quantile(np.quantile(drawn, CAUGHT, axis=1, method="higher"), [0.025, 0.975], method="nearest")
    if not np.isfinite(estimate):
        return "no step is refused 80 % of the time."
    return f"a loss of {estimate:.4f} (95 % interval {low:.4f} to {high:.4f}) is refused 80 % of the time."


def show_gate(pairs: int, repeats: int, with_controls: bool) -> None:
    """Print the refused controls, the share of equal models refused, and the power."""
    p = params.load()
    check_outputs("featurize")
    if with_controls:
        print("## Negative controls\n\n" + controls.promote_all(p) + "\n", flush=True)
    if pairs:
        models = Study(p).equal_models(2 * pairs)
        decisions = [judge_pair(challenger, champion, p.gate) for challenger, champion in zip(models, models)]
        print("## Equal models\n\n" + pairs_table(decisions) + "\n", flush=True)
    if repeats:
        print("## Power\n\n" + measure_power(p, repeats), flush=True)
