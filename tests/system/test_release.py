"""The image of a version by a real engine: built once, checked, pushed to a registry, and deployed behind a proxy."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import mlflow
import pytest

from app.errors import Refused
from app.interface import EXAMPLE, ROWS_NOUN
from app.model.served import Production
from app.registry.registered import PRODUCTION_TAG
from ops.cli.ci import NOT_SERVED
from ops.registry import commands, history
from ops.release import audit, deploy, docker, images, publish, smoke
from stages import params
from tests.conftest import ROOT, make_clone
from tests.support.processes import answers, free_port, wait_for
from tests.support.promotion import fill
from tests.support.servers import gh
from tests.support.servers.registry import Registry
from tests.support.servers.release import (
    BASE,
    BUILD,
    Release,
    Site,
    has_engine,
    image_registry,
    run_docker,
    running_site,
)

MEGABYTE = 1_000_000
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


@pytest.fixture(scope="module")
def release(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """A clone whose registry holds two small models, version 1 in Production, and the image of that version."""
    if not has_engine() and not os.environ.get("CI"):
        pytest.skip("no Docker engine answers on this machine")
    clone = make_clone(tmp_path_factory.mktemp("release"), data=False)
    clone.run("git", "remote", "add", "origin", "https://user:token@git.example.com/team/on-time.git")
    uri, repository = f"sqlite:///{clone.path}/mlflow.db", f"on-time-test-{os.getpid()}"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(clone.path)
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setenv("DOCKER_BUILD_FLAGS", BUILD["DOCKER_BUILD_FLAGS"])
        patch.setattr(images, "REPOSITORY", repository)
        patch.setattr(deploy, "REPOSITORY", repository)
        fill(folder, ["good", "better"])
        commit = clone.run("git", "rev-parse", "HEAD").stdout.strip()
        made = Release(clone.path, uri, commit, repository)
        made.promote("1")
        try:
            assert made.image == f"{repository}:model-v1-g{commit[:7]}"
            yield made
        finally:
            made.remove()
            mlflow.set_tracking_uri(None)


@pytest.fixture(autouse=True)
def own_registry(release: Release) -> None:
    """MLflow keeps the address of the last registry that a test has used, in the environment as well."""
    mlflow.set_tracking_uri(release.uri)


@pytest.fixture(scope="module")
def site(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The proxy of ops/stack/compose, with version 1 deployed behind it."""
    with running_site(release, tmp_path_factory.mktemp("site")) as made:
        made.deploy(release.image, 1, 1)
        yield made


def test_labels_name_code_model_and_data(release: Release) -> None:
    tags = json.loads(run_docker("image", "inspect", "--format", "{{json .RepoTags}}", release.image))
    ours = sorted(tag.rpartition(":")[2] for tag in tags if tag.startswith(f"{release.repository}:"))
    assert ours == ["model-v1", f"model-v1-g{release.commit[:7]}"]
    labels = json.loads(run_docker("image", "inspect", "--format", "{{json .Config.Labels}}", release.image))
    oci = {key.rsplit(".", 1)[1]: value for key, value in labels.items() if key.startswith("org.opencontainers.image.")}
    assert oci["version"] == "model-v1" and oci["revision"] == release.commit
    assert oci["source"] == "https://git.example.com/team/on-time"  # the token in origin's address is not in it
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", oci["created"])
    assert labels["ai.on-time.model.bundle_digest"] == release.version("1").tags["bundle.digest"]
    assert labels["ai.on-time.model.run_id"] == release.version("1").run_id
    assert labels["ai.on-time.data.md5"] in (release.path / "dvc.lock").read_text()


def test_smoke_accepts_what_its_tag_says(release: Release, capsys: pytest.CaptureFixture[str]) -> None:
    smoke.smoke_test(release.image, any_version=False)
    printed = capsys.readouterr().out
    assert "FAIL" not in printed
    for name in ("golden", "processor seconds until ready", "p95 of /predict", "writes that succeeded"):
        assert name in printed


def test_it_is_small_and_cannot_be_written(release: Release) -> None:
    sizes = [int(run_docker("image", "inspect", "--format", "{{.Size}}", name)) for name in (release.image, BASE)]
    assert sizes[0] - sizes[1] <= 250 * MEGABYTE
    assert run_docker("image", "inspect", "--format", "{{.Config.User}}", release.image) == "10001"
    for options, path in (([], "/srv/x"), (["--read-only", "--tmpfs=/tmp"], "/x")):
        command = ["docker", "run", "--rm", "--network=none", *options, release.image, "touch", path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode and ("Read-only file system" if options else "denied") in done.stderr


def test_it_holds_what_is_locked_and_no_more(release: Release) -> None:
    code = "import importlib.metadata as m; print(*{d.name.lower().replace('_', '-') for d in m.distributions()})"
    found = set(run_docker("run", "--rm", "--network=none", release.image, "python", "-c", code).split())
    text = (release.path / "requirements.txt").read_text()
    assert found <= {name.lower() for name in re.findall(r"^([\w.-]+)==", text, re.MULTILINE)}
    assert {"lightgbm", "fastapi", "psycopg"} <= found and not found & {"pandas", "scikit-learn", "scipy", "dvc", "pip"}
    assert not found & {name for names in NOT_SERVED.values() for name in names}


def test_a_batch_is_journaled_without_temporary_files(release: Release, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)  # the container's user has no rights on the host
    journal = ["--env=ONTIME_JOURNAL_URL=sqlite:////journal/journal.db", f"--volume={tmp_path}:/journal"]
    code = f"""import json, urllib.request
body = json.dumps({{{ROWS_NOUN!r}: [{EXAMPLE!r}] * 1000}}).encode()
request = urllib.request.Request("http://127.0.0.1:8000/predict/batch", body, {{"Content-Type": "application/json"}})
print(urllib.request.urlopen(request).status)"""
    with release.container(*journal) as name:
        assert run_docker("exec", name, "python", "-c", code) == "200"
        written = "journal_written_total 1000.0"
        wait_for(written, lambda: written in docker.probe(name, "get", "/metrics")["body"], 20)


def test_it_predicts_explains_and_follows_the_registry(release: Release, bundle_dir: Path, tmp_path: Path) -> None:
    port, registry = free_port(), Registry(tmp_path, f"http://127.0.0.1:{free_port()}", {})
    settings = {"MLFLOW_TRACKING_URI": registry.uri, "ONTIME_PORT": str(port)}
    settings |= {"ONTIME_JOURNAL_URL": "sqlite:////tmp/journal.db", "ONTIME_REFRESH_SECONDS": "0.2"}
    options = ["--network=host", "--tmpfs=/tmp", *(f"--env={name}={value}" for name, value in settings.items())]
    base = f"http://127.0.0.1:{port}"
    with release.container(*options) as name:
        assert answers(f"{base}/readyz"), "the copy in the image is served before there is a registry"
        with registry.server(int(registry.uri.rpartition(":")[2])):
            shutil.copytree(bundle_dir, tmp_path / "bundle")
            registry.publish(tmp_path / "bundle")
            registry.point("1")
            wait_for("its version is served", lambda: httpx.get(f"{base}/version").json()["source"] == "registry", 60)
        explained = httpx.post(f"{base}/predict?explain=true", json=EXAMPLE).raise_for_status().json()
        batch = httpx.post(f"{base}/predict/batch", json={ROWS_NOUN: [EXAMPLE] * 200}).raise_for_status().json()
        assert {one["probability"] for one in batch["predictions"]} == {explained["probability"]}
        assert explained["explanation"] and httpx.get(f"{base}/docs").status_code == 200
        log = subprocess.run(["docker", "logs", name], capture_output=True, text=True, check=True).stderr
        assert "No module named" not in log and "Traceback" not in log


def test_it_starts_with_its_page_without_a_registry(release: Release) -> None:
    uri = "http://192.0.2.1:5000"  # an address for documentation: nobody answers there
    with release.container("--network=none", f"--env=MLFLOW_TRACKING_URI={uri}") as name:
        version = json.loads(docker.probe(name, "get", "/version")["body"])
        page = docker.probe(name, "get", "/")["body"]
        files = re.findall(r'(?:src|href)="(page/static/[^"]+)"', page)
        assert len(files) >= 2
        assert all(docker.probe(name, "get", f"/{file}")["status"] == 200 for file in files)
        facts = json.loads(docker.probe(name, "get", "/page/model")["body"])
    assert version["source"] == "baked" and version["model"]["version"] == "1"
    assert facts["source"] == "baked" and facts["bundle_digest"] == release.version("1").tags["bundle.digest"]


@pytest.mark.nightly
def test_a_second_build_has_the_same_files(release: Release) -> None:
    """Even after another promotion: both images hold what was recorded for the first."""
    record = Production(since=1e9, action="rollback", by="a test", why="version 2 failed", run_id="0")
    release.client.set_model_version_tag("flight-delay", "1", PRODUCTION_TAG, record.model_dump_json())
    assert re.search(r"same \d{4,} files", images.build_again(release.client, params.load(), release.image))
    bills = [audit.write_sbom(release.image).read_bytes() for _ in range(2)]
    assert bills[0] == bills[1], "the same image has the same bill of materials"


def test_a_tampered_model_stops_the_build(release: Release, tmp_path: Path) -> None:
    for name in ("Dockerfile", "requirements.txt", "app"):
        subprocess.run(["cp", "-r", str(release.path / name), str(tmp_path)], check=True)
    commands.export(release.client, params.load(), tmp_path / "model", "1")
    model, digest = tmp_path / "model" / "model.lgb", release.version("1").tags["bundle.digest"]
    model.write_bytes(model.read_bytes().replace(b"leaf_value=", b"leaf_value=1", 1))
    assert "does not match its manifest" in release.failed_build(tmp_path, digest)
    commands.export(release.client, params.load(), tmp_path / "model", "2")  # a whole model, but another one
    assert "does not match the registry" in release.failed_build(tmp_path, digest)


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        ("model-v9", "holds version 1"),
        ("model-v1-g0000000", "tag does not match"),
        ("model-v77", "is not on this engine: `make image`"),
    ],
)
def test_a_wrong_tag_is_refused(release: Release, tag: str, reason: str) -> None:
    name = f"{release.repository}:{tag}"
    if tag != "model-v77":
        run_docker("tag", release.image, name)
    for check in (images.facts_of, publish.publish_image):
        with pytest.raises(images.ImageRefused, match=reason):
            check(name)


def test_another_bundle_than_the_registry_s_is_refused(release: Release) -> None:
    facts = images.facts_of(release.image)
    with pytest.raises(images.ImageRefused, match="is not version 1 of the registry"):
        images.registered(release.client, facts | {"ai.on-time.model.bundle_digest": "0" * 64})


def test_what_no_commit_has_is_not_built(release: Release) -> None:
    file = release.path / "app" / "errors.py"
    content = file.read_text()
    file.write_text(content + "\n")
    with pytest.raises(images.ImageRefused, match=r"app/errors\.py differs from it: commit first"):
        images.committed()
    file.write_text(content)
    version = release.version("1")
    version.tags["dvc.md5.build/bundle"] = "0" * 32 + ".dir"
    with pytest.raises(images.ImageRefused, match="no commit's dvc.lock"):
        images.lock_of(version)


def test_smoke_refuses_another_model_than_labelled(release: Release) -> None:
    command = 'RUN sed -i \'s/"version": *"1"/"version": "2"/\' /srv/model/version.json'
    with pytest.raises(smoke.SmokeFailed, match="model.version: 1, 2"):
        smoke.smoke_test(release.derived(command, "e"), any_version=False)


def test_the_sbom_is_what_the_running_image_reports(release: Release) -> None:
    bill = json.loads(audit.write_sbom(release.image).read_text())
    packages = audit.packages_of(bill)
    assert len([name for name in packages if name.startswith("deb:")]) > 50
    locked = re.findall(r"^(lightgbm|fastapi)==([\w.]+)", (release.path / "requirements.txt").read_text(), re.MULTILINE)
    assert {f"pypi:{name}=={version}" for name, version in locked} <= packages and len(locked) == 2
    itself = bill["metadata"]["component"]
    identity = run_docker("image", "inspect", "--format", "{{.Id}}", release.image)
    assert (itself["name"], itself["version"]) == (release.repository, "model-v1")
    assert [f"sha256:{one['content']}" for one in itself["hashes"]] == [identity]

    package = "/hidden/late-1.0.dist-info"  # outside of site-packages, where the files are looked for
    add = f"mkdir -p {package} && printf 'Metadata-Version: 2.1\\nName: late\\nVersion: 1.0\\n' > {package}/METADATA"
    remove = "dpkg --purge --force-all libgomp1 && rm -r /opt/venv/lib/python3.11/site-packages/starlette-*"
    changed = release.derived(f"RUN {add} && {remove}\nENV PYTHONPATH=/hidden", "b")
    with pytest.raises(audit.AuditFailed) as refused:
        audit.check_sbom(bill, changed)
    for reason in ("late==1.0 is not listed", "libgomp1==", "starlette=="):
        assert reason in str(refused.value)


@dataclass
class Traffic:
    """50 requests a second, each on time whether or not the one before is answered."""

    url: str
    seen: Counter[tuple[int, str]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def send(self) -> None:
        """Send 5 requests a second until stopped; keep status and version."""
        with httpx.Client(timeout=20) as http:
            due = time.monotonic()
            while not self.stopped.is_set():
                try:
                    answer = http.post(f"{self.url}/predict", json=EXAMPLE)
                    self.seen[answer.status_code, answer.headers.get("X-Model-Version", "")] += 1
                    if answer.status_code != 200:
                        self.failures.append(f"{answer.status_code} {answer.text[:200]}")
                except httpx.HTTPError as err:
                    self.failures.append(repr(err))
                due += 0.2
                self.stopped.wait(max(0.0, due - time.monotonic()))

    def __enter__(self) -> Traffic:
        self.threads = [threading.Thread(target=self.send) for _ in range(10)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()


def wrapped(release: Release, letter: str, line: str) -> str:
    """Return an image whose service does something else before each request."""
    script = WRAPPER.format(line).replace("\n", "\\n").replace('"', '\\"')
    return release.derived(f'RUN printf "{script}" > app/__main__.py && rm app/__pycache__/__main__.*', letter)


def test_a_release_takes_over_and_goes_back(site: Site) -> None:
    """Without a failed request; both decisions are recorded."""
    release, image = site.release, site.release.build("2")
    with pytest.raises(images.ImageRefused, match="version 2 of flight-delay is not Production"):
        site.deploy(image)
    with Traffic(site.url) as traffic:
        release.promote("2")
        site.deploy(image)
        assert site.serving() == "2" and len(site.services()) == 1
        site.undeploy("1")
        assert site.serving() == "1" and release.production() == "1"
    assert not traffic.failures and traffic.seen[200, "1"] and traffic.seen[200, "2"]
    shown = history.describe_history(release.client, "flight-delay")
    assert "deploy" in shown and "undeploy" in shown and "a test" in shown


FAULTS = {
    "wrong answers": "scope['path'] = '/none' if scope.get('path') == '/predict' else scope.get('path')",
    "p95": "await asyncio.sleep(2)",
    "keeps running (before traffic)": "threading.Timer(5, os._exit, (1,)).start()",
}
NIGHTLY_FAULTS = ("p95", "keeps running (before traffic)", "ready")


@pytest.mark.parametrize(
    "reason", ["wrong answers", *(pytest.param(name, marks=pytest.mark.nightly) for name in NIGHTLY_FAULTS)]
)
def test_a_bad_release_never_gets_traffic(site: Site, reason: str) -> None:
    if reason == "ready":
        image = site.release.derived("RUN echo >> /srv/model/model.lgb", "d")
    else:
        image = wrapped(site.release, str(list(FAULTS).index(reason)), FAULTS[reason])
    before, colours = site.serving(), site.services()
    with Traffic(site.url) as traffic:
        with pytest.raises(Refused, match="still does") as refused:
            site.deploy(image, soak=8)
    assert reason in str(refused.value)
    assert not traffic.failures and set(traffic.seen) == {(200, before)}
    assert site.services() == colours and site.serving() == before
    last = history.describe_history(site.release.client, "flight-delay").splitlines()[-1]
    assert image in last and "refused" in last


def test_a_release_that_dies_under_traffic_is_covered(site: Site) -> None:
    """The proxy sends its requests to the release before, and the deployment switches back."""
    line = (
        "b'x-forwarded-for' in dict(scope.get('headers', [])) and not os.path.exists('/tmp/x') and "
        "(open('/tmp/x', 'w'), threading.Timer(2, os._exit, (1,)).start())"
    )
    image = wrapped(site.release, "5", line)
    with Traffic(site.url) as traffic:
        with pytest.raises(Refused, match=re.escape("keeps running (with traffic)")):
            site.deploy(image, soak=1, watch=40)
    assert not traffic.failures and site.serving() == "1" and len(site.services()) == 1


def test_two_deployments_at_once_are_not_possible(site: Site) -> None:
    name = f"{site.project}-deployment"
    run_docker("create", "--name", name, site.release.image)
    try:
        with pytest.raises(deploy.DeployFailed, match=f"docker rm {name}"):
            site.deploy(site.release.image)
    finally:
        run_docker("rm", name)


def test_the_proxy_hides_metrics_and_comes_back(site: Site) -> None:
    """After a restart it serves the last release; without it, a deployment fails and leaves what was there."""
    assert httpx.get(f"{site.url}/metrics", timeout=10).status_code == 404
    before = site.services()
    site.proxy("stop")
    with pytest.raises(docker.EngineFailed):
        site.deploy(site.release.image)
    assert site.services() == before
    site.proxy("start")
    wait_for("version 1 through the proxy", lambda: site.serving() == "1")


def test_an_image_is_pushed_and_deployed_by_its_digest(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = site.release
    programs = gh.install(tmp_path / "bin", tmp_path / "github.json", ROOT)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setenv("PRETEND_GITHUB", str(tmp_path / "github.json"))
    monkeypatch.setenv("GITHUB_REPOSITORY", "team/on-time")
    with image_registry(tmp_path) as address:
        name = f"{address}/team/{release.repository}"
        tag = f"{name}:model-v1-g{release.commit[:7]}"
        run_docker("tag", release.image, tag)
        image = publish.publish_image(tag)
        assert re.fullmatch(rf"{re.escape(name)}@sha256:[0-9a-f]{{64}}", image)
        with urllib.request.urlopen(f"http://{address}/v2/team/{release.repository}/tags/list", timeout=10) as answer:
            assert sorted(json.load(answer)["tags"]) == ["model-v1", f"model-v1-g{release.commit[:7]}"]
        run_docker("image", "rm", "--force", tag, f"{name}:model-v1")
        with pytest.raises(publish.PublishFailed, match=image.partition("@")[2]):
            publish.verify_image(f"{name}:model-v1")  # the tag was resolved, and nothing attested
        site.deploy(image, 1, 1)
        assert site.serving() == "1" and site.image() == image, "pulled and run by its digest"
        for colour in site.services():
            deploy.Site(site.project).remove(colour)
