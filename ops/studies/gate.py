"""`on-time model gate-selftest`: how often the promotion gate is wrong, and what it refuses, as tables."""

from ops.studies import controls, equal, power
from ops.studies.equal import Period
from stages import params


def show(pairs: int, seed_pairs: int, repeats: int, with_controls: bool) -> None:
    """Print the refused controls, the share of equal models refused, and the power."""
    p = params.load()
    if with_controls:
        print("## Negative controls\n\n" + controls.promote_all(p) + "\n", flush=True)
    judged = {}
    for name, count, by_groups in (("other seed", seed_pairs, False), ("resampled training rows", pairs, True)):
        if count:
            made = equal.models(Period.test(), p, 2 * count, by_groups)
            judged[name] = [equal.judge(one, other, p.gate) for one, other in zip(made, made)]
    if judged:
        print("## Equal models\n\n" + equal.pairs_table(judged) + "\n", flush=True)
    if repeats:
        print("## Power\n\n" + power.measure_power(p, repeats), flush=True)
