"""The scenes of delivery: from a commit on main to the container that serves it, and back."""

from __future__ import annotations

from collections.abc import Callable

from ops.rehearsal import scratch
from ops.rehearsal.runner import Done, Event
from ops.rehearsal.scenes import SceneFailed, expect
from ops.rehearsal.sites import World

DELIVERY_JOBS = ("register", "image", "staging", "production")  # without `ci`, which scenes of its own are about


def now(world: World, staging: str, production: str, champion: str) -> None:
    """Check which versions serve, by which image, which one the registry calls Production, and what GitHub was told."""
    found = {
        "staging": world.staging.serving(),
        "production": world.production.serving(),
        "registry": world.champion(),
    }
    if found != {"staging": staging, "production": production, "registry": champion}:
        raise SceneFailed(f"staging, production and registry have {found}, not {staging}, {production}, {champion}.")
    recorded = world.stage.runner.change(lambda state: None)["deployments"]
    for environment, site, version in (
        ("staging", world.staging, staging),
        ("production", world.production, production),
    ):
        last = [d["payload"] for d in recorded if d["environment"] == environment][-1]
        if (last["model_version"], last["image"]) != (version, site.image()) or "@sha256:" not in site.image():
            raise SceneFailed(f"{environment} runs {site.image()} with version {version}; GitHub was told {last}.")


def release(world: World, before: str, only: tuple[str, ...] = ()) -> list[Done]:
    """Run what a push to main starts."""
    return world.stage.runner.run("release.yml", Event("main", {"event": {"before": before}}), only)


def merge(world: World, name: str) -> str:
    """Bring a branch to main; return what main was before."""
    dev = world.stage.dev
    scratch.git(dev, "checkout", "--quiet", "main")
    before = scratch.git(dev, "rev-parse", "HEAD")
    scratch.git(dev, "merge", "--quiet", "--no-ff", "--message", f"Merge {name}", name)
    scratch.git(dev, "push", "--quiet", "origin", "main")
    return before


def first(world: World) -> list[Done]:
    """The first model of main, approved: registered as version 1, and served by staging and production."""
    done = release(world, "0" * 40, DELIVERY_JOBS)
    expect(done, "", ["Version 1 of flight-delay is Production", "signed by .github/workflows/release.yml"])
    now(world, staging="1", production="1", champion="1")
    return done


def better(world: World) -> list[Done]:
    """An improving change merges: checked, registered as version 2, promoted and served."""
    stage = world.stage
    stage.branch("better")
    stage.set_rate("better")
    stage.make("repro")
    stage.push("Learn faster")
    done = release(world, merge(world, "better"))
    expect(done, "", ["### Gate: passed", "Version 2 of flight-delay is Production, accepted against version 1"])
    now(world, staging="2", production="2", champion="2")
    return done


def back(world: World) -> list[Done]:
    """Somebody rolls back: version 1 serves again, from its image in the registry, and is Production again."""
    inputs = {"version": "1", "reason": "too many false alarms"}
    done = world.stage.runner.run("rollback.yml", Event("main", inputs=inputs))
    expect(done, "", ["Version 1 of flight-delay is Production again, after 2: too many false alarms"])
    now(world, staging="2", production="1", champion="1")
    return done


def broken(world: World) -> list[Done]:
    """Version 2 is released again, production's proxy is down: red at the deployment, and version 1 is Production."""
    world.production.proxy("stop")
    try:
        done = release(world, "0" * 40, DELIVERY_JOBS)
    finally:
        world.production.proxy("start")
    expect(done, "make deploy", ["Version 1 of flight-delay is Production again, after 2: the deployment of version 2"])
    now(world, staging="2", production="1", champion="1")
    return done


DELIVERY: dict[str, Callable[[World], list[Done]]] = {
    "first": first,
    "better": better,
    "back": back,
    "broken": broken,
}
