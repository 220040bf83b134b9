"""The measurements on build/ as tables; a number of 0 leaves one out."""

from __future__ import annotations

from ops.gate.selftest import controls, equal, power
from ops.gate.selftest.equal import SEASONS, Period
from stages import params


def show(pairs: int, seed_pairs: int, margin_models: int, repeats: int, with_controls: bool) -> None:
    """Print what is refused, how often equal models are, what margins they would need, and which losses are caught."""
    p = params.load()
    if with_controls:
        print("## Negative controls\n\n" + controls.table(p) + "\n", flush=True)
    if margin_models:
        needed = {}
        for months in SEASONS:
            period = Period.season(months)
            needed[period.name] = equal.needs(list(equal.models(period, p, margin_models, True)), p.gate)
        print("## Margins that models from resampled days ask for\n\n" + equal.margins_table(needed) + "\n", flush=True)
    if pairs or seed_pairs:
        print("## Equal models\n\n" + equal.PAIRS_HEAD, flush=True)
    for name, count, by_days in (("other seed", seed_pairs, False), ("resampled training days", pairs, True)):
        if count:
            made = equal.models(Period.test(), p, 2 * count, by_days)
            print(
                equal.pairs_row(name, [equal.judge(one, other, p.gate) for one, other in zip(made, made)]), flush=True
            )
    if repeats:
        print("\n## Power\n\n" + power.table(p, repeats), flush=True)
