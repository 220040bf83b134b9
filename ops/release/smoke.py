"""`make smoke IMAGE=…`: run an image as production does, without network, and ask whether it is what its tag says."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion

from app.errors import OnTimeError
from ops.gate.policy import markdown
from ops.registry.production import PRODUCTION
from ops.release import image as images
from ops.release.docker import compose, docker, inspect, probe
from ops.release.image import OCI, OURS
from stages import params, tracking
from stages.decision import Check, Decision
from stages.errors import run

SMOKE_FILE = Path(__file__).parents[1] / "stack" / "compose" / "smoke.yml"
READY_SECONDS, READY_CPU_SECONDS, P95_MS = 30.0, 2.0, 100.0
REPLAY = ("3", "100")  # seconds, requests per second
USER = 10001


class SmokeFailed(OnTimeError):
    """An image that must not be deployed."""

    exit_code = 12


@contextmanager
def container(image: str) -> Iterator[str]:
    """Run an image by the smoke file for as long as the block lasts."""
    project = f"on-time-smoke-{os.getpid()}"
    try:
        compose(project, SMOKE_FILE, "up", "--detach", ONTIME_IMAGE=image)
        yield compose(project, SMOKE_FILE, "ps", "--quiet", "api", ONTIME_IMAGE=image)
    finally:
        compose(project, SMOKE_FILE, "down", "--timeout", "1", ONTIME_IMAGE=image)


def ready_seconds(name: str, at: float) -> float:
    """Return the seconds from the start of a container until then."""
    state = inspect("container", name)
    assert state is not None
    started = datetime.fromisoformat(state["State"]["StartedAt"][:26].rstrip("Z") + "+00:00")
    return at - started.timestamp()


def same_version(said: str, facts: dict[str, str], version: ModelVersion) -> list[str]:
    """Return what /version says otherwise than the labels and the registry."""
    try:
        found = json.loads(said)
        answers = {
            "model.name": (found["model"]["name"], facts[f"{OURS}model.name"], version.name),
            "model.version": (found["model"]["version"], facts[f"{OURS}model.version"], str(version.version)),
            "run_id": (found["run_id"], facts[f"{OURS}model.run_id"], version.run_id),
            "bundle_digest": (
                found["bundle_digest"],
                facts[f"{OURS}model.bundle_digest"],
                version.tags[tracking.DIGEST_TAG],
            ),
            "commit": (found["commit"], facts[f"{OCI}revision"]),
            "source": (found["source"], "baked"),
        }
    except (ValueError, KeyError, TypeError) as err:
        return [f"/version is not readable ({err!r}): {said[:200]}"]
    return [f"{name}: {', '.join(map(str, values))}" for name, values in answers.items() if len(set(values)) > 1]


def try_requests(name: str, seconds: str, rate: str, p95_ms: float) -> list[Check]:
    """Replay the golden requests inside a container; return what was measured, with its bounds."""
    found = probe(name, "replay", seconds, rate, key=os.environ.get("PROBE_KEY", ""))
    first = f" (first: {found['first'][0]})" if found["first"] else ""
    return [
        Check.at_most(f"wrong answers to golden requests{first}", found["errors"], 0),
        Check.at_most("p95 of /predict (ms)", found["p95_ms"], p95_ms),
    ]


def smoke(image: str, facts: dict[str, str], version: ModelVersion) -> Decision:
    """Run an image and check it; every container is gone afterwards."""
    with container(image) as name:
        ready = probe(name, "wait", str(READY_SECONDS))
        if ready["status"] != 200:
            log = docker("logs", "--tail", "3", name, check=False)
            raise SmokeFailed(f"{image} is not ready after {READY_SECONDS:.0f} s: {ready['body'] or log}")
        odd = same_version(ready["version"], facts, version)
        checks = [
            Check.at_most("seconds until ready", ready_seconds(name, ready["at"]), READY_SECONDS),
            Check.at_most("processor seconds until ready", ready["cpu_seconds"], READY_CPU_SECONDS),
            Check.at_most(f"/version that differs{': ' * bool(odd)}{'; '.join(odd)}", len(odd), 0),
            *try_requests(name, *REPLAY, P95_MS),
            Check.at_least("user", int(docker("exec", name, "id", "-u")), USER),
        ]
        written = docker("diff", name).splitlines()
        checks.append(Check.at_most(f"files written{': ' * bool(written)}{'; '.join(written[:3])}", len(written), 0))
        try_write = docker("exec", name, "sh", "-c", "touch /srv/app/x /x 2>/dev/null; ls /x /srv/app/x", check=False)
        checks.append(Check.at_most("writes that succeeded outside /tmp", len(try_write.split()), 0))
    return Decision(tuple(checks))


def main() -> None:
    """Check names and registry, run the image, print the table; exit 12 if anything is not as it must be."""
    parser = argparse.ArgumentParser(prog="python -m ops.release.smoke")
    parser.add_argument("image")
    parser.add_argument("--any-version", action="store_true", help="also one that is not Production")
    arguments = parser.parse_args()
    facts = images.facts_of(arguments.image)
    params.load()
    version = images.registered(tracking.connect(), facts, "" if arguments.any_version else PRODUCTION)
    decision = smoke(arguments.image, facts, version)
    print(markdown(decision))
    if not decision.accepted:
        raise SmokeFailed(f"{arguments.image} fails: {'; '.join(decision.reasons)}.")


if __name__ == "__main__":
    run(main)
