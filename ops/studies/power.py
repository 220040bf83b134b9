"""The smallest loss that the promotion gate catches: the committed model, made worse step by step, against itself."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import lightgbm
import numpy as np

from app.features import Floats
from app.model import bundle as model
from ops.gate.evidence import Resampled, resampled
from ops.gate.policy import table
from ops.studies.equal import Period, judge, resample
from stages import evaluate, progress
from stages.files import BUNDLE_DIR
from stages.frames import GROUP, TARGET, matrix
from stages.metrics import MetricSettings, Scored, measure
from stages.params import Params

NOISE_STEPS = 1000  # the last one: every row has the features of another one
CAUGHT = 0.8
LOSSES = (0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04)
Steps = tuple[int, Callable[[int], Floats]]
"""How many steps there are, and the predictions of the test rows after so many of them; 0 is the model itself."""


class Power:
    """The committed model and the test rows, and the gate's decisions on worse models on resamples of the groups."""

    def __init__(self, p: Params) -> None:
        self.p, self.period = p, Period.test()
        self.settings = MetricSettings(p.evaluate.ece_bins, p.evaluate.riskiest_share)
        self.features = matrix(self.period.scored)
        self.booster = lightgbm.Booster(model_file=BUNDLE_DIR / model.MODEL_FILE)
        self.intact = model.predict(self.booster, self.features)
        self.after_rounds = cache(lambda rounds: np.asarray(self.booster.predict(self.features, num_iteration=rounds)))

    def noise(self, rng: np.random.Generator) -> Steps:
        """Give a growing share of the rows the features, and so the prediction, of another row drawn at random."""
        noisy, lot = rng.permutation(self.intact), rng.random(len(self.intact)) * NOISE_STEPS
        return NOISE_STEPS, lambda step: np.where(lot < step, noisy, self.intact)

    def fewer_rounds(self, _: np.random.Generator) -> Steps:
        """Leave out the last trees."""
        last = self.booster.current_iteration()
        return last - 1, lambda step: self.after_rounds(last - step)

    def critical_loss(self, steps: Steps, rng: np.random.Generator) -> float:
        """Return the loss in ROC AUC from which on the gate refuses, on one resample of the groups; infinite if none.

        The loss is that on the test rows as they are.
        """
        count, predict = steps
        frame = self.period.scored
        rows, group = resample(frame[GROUP].to_numpy(), rng)
        drawn = replace(self.period, scored=frame.iloc[rows])
        slices, target = drawn.slices(self.p), drawn.scored[TARGET].to_numpy()

        def measured(step: int) -> Resampled:
            scored = Scored(target, predict(step)[rows].round(9), group)
            return resampled(scored, slices, self.p.gate.promotion, self.settings)

        champion = measured(0)
        first = 1 + bisect_left(
            range(1, count + 1), True, key=lambda step: not judge(measured(step), champion, self.p.gate).accepted
        )
        return self._area(predict(0)) - self._area(predict(first)) if first <= count else float("inf")

    def _area(self, probability: Floats) -> float:
        return measure(evaluate.score(self.period.scored, probability), self.settings)["roc_auc"]


def measure_power(p: Params, repeats: int) -> str:
    """Return as Markdown how often losses are refused, and the smallest one that is refused 80 % of the time."""
    power = Power(p)
    critical: dict[str, Floats] = {}
    for name, degrade in (("features of other rows", power.noise), ("fewer rounds", power.fewer_rounds)):
        found = []
        for seed in progress.track(range(repeats), f"power, {name}"):
            rng = np.random.default_rng(seed)
            found.append(power.critical_loss(degrade(rng), rng))
        critical[name] = np.array(found)
    rows = [[str(loss), *(f"{np.mean(found <= loss):.0%}" for found in critical.values())] for loss in LOSSES]
    notes = [f"{name.capitalize()}: {smallest(found)}" for name, found in critical.items()]
    return "\n".join([table(["loss in ROC AUC", *critical], rows), "", *notes])


def smallest(critical: Floats) -> str:
    """Return the loss that is refused 80 % of the time, with its interval by a bootstrap over the repeats."""
    drawn = np.random.default_rng(0).choice(critical, (1000, len(critical)))
    estimate = np.quantile(critical, CAUGHT, method="higher")
    low, high = np.quantile(np.quantile(drawn, CAUGHT, axis=1, method="higher"), [0.025, 0.975], method="nearest")
    if not np.isfinite(estimate):
        return "no step is refused 80 % of the time."
    return f"a loss of {estimate:.4f} (95 % interval {low:.4f} to {high:.4f}) is refused 80 % of the time."
