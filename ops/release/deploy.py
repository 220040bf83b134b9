"""`on-time release deploy`: blue/green on one machine; whatever goes wrong, what served before keeps serving.

The new container is started beside the old one and tried without traffic. Then the proxy sends it the traffic, with
the old one next in line. It is watched; when all is well the old one is drained and removed, otherwise the proxy goes
back and the new one is removed. The decision is recorded in the registry. All of it goes through Docker's command
line, so DOCKER_HOST=ssh://… deploys to another machine.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from app.errors import OnTimeError
from ops.registry import commands as registry
from ops.registry import history
from ops.registry.production import PRODUCTION, PROMOTED_TAG, by_alias
from ops.release import image as images
from ops.release.docker import REPOSITORY, EngineFailed, compose, docker, inspect, probe
from ops.release.smoke import P95_MS, READY_SECONDS, same_version
from stages.decision import Check, Decision
from stages.params import Params

COMPOSE_FILE = Path(__file__).parents[1] / "stack" / "compose" / "compose.yml"
COLOURS = ("blue", "green")
ERROR_RATIO, P95_RATIO = 0.01, 3.0
"""At most this share of 5xx, and this many times the p95 of what serves now (or P95_MS, where that is more)."""


class DeployFailed(OnTimeError):
    """The new release does not serve; what served before still does."""


@dataclass(frozen=True)
class Plan:
    """Seconds without traffic, and seconds with it, in which a release must do well."""

    soak: float
    watch: float


class Site:
    """The machine: a proxy and the containers of both colours, found by Compose's labels."""

    def __init__(self, project: str) -> None:
        self.project = project

    def container(self, service: str) -> str | None:
        """Return the id of a service's container, running or not."""
        labels = {"project": self.project, "service": service}
        filters = [f"--filter=label=com.docker.compose.{key}={value}" for key, value in labels.items()]
        found = docker("ps", "--all", "--quiet", *filters).split()
        return found[0] if found else None

    @property
    def proxy(self) -> str:
        """The proxy's container; DeployFailed when there is none."""
        found = self.container("proxy")
        if found is None:
            raise DeployFailed("no proxy runs here: `docker compose --profile api up --detach` in ops/stack/compose.")
        return found

    def live(self) -> str | None:
        """Return the colour that the proxy sends the traffic to, if its container runs."""
        first = docker("exec", self.proxy, "sh", "-c", "test ! -e /config/first || cat /config/first").removesuffix(
            ":8000"
        )
        return first if first and self.runs(first) else None

    def runs(self, colour: str) -> bool:
        """Return whether a colour's container runs and has never been started again."""
        found = self.container(colour)
        known = inspect("container", found) if found else None
        return bool(known and known["State"]["Running"] and not known["RestartCount"])

    def route(self, *colours: str) -> None:
        """Send the traffic to the first of these colours, and to the next one while the first does not answer."""
        write = 'printf %s "$2" > "/config/$1.part" && mv "/config/$1.part" "/config/$1"'
        for name, colour in (("first", colours[0]), ("next", colours[-1])):
            docker("exec", self.proxy, "sh", "-c", write, "sh", name, f"{colour}:8000")

    def start(self, colour: str, image: str) -> str:
        """Start a colour on an image, in place of what is left of an earlier one; return its id."""
        self.remove(colour)
        compose(self.project, COMPOSE_FILE, "up", "--detach", "--no-deps", colour, ONTIME_IMAGE=image)
        found = self.container(colour)
        assert found is not None
        return found

    def remove(self, colour: str, drain: bool = False) -> None:
        """Remove a colour's container; let it finish its requests first if it is to be drained."""
        if found := self.container(colour):
            if drain:
                docker("stop", found)
            docker("rm", "--force", found)

    @contextmanager
    def alone(self, image: str) -> Iterator[None]:
        """Keep a second deployment off this machine: a container's name exists once."""
        name = f"{self.project}-deployment"
        try:
            docker("create", "--name", name, image)
        except EngineFailed as err:
            raise DeployFailed(f"another deployment is under way here (if it died: docker rm {name}). {err}") from err
        try:
            yield
        finally:
            docker("rm", name, check=False)


def traffic(container: str) -> tuple[float, float]:
    """Return how many requests a container has answered so far, and how many of them with 5xx."""
    text = probe(container, "get", "/metrics")["body"]
    counted = re.findall(r'^http_requests_total\{[^}]*status="(\w)xx"[^}]*\} (\S+)$', text, re.MULTILINE)
    return sum(float(n) for _, n in counted), sum(float(n) for kind, n in counted if kind == "5")


def observe(site: Site, colour: str, other: str | None, seconds: float, when: str) -> list[Check]:
    """Ask a colour its golden requests for some seconds, beside the other one; stop at the first wrong thing."""
    running = f"container that keeps running {when}"
    try:
        return _ask(site, colour, other, seconds, when, running)
    except EngineFailed:
        time.sleep(1)  # what asks dies with the container, a moment before the engine says that it has ended
        if site.runs(colour):
            raise
        return [Check.at_least(running, 0, 1)]


def _ask(site: Site, colour: str, other: str | None, seconds: float, when: str, running: str) -> list[Check]:
    key, until = os.environ.get("PROBE_KEY", ""), time.monotonic() + seconds
    name, before = site.container(colour) or "", traffic(site.container(colour) or "")
    while True:
        found = probe(name, "replay", "1", "20", key=key)
        peer = probe(site.container(other) or "", "replay", "0", "20", key=key)["p95_ms"] if other else 0.0
        total, failed = (now - then for now, then in zip(traffic(name), before, strict=True))
        first = f" (first: {found['first'][0]})" if found["first"] else ""
        checks = [
            Check.at_least(running, int(site.runs(colour)), 1),
            Check.at_most(f"wrong answers to golden requests {when}{first}", found["errors"], 0),
            Check.at_most(f"p95 of /predict (ms) {when}", found["p95_ms"], max(P95_MS, P95_RATIO * peer)),
            Check.at_most(f"share of 5xx {when}", failed / max(total, 1.0), ERROR_RATIO),
        ]
        if time.monotonic() > until or not Decision(tuple(checks)).accepted:
            return checks


def switch(site: Site, image: str, plan: Plan, agrees: Callable[[str], list[str]]) -> Decision:
    """Bring an image into service, or leave everything as it was; `agrees` says what is wrong with its /version."""
    old = site.live()
    new = COLOURS[1] if old == COLOURS[0] else COLOURS[0]
    moved = accepted = False
    checks: list[Check] = []
    try:
        ready = probe(site.start(new, image), "wait", str(READY_SECONDS))
        odd = agrees(ready["version"])
        checks.append(Check.at_least(f"ready: {ready['body'][:200]}", int(ready["status"] == 200), 1))
        checks.append(Check.at_most(f"/version that differs{': ' * bool(odd)}{'; '.join(odd)}", len(odd), 0))
        if Decision(tuple(checks)).accepted:
            checks += observe(site, new, old, plan.soak, "before traffic")
        if Decision(tuple(checks)).accepted:
            moved = True
            site.route(new, *filter(None, [old]))
            checks += observe(site, new, old, plan.watch, "with traffic")
        accepted = Decision(tuple(checks)).accepted
    except EngineFailed as err:
        checks.append(Check.at_least(f"a container that can be asked ({err})", 0, 1))
    finally:
        if accepted:
            site.route(new)
            if old:
                site.remove(old, drain=True)
        else:
            if moved and old:
                site.route(old)
            site.remove(new)
    return Decision(tuple(checks))


def deploy(client: MlflowClient, p: Params, image: str, host: str, plan: Plan, alias: str = PRODUCTION) -> str:
    """Deploy the image of the Production version, or of another alias's; raise DeployFailed if it does not do well."""
    facts = _facts(image)
    _decide(client, p, images.registered(client, facts, alias), facts, _Order("deploy", image, host, plan))
    return f"{image} serves on {host}."


def undeploy_to(
    client: MlflowClient, p: Params, number: str, host: str, plan: Plan, reason: str, image: str = ""
) -> str:
    """Bring an earlier version's image back into service, then make that version Production again in the registry."""
    if not reason.strip():
        raise DeployFailed(
            f'a rollback needs a reason: on-time release undeploy --version {number} --reason "what is wrong".'
        )
    image = image or f"{REPOSITORY}:model-v{number}"
    facts = _facts(image)
    if facts[f"{images.OURS}model.version"] != number:
        raise DeployFailed(f"{image} holds version {facts[f'{images.OURS}model.version']}, not {number}.")
    version = images.registered(client, facts, alias="")
    if PROMOTED_TAG not in version.tags:
        raise DeployFailed(
            f"version {number} of {version.name} has never been promoted: `make history` shows which were."
        )
    _decide(client, p, version, facts, _Order("undeploy", image, host, plan, reason))
    done, champion = f"{image} serves on {host} again.", by_alias(client, version.name, PRODUCTION)
    if champion is None or str(champion.version) != number:
        done += f"\n{registry.rollback(client, p, number, reason)}"
    return done


@dataclass(frozen=True)
class _Order:
    action: str
    image: str
    host: str
    plan: Plan
    reason: str = ""


def _facts(image: str) -> dict[str, str]:
    if inspect("image", image) is None:
        docker("pull", image, check=False)
    return images.facts_of(image)


def _decide(client: MlflowClient, p: Params, version: ModelVersion, facts: dict[str, str], order: _Order) -> None:
    """Switch, and record how that went."""
    site = Site(os.environ.get("COMPOSE_PROJECT_NAME") or "on-time")
    with site.alone(order.image):
        decision = switch(site, order.image, order.plan, lambda said: same_version(said, facts, version))
    done = f"{order.image} serves" if decision.accepted else f"{order.image} is not deployed"
    try:
        run_id = registry.record(order.action, version, None, decision, p, reason=order.reason)
        history.record_deployment(client, run_id, version.name, order.image, order.host)
    except MlflowException as err:
        raise DeployFailed(f"{done}, but MLflow did not record it: {str(err).splitlines()[0][:200]}") from err
    if not decision.accepted:
        reasons = "; ".join(decision.reasons)
        raise DeployFailed(f"{done}, what served before still does: {reasons}.")


def reach(host: str) -> str:
    """Make user@machine the machine of the Docker engine, if one is named; return the name of the engine's machine."""
    if host:
        os.environ["DOCKER_HOST"] = f"ssh://{host.removeprefix('ssh://')}"
    return os.environ.get("DOCKER_HOST") or "this machine"
