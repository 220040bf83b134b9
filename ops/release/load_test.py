"""`on-time release load-test`: golden requests at a steady rate; wrong or late answers fail."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ops.gate.pull_request import markdown
from ops.release.deploy import DeployFailed, Site
from ops.release.docker import probe
from ops.release.smoke import P95_MS
from stages.decision import Check, Decision

REACHED = 0.9
"""Share of the rate that must be reached: requests follow each other, so a slow service lowers it."""


def judge(found: Mapping[str, float], seconds: float, rate: float) -> Decision:
    """Judge what a replay of golden requests has counted and measured."""
    return Decision(
        (
            Check.at_least("requests a second", found["requests"] / seconds, REACHED * rate),
            Check.at_most("wrong answers", found["errors"], 0),
            Check.at_most("p95 of /predict (ms)", found["p95_ms"], P95_MS),
        )
    )


def load(rate: float, seconds: float) -> None:
    """Print the table; raise DeployFailed when an answer was wrong, or they came too slowly."""
    site = Site(os.environ.get("COMPOSE_PROJECT_NAME") or "on-time")
    colour = site.live()
    if colour is None:
        raise DeployFailed("nothing serves here: `on-time release deploy IMAGE` brings an image into service.")
    key, limits = os.environ.get("PROBE_KEY", ""), (str(seconds), str(rate))
    decision = judge(probe(site.container(colour) or "", "replay", *limits, key=key), seconds, rate)
    print(markdown(decision))
    if not decision.accepted:
        raise DeployFailed(f"{colour} does not bear {rate:g} requests/s: {'; '.join(decision.reasons)}.")
