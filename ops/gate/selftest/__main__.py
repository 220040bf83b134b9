"""Run the measurements on build/ and print their tables; a number of 0 leaves one out."""

from __future__ import annotations

import argparse

from ops.gate.selftest import controls, equal, power
from ops.gate.selftest.equal import Period
from stages import params
from stages.errors import run


def main() -> None:
    """Print the refused controls, the margins that chance needs, the share of equal models refused, and the power."""
    parser = argparse.ArgumentParser(prog="python -m ops.gate.selftest")
    parser.add_argument("--pairs", type=int, default=100, help="pairs of models from resamples of the training rows")
    parser.add_argument("--seed-pairs", type=int, default=20, help="pairs of models that differ by their seed")
    parser.add_argument("--margin-models", type=int, default=40, help="models of each period for the margins")
    parser.add_argument("--repeats", type=int, default=60, help="resamples of the test rows to measure power on")
    parser.add_argument("--no-controls", action="store_true", help="leave the negative controls out")
    a, p = parser.parse_args(), params.load()
    if not a.no_controls:
        print("## Negative controls\n\n" + controls.table(p) + "\n", flush=True)
    if a.margin_models:
        needed = {
            period.name: equal.needs(list(equal.models(period, p, a.margin_models, True)), p.gate)
            for period in Period.seasons()
        }
        print("## Margins that models from resampled rows need\n\n" + equal.margins_table(needed) + "\n", flush=True)
    judged = {}
    for name, pairs, by_groups in (("other seed", a.seed_pairs, False), ("resampled training rows", a.pairs, True)):
        if pairs:
            made = equal.models(Period.test(), p, 2 * pairs, by_groups)
            judged[name] = [equal.judge(one, other, p.gate) for one, other in zip(made, made)]
    if judged:
        print("## Equal models\n\n" + equal.pairs_table(judged) + "\n", flush=True)
    if a.repeats:
        print("## Power\n\n" + power.table(p, a.repeats), flush=True)


if __name__ == "__main__":
    run(main)
