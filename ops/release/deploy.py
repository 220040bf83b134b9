"""`on-time release deploy`: blue/green on one machine; on any failure, the release before keeps serving.

The new container starts beside the old one and is tested without traffic. Then the proxy sends it the traffic, with the
old one as its fallback. If the checks pass, the old one is drained and removed; if not, the proxy is switched back and
the new one is removed. The registry records the decision. DOCKER_HOST=ssh://… deploys to another machine.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import click
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from python_on_whales import Container, docker
from python_on_whales.exceptions import DockerException

from app.errors import OnTimeError, Refused
from ops.registry import commands, history
from ops.registry.aliases import PRODUCTION, PROMOTED_TAG, by_alias
from ops.release import images
from ops.release.docker import PROJECT, REPOSITORY, EngineFailed, compose, engine_errors, probe, service
from ops.release.smoke import P95_MS, READY_SECONDS, golden_checks, replay, version_check
from stages.evaluation.floors import Bound, Decision
from stages.params import Params

COMPOSE_FILE = Path(__file__).parents[1] / "stack" / "compose" / "compose.yml"
COLOURS = ("blue", "green")
RUNNING = "container that keeps running"
ERROR_RATIO, P95_RATIO = 0.01, 3.0
"""At most this share of 5xx, and this multiple of the p95 of the present release (P95_MS, if that is more)."""


class DeployFailed(OnTimeError):
    """The new release does not serve; the one before still does."""


@dataclass(frozen=True)
class Plan:
    """The machine, and the seconds without traffic and with it for which a release is checked there."""

    host: str
    soak: float
    watch: float


class Site:
    """The machine: a proxy and the containers of both colours, found by Compose's labels."""

    def __init__(self, project: str) -> None:
        self.project = project

    @property
    def proxy(self) -> Container:
        """The proxy's container; DeployFailed when there is none."""
        found = service(self.project, "proxy")
        if found is None:
            raise DeployFailed("no proxy runs here: `docker compose --profile api up --detach` in ops/stack/compose.")
        return found

    def live(self) -> str | None:
        """Return the colour that the proxy sends the traffic to, if its container runs."""
        shown = self.proxy.execute(["sh", "-c", "test ! -e /config/first || cat /config/first"])
        first = str(shown or "").removesuffix(":8000")
        return first if first and self.runs(first) else None

    def runs(self, colour: str) -> bool:
        """Return whether a colour's container runs and has never been restarted."""
        found = service(self.project, colour)
        return bool(found and found.state.running and not found.restart_count)

    def route(self, *colours: str) -> None:
        """Send the traffic to the first of these colours, and to the next one while the first does not answer."""
        write = 'printf %s "$2" > "/config/$1.part" && mv "/config/$1.part" "/config/$1"'
        for name, colour in (("first", colours[0]), ("next", colours[-1])):
            self.proxy.execute(["sh", "-c", write, "sh", name, f"{colour}:8000"])

    def container(self, colour: str) -> Container:
        """Return a colour's container; raise EngineFailed when it is gone."""
        found = service(self.project, colour)
        if found is None:
            raise EngineFailed(f"{self.project} has no container {colour}.")
        return found

    def start(self, colour: str, image: str) -> Container:
        """Start a colour with an image; remove its former container first."""
        self.remove(colour)
        compose(self.project, COMPOSE_FILE, "up", "--detach", "--no-deps", colour, ONTIME_IMAGE=image)
        return self.container(colour)

    def remove(self, colour: str, drain: bool = False) -> None:
        """Remove a colour's container; let it finish its requests first if it is to be drained."""
        found = service(self.project, colour)
        if found is None:
            return
        if drain:
            found.stop()
        found.remove(force=True)

    @contextmanager
    def alone(self, image: str) -> Iterator[None]:
        """Keep a second deployment off this machine: a container's name exists once."""
        name = f"{self.project}-deployment"
        try:
            with engine_errors():
                lock = docker.container.create(image, name=name)
        except EngineFailed as err:
            raise DeployFailed(f"another deployment is running here (if it died: docker rm {name}). {err}") from err
        with lock:
            yield


def traffic(container: Container) -> tuple[float, float]:
    """Return how many requests a container has answered so far, and how many of them with 5xx."""
    text = probe(container, "get", "/metrics")["body"]
    counted = re.findall(r'^http_requests_total\{[^}]*status="(\w)xx"[^}]*\} (\S+)$', text, re.MULTILINE)
    return sum(float(n) for _, n in counted), sum(float(n) for kind, n in counted if kind == "5")


def observe(site: Site, colour: str, other: str | None, seconds: float, when: str) -> list[Bound]:
    """Send golden requests to a colour, and to the other one, for some seconds; stop at the first failed check."""
    try:
        return _measure(site, colour, other, seconds, when)
    except EngineFailed:
        time.sleep(1)  # the probe ends with its container, a moment before the engine reports the container's end
        if site.runs(colour):
            raise
        return [Bound.at_least(RUNNING, 0, 1, rule=when)]


def _measure(site: Site, colour: str, other: str | None, seconds: float, when: str) -> list[Bound]:
    until, container = time.monotonic() + seconds, site.container(colour)
    before = traffic(container)
    while True:
        found = replay(container, 1, 20)
        slowest = max(P95_MS, P95_RATIO * replay(site.container(other), 0, 20)["p95_ms"]) if other else P95_MS
        total, failed = (now - then for now, then in zip(traffic(container), before, strict=True))
        checks = [
            Bound.at_least(RUNNING, int(site.runs(colour)), 1, rule=when),
            *golden_checks(found, slowest, when),
            Bound.at_most("share of 5xx", failed / max(total, 1.0), ERROR_RATIO, rule=when),
        ]
        if time.monotonic() > until or not Decision(tuple(checks)).accepted:
            return checks


def switch(site: Site, image: str, plan: Plan, facts: dict[str, str], version: ModelVersion) -> Decision:
    """Bring the image of a version, with these labels, into service, or leave everything as it was."""
    old = site.live()
    new = COLOURS[1] if old == COLOURS[0] else COLOURS[0]
    moved = accepted = False
    checks: list[Bound] = []
    try:
        with engine_errors():
            ready = probe(site.start(new, image), "wait", str(READY_SECONDS))
            checks.append(Bound.at_least("ready", int(ready["status"] == 200), 1, message=ready["body"][:200]))
            checks.append(version_check(ready["version"], facts, version))
            if Decision(tuple(checks)).accepted:
                checks += observe(site, new, old, plan.soak, "before traffic")
            if Decision(tuple(checks)).accepted:
                moved = True
                site.route(new, *filter(None, [old]))
                checks += observe(site, new, old, plan.watch, "with traffic")
            accepted = Decision(tuple(checks)).accepted
    except EngineFailed as err:
        checks.append(Bound.at_least("a container that answers", 0, 1, message=str(err)))
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


@engine_errors()
def deploy_version(client: MlflowClient, p: Params, image: str, plan: Plan, alias: str = PRODUCTION) -> str:
    """Deploy the image of the Production version, or of another alias's; raise Refused if a check fails."""
    facts = _facts(image)
    _decide(client, p, images.registered(client, facts, alias), "deploy", image, plan)
    return f"{image} serves on {plan.host}."


@engine_errors()
def undeploy_to(client: MlflowClient, p: Params, number: str, plan: Plan, reason: str, image: str = "") -> str:
    """Bring an earlier version's image back into service, then make that version Production again in the registry."""
    if not reason.strip():
        command = f'on-time release undeploy --version {number} --reason "what is wrong"'
        raise click.UsageError(f"a rollback needs a reason: {command}.")
    image = image or f"{REPOSITORY}:model-v{number}"
    facts = _facts(image)
    if facts[f"{images.OURS}model.version"] != number:
        raise DeployFailed(f"{image} holds version {facts[f'{images.OURS}model.version']}, not {number}.")
    version = images.registered(client, facts, alias="")
    if PROMOTED_TAG not in version.tags:
        never = f"version {number} of {version.name} has never been promoted"
        raise DeployFailed(f"{never}: `make history` shows which were.")
    _decide(client, p, version, "undeploy", image, plan, reason)
    done, champion = f"{image} serves on {plan.host} again.", by_alias(client, version.name, PRODUCTION)
    if champion is None or str(champion.version) != number:
        done += f"\n{commands.rollback(client, p, number, reason)}"
    return done


def _facts(image: str) -> dict[str, str]:
    if not docker.image.exists(image):
        with suppress(DockerException):  # facts_of reports an image that is not on the engine
            docker.image.pull(image, quiet=True)
    return images.facts_of(image)


def _decide(
    client: MlflowClient, p: Params, version: ModelVersion, action: str, image: str, plan: Plan, reason: str = ""
) -> None:
    """Switch, and record the result."""
    site = Site(PROJECT)
    with site.alone(image):
        decision = switch(site, image, plan, images.facts_of(image), version)
    done = f"{image} serves" if decision.accepted else f"{image} is not deployed"
    try:
        run_id = commands.record_decision(action, version, None, decision, p, reason=reason)
        history.record_deployment(client, run_id, version.name, image, plan.host)
    except MlflowException as err:
        raise DeployFailed(f"{done}, but MLflow did not record it: {str(err).splitlines()[0][:200]}") from err
    if not decision.accepted:
        reasons = "; ".join(decision.reasons)
        raise Refused(f"{done}, the one before still does: {reasons}.")


def reach(host: str) -> str:
    """Make user@machine the machine of the Docker engine, if one is named; return the name of the engine's machine."""
    if host:
        os.environ["DOCKER_HOST"] = f"ssh://{host.removeprefix('ssh://')}"
    return os.environ.get("DOCKER_HOST") or "this machine"
