"""`make load`: ask what serves here, or at HOST, its golden requests at a steady rate; wrong or late answers fail."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping

from ops.gate.policy import markdown
from ops.release.deploy import DeployFailed, Site
from ops.release.docker import probe
from ops.release.smoke import P95_MS
from stages.decision import Check, Decision
from stages.errors import run

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


def main() -> None:
    """Print the table; exit 1 when an answer was wrong, or they came too slowly."""
    parser = argparse.ArgumentParser(prog="python -m ops.release.load_test")
    parser.add_argument("--host", default="", help="user@machine; without it, the engine that docker asks anyway")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    arguments = parser.parse_args()
    if arguments.host:
        os.environ["DOCKER_HOST"] = f"ssh://{arguments.host.removeprefix('ssh://')}"
    site = Site(os.environ.get("COMPOSE_PROJECT_NAME") or "on-time")
    colour = site.live()
    if colour is None:
        raise DeployFailed("nothing serves here: `make deploy IMAGE=…` brings an image into service.")
    key, limits = os.environ.get("PROBE_KEY", ""), (str(arguments.seconds), str(arguments.rate))
    decision = judge(probe(site.container(colour) or "", "replay", *limits, key=key), arguments.seconds, arguments.rate)
    print(markdown(decision))
    if not decision.accepted:
        raise DeployFailed(f"{colour} does not bear {arguments.rate:g} requests/s: {'; '.join(decision.reasons)}.")


if __name__ == "__main__":
    run(main)
