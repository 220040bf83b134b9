"""`on-time release smoke`: run an image as production does, without network, and compare it with its tag."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlflow.entities.model_registry import ModelVersion
from python_on_whales import Container, docker

from app.errors import Refused
from ops.gate.policy import markdown
from ops.registry.aliases import PRODUCTION
from ops.release import images
from ops.release.docker import compose, engine_errors, probe, service
from ops.release.images import OCI, OURS
from stages.evaluation.floors import Bound, Decision
from stages.tracking import mlflow_runs

SMOKE_FILE = Path(__file__).parents[1] / "stack" / "compose" / "smoke.yml"
READY_SECONDS, READY_CPU_SECONDS, P95_MS = 60.0, 6.0, 250.0
"""Bounds that mean a fault on a busy machine too. Alone, a start takes 1.6 processor seconds, and four times as long
without compiled bytecode; a request takes a few milliseconds, and the alert ApiSlow fires above 250."""
REPLAY = (3, 100)  # seconds, requests per second
USER = 10001


class SmokeFailed(Refused):
    """An image that must not be deployed."""


@contextmanager
def container(image: str) -> Iterator[Container]:
    """Run an image by the smoke file for as long as the block lasts."""
    project = f"on-time-smoke-{os.getpid()}"
    try:
        compose(project, SMOKE_FILE, "up", "--detach", ONTIME_IMAGE=image)
        found = service(project, "api")
        assert found is not None
        yield found
    finally:
        compose(project, SMOKE_FILE, "down", "--timeout", "1", ONTIME_IMAGE=image)


def version_check(text: str, facts: dict[str, str], version: ModelVersion) -> Bound:
    """Check that /version, the image's labels and the registry agree."""
    expected: dict[str, set[object]] = {
        "model.name": {facts[f"{OURS}model.name"], version.name},
        "model.version": {facts[f"{OURS}model.version"], str(version.version)},
        "run_id": {facts[f"{OURS}model.run_id"], version.run_id},
        "bundle_digest": {facts[f"{OURS}model.bundle_digest"], version.tags[mlflow_runs.DIGEST_TAG]},
        "commit": {facts[f"{OCI}revision"]},
        "source": {"baked"},
    }
    try:
        found = json.loads(text)
        found |= {f"model.{key}": value for key, value in found["model"].items()}
        values = {name: {found[name]} | others for name, others in expected.items()}
        odd = [f"{name}: {', '.join(sorted(map(str, both)))}" for name, both in values.items() if len(both) > 1]
    except (ValueError, KeyError, TypeError) as err:
        odd = [f"not readable ({err!r}): {text[:200]}"]
    return Bound.at_most("differences in /version", len(odd), 0, message="; ".join(odd))


def replay(container: Container, seconds: float, rate: float) -> dict[str, Any]:
    """Replay the golden requests inside a container; return their number, the wrong responses and the p95."""
    return probe(container, "replay", str(seconds), str(rate), key=os.environ.get("PROBE_KEY", ""))


def golden_checks(found: Mapping[str, Any], p95_ms: float, when: str = "") -> list[Bound]:
    """Check the result of a replay."""
    first = "".join(found.get("first", []))
    return [
        Bound.at_most("wrong answers to golden requests", found["errors"], 0, rule=when, message=first),
        Bound.at_most("p95 of /predict (ms)", found["p95_ms"], p95_ms, rule=when),
    ]


@engine_errors()
def smoke(image: str, facts: dict[str, str], version: ModelVersion) -> Decision:
    """Run an image and check it; every container is gone afterwards."""
    with container(image) as name:
        ready = probe(name, "wait", str(READY_SECONDS))
        if ready["status"] != 200:
            raise SmokeFailed(f"{image} is not ready after {READY_SECONDS:.0f} s: {ready['body'] or name.logs(tail=3)}")
        started = name.state.started_at
        checks = [
            Bound.at_most("seconds until ready", started and ready["at"] - started.timestamp(), READY_SECONDS),
            Bound.at_most("processor seconds until ready", ready["cpu_seconds"], READY_CPU_SECONDS),
            version_check(ready["version"], facts, version),
            *golden_checks(replay(name, *REPLAY), P95_MS),
            Bound.at_least("user", int(str(name.execute(["id", "-u"]))), USER),
        ]
        written = list(docker.container.diff(name))
        checks.append(Bound.at_most("files written", len(written), 0, message="; ".join(written[:3])))
        try_write = "for path in /srv/app/x /x; do if touch $path 2>/dev/null; then echo $path; fi; done"
        made = str(name.execute(["sh", "-c", try_write])).split()
        checks.append(Bound.at_most("writes that succeeded outside /tmp", len(made), 0))
    return Decision(tuple(checks))


def smoke_test(image: str, any_version: bool) -> None:
    """Check names and registry, run the image, print the table; raise SmokeFailed if anything is not as it must be."""
    facts = images.facts_of(image)
    version = images.registered(mlflow_runs.connect(), facts, "" if any_version else PRODUCTION)
    decision = smoke(image, facts, version)
    print(markdown(decision))
    if not decision.accepted:
        raise SmokeFailed(f"{image} fails: {'; '.join(decision.reasons)}.")
