"""`on-time release load-test`: golden requests at a constant rate; fail on wrong or slow responses."""

from collections.abc import Mapping
from typing import Any

from app.errors import Refused
from ops.gate.policy import markdown
from ops.release.deploy import DeployFailed, Site
from ops.release.docker import PROJECT, engine_errors
from ops.release.smoke import P95_MS, golden_checks, replay
from stages.evaluation.floors import Bound, Decision

REACHED = 0.9
"""Share of the rate that must be reached: requests follow each other, so a slow service lowers it."""


def judge(found: Mapping[str, Any], seconds: float, rate: float) -> Decision:
    """Judge the result of a replay of golden requests."""
    reached = Bound.at_least("requests per second", found["requests"] / seconds, REACHED * rate)
    return Decision((reached, *golden_checks(found, P95_MS)))


@engine_errors()
def load(rate: float, seconds: float) -> None:
    """Print the table; raise Refused if responses were wrong or too slow."""
    site = Site(PROJECT)
    colour = site.live()
    if colour is None:
        raise DeployFailed("nothing serves here: `on-time release deploy IMAGE` brings an image into service.")
    decision = judge(replay(site.container(colour), seconds, rate), seconds, rate)
    print(markdown(decision))
    if not decision.accepted:
        raise Refused(f"{colour} does not bear {rate:g} requests/s: {'; '.join(decision.reasons)}.")
