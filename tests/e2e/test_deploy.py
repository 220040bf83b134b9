"""Blue/green with real containers behind a real proxy, under traffic that is never allowed to fail."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx
import pytest

from app.interface import EXAMPLE
from tests.support.processes import wait_for
from tests.support.release import Release, docker
from tests.support.sites import Site, running_site

RATE = 50
QUICK = ("--soak", "8", "--watch", "6")
WRAPPER = """
import asyncio, os, threading, uvicorn
from app.api.application import create_app
from app.settings import Settings
app = create_app(Settings())
async def changed(scope, receive, send):
    {}
    await app(scope, receive, send)
uvicorn.run(changed, host="0.0.0.0", port=8000, log_level="warning")
"""


@dataclass
class Traffic:
    """Requests at a steady rate, each on time whether or not the one before is answered."""

    url: str
    seen: Counter[tuple[int, str]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def one(self, http: httpx.Client) -> None:
        """Ask once, and keep status and version."""
        try:
            answer = http.post(f"{self.url}/predict", json=EXAMPLE)
            self.seen[answer.status_code, answer.headers.get("X-Model-Version", "")] += 1
            if answer.status_code != 200:
                self.failures.append(f"{answer.status_code} {answer.text[:200]}")
        except httpx.HTTPError as err:
            self.failures.append(repr(err))

    def run(self, share: int) -> None:
        """Ask at a share of the rate until stopped."""
        with httpx.Client(timeout=20) as http:
            started, count = time.monotonic(), 0
            while not self.stopped.is_set():
                self.one(http)
                count += 1
                time.sleep(max(0.0, started + count * share / RATE - time.monotonic()))

    def __enter__(self) -> Traffic:
        self.threads = [threading.Thread(target=self.run, args=(10,)) for _ in range(10)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()


@pytest.fixture(scope="module")
def site(release: Release) -> Iterator[Site]:
    """The proxy of ops/stack/compose, with version 1 deployed behind it."""
    with running_site(release, "deploy") as made:
        first = made.deploy("deploy", release.image, "--soak", "1", "--watch", "1")
        assert first.returncode == 0, first.stderr
        yield made


def wrapped(release: Release, tag: str, line: str, version: str = "1") -> str:
    """Return an image whose service does something else before each request."""
    digit = tag[-1]
    script = WRAPPER.format(line).replace("\n", "\\n").replace('"', '\\"')
    lines = f'USER 0\nRUN printf "{script}" > app/__main__.py && rm app/__pycache__/__main__.*\nUSER 10001'
    return release.derived(lines, f"model-v{version}-g{digit * 7}", revision=digit * 40)


def timed(
    action: Callable[[], subprocess.CompletedProcess[str]],
) -> tuple[subprocess.CompletedProcess[str], float]:
    """Return the result of an action, and the seconds that it took."""
    started = time.monotonic()
    return action(), time.monotonic() - started


def test_a_good_release_takes_over_without_one_failed_request_and_goes_back_in_time(site: Site) -> None:
    release = site.release
    image = release.renamed("2")
    assert site.serving() == "1"
    with Traffic(site.url) as traffic:
        release.promote("2")
        done, forward = timed(lambda: site.deploy("deploy", image, *QUICK))
        assert done.returncode == 0, done.stderr
        assert site.serving() == "2" and len(site.services()) == 1
        back, taken = timed(lambda: site.deploy("undeploy", "--version", "1", "--reason", "a test"))
        assert back.returncode == 0, back.stderr
        assert site.serving() == "1" and release.production() == "1"
    assert not traffic.failures and traffic.seen[200, "1"] and traffic.seen[200, "2"]
    print(f"\n{dict(traffic.seen)}, none failed; back in {taken:.1f} s")
    assert taken < 1.5 * forward, f"{taken:.1f} s to go back, {forward:.1f} s to deploy"
    history = release.run("model history").stdout
    assert "deploy" in history and "undeploy" in history and "a test" in history


@pytest.mark.parametrize(
    "name, line, reason",
    [
        ("slow-a", "await asyncio.sleep(2)", "p95"),
        ("crashing-b", "threading.Timer(5, os._exit, (1,)).start()", "keeps running (before traffic)"),
        (
            "failing-c",
            "scope['path'] = '/none' if scope.get('path') == '/predict' else scope.get('path')",
            "wrong answers",
        ),
    ],
)
def test_a_bad_release_never_gets_traffic(site: Site, name: str, line: str, reason: str) -> None:
    image = wrapped(site.release, name, line)
    refused(site, image, reason)


def test_a_release_whose_model_is_broken_never_gets_traffic(site: Site) -> None:
    lines = "USER 0\nRUN echo >> /srv/model/model.lgb\nUSER 10001"
    refused(site, site.release.derived(lines, "model-v1-gddddddd", revision="d" * 40), "ready")


def refused(site: Site, image: str, reason: str) -> None:
    """Deploy what must not be deployed; all that clients see is the release before."""
    before, colours = site.serving(), site.services()
    with Traffic(site.url) as traffic:
        done = site.deploy("deploy", image, *QUICK)
    assert done.returncode == 3, done.stdout + done.stderr
    assert reason in done.stderr and "still does" in done.stderr and "Traceback" not in done.stderr
    assert not traffic.failures and set(traffic.seen) == {(200, before)}
    assert site.services() == colours and site.serving() == before
    last = site.release.run("model history").stdout.splitlines()[-1]
    assert image in last and "refused" in last


def test_a_release_that_dies_under_traffic_is_covered_by_the_one_before(site: Site) -> None:
    line = "threading.Timer(14, os._exit, (1,)).start() if not os.path.exists('/tmp/x') else 0; open('/tmp/x', 'w')"
    image = wrapped(site.release, "late-5", line)
    with Traffic(site.url) as traffic:
        done = site.deploy("deploy", image, "--soak", "1", "--watch", "40")
    assert done.returncode == 3 and "with traffic" in done.stderr, done.stderr
    assert not traffic.failures and site.serving() == "1" and len(site.services()) == 1


def test_a_version_that_is_not_production_and_a_wrong_tag_are_not_deployed(site: Site) -> None:
    done = site.deploy("deploy", site.release.renamed("2"))
    assert done.returncode == 3 and "not Production" in done.stderr
    assert site.deploy("undeploy", "--version", "2", "--reason", "").returncode == 2


def test_two_deployments_at_once_are_not_possible(site: Site) -> None:
    name = f"{site.environment['COMPOSE_PROJECT_NAME']}-deployment"
    docker("create", "--name", name, site.release.image)
    try:
        done = site.deploy("deploy", site.release.image)
        assert done.returncode == 1 and f"docker rm {name}" in done.stderr
    finally:
        docker("rm", name)


def test_the_proxy_hides_metrics_and_comes_back_to_the_last_release(site: Site) -> None:
    assert httpx.get(f"{site.url}/metrics", timeout=10).status_code == 404
    site.proxy("restart")
    wait_for("version 1 through the proxy", lambda: site.serving() == "1")


def test_without_a_proxy_a_deployment_fails_and_leaves_what_was_there(site: Site) -> None:
    image, before = site.release.renamed("2"), site.services()
    site.release.promote("2")
    site.proxy("stop")
    try:
        done = site.deploy("to", image, *QUICK)
    finally:
        site.proxy("start")
    assert done.returncode != 0 and "Traceback" not in done.stderr, done.stderr
    assert site.services() == before
    wait_for("version 1 through the proxy", lambda: site.serving() == "1")
    back = site.release.run("model rollback", "--version", "1", "--reason", "the deployment failed")
    assert back.returncode == 0 and site.release.production() == "1", back.stderr
