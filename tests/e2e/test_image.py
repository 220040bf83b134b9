"""The image against a real engine: what is in it, how it runs, and what is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from app.interface import EXAMPLE, ROWS
from app.model.served import Production
from app.registry.version import PRODUCTION_TAG
from ops.cli.ci import NOT_SERVED
from ops.release import audit
from tests.support.processes import answers, free_port, wait_for
from tests.support.registry import Registry
from tests.support.release import Release, docker

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def smoked(release: Release) -> subprocess.CompletedProcess[str]:
    """The smoke test of the image of Production."""
    return release.run("release smoke", release.image)


def test_the_image_is_named_after_model_and_commit_and_never_latest(release: Release) -> None:
    tags = json.loads(docker("image", "inspect", "--format", "{{json .RepoTags}}", release.image))
    ours = sorted(
        tag.removeprefix(f"{release.repository}:") for tag in tags if tag.startswith(f"{release.repository}:")
    )
    assert ours == ["model-v1", f"model-v1-g{release.commit[:7]}"]


def test_the_labels_name_code_model_and_data(release: Release) -> None:
    labels = json.loads(docker("image", "inspect", "--format", "{{json .Config.Labels}}", release.image))
    oci = {key.rsplit(".", 1)[1]: value for key, value in labels.items() if key.startswith("org.opencontainers.image.")}
    assert oci["version"] == "model-v1" and oci["revision"] == release.commit
    assert oci["source"] == "https://git.example.com/team/on-time"  # the token in origin's address is not in it
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", oci["created"])
    assert labels["ai.on-time.model.bundle_digest"] == release.version("1").tags["bundle.digest"]
    assert labels["ai.on-time.model.run_id"] == release.version("1").run_id
    lock = (release.path / "dvc.lock").read_text()
    assert labels["ai.on-time.data.md5"] in lock


def test_smoke_finds_the_image_to_be_what_its_tag_says(smoked: subprocess.CompletedProcess[str]) -> None:
    assert smoked.returncode == 0, smoked.stderr
    assert "FAIL" not in smoked.stdout
    for name in ("golden", "processor seconds until ready", "p95 of /predict", "writes that succeeded"):
        assert name in smoked.stdout


def test_it_runs_as_a_numeric_user_and_the_file_system_cannot_be_written(release: Release) -> None:
    assert docker("image", "inspect", "--format", "{{.Config.User}}", release.image) == "10001"
    command = ["run", "--rm", "--read-only", "--tmpfs=/tmp", "--network=none", release.image, "sh", "-c", "touch /x"]
    done = subprocess.run(["docker", *command], capture_output=True, text=True, check=False)
    assert done.returncode and "Read-only file system" in done.stderr
    done = subprocess.run(["docker", "run", "--rm", release.image, "touch", "/srv/x"], capture_output=True, check=False)
    assert done.returncode, "without --read-only, the user can write to /srv"


def test_a_batch_is_journaled_where_no_folder_takes_temporary_files(release: Release, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)  # the container's user has no rights on the host
    journal = ["--env=ONTIME_JOURNAL_URL=sqlite:////journal/journal.db", f"--volume={tmp_path}:/journal"]
    code = f"""import json, urllib.request
body = json.dumps({{{ROWS!r}: [{EXAMPLE!r}] * 1000}}).encode()
request = urllib.request.Request("http://127.0.0.1:8000/predict/batch", body, {{"Content-Type": "application/json"}})
print(urllib.request.urlopen(request).status)"""
    with release.container(release.image, *journal) as name:
        assert release.probe(name, "wait", "20")["status"] == 200
        assert docker("exec", name, "python", "-c", code) == "200"
        written = "journal_written_total 1000.0"
        wait_for(written, lambda: written in release.probe(name, "get", "/metrics")["body"], 20)


def test_it_holds_what_requirements_lock_and_nothing_more(release: Release) -> None:
    code = "import importlib.metadata as m; print(*{d.name.lower().replace('_', '-') for d in m.distributions()})"
    command = ["docker", "run", "--rm", "--network=none", release.image, "python", "-c", code]
    found = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    text = (release.path / "requirements.txt").read_text()
    locked = {name.lower() for name in re.findall(r"^([\w.-]+)==", text, re.MULTILINE)}
    assert found - locked == set()
    assert {"lightgbm", "fastapi", "psycopg"} <= found and not found & {"pandas", "scikit-learn", "scipy", "dvc", "pip"}
    assert not found & {name for names in NOT_SERVED.values() for name in names}


def test_nothing_is_missing_to_predict_explain_and_follow_the_registry(
    release: Release, bundle_dir: Path, tmp_path: Path
) -> None:
    port, registry = free_port(), Registry(tmp_path, f"http://127.0.0.1:{free_port()}", {})
    settings = {"MLFLOW_TRACKING_URI": registry.uri, "ONTIME_PORT": str(port)}
    settings |= {"ONTIME_JOURNAL_URL": "sqlite:////tmp/journal.db", "ONTIME_REFRESH_SECONDS": "0.2"}
    options = ["--network=host", "--tmpfs=/tmp", *(f"--env={name}={value}" for name, value in settings.items())]
    base = f"http://127.0.0.1:{port}"
    with release.container(release.image, *options) as name:
        wait_for("the copy in the image is served", lambda: answers(f"{base}/readyz"), 20)
        with registry.server(int(registry.uri.rpartition(":")[2])):
            registry.publish(bundle_dir)
            registry.point("1")
            wait_for("its version is served", lambda: httpx.get(f"{base}/version").json()["source"] == "registry", 60)
        explained = httpx.post(f"{base}/predict?explain=true", json=EXAMPLE).raise_for_status().json()
        batch = httpx.post(f"{base}/predict/batch", json={ROWS: [EXAMPLE] * 200}).raise_for_status().json()
        assert {one["probability"] for one in batch["predictions"]} == {explained["probability"]}
        assert explained["explanation"] and httpx.get(f"{base}/docs").status_code == 200
        log = subprocess.run(["docker", "logs", name], capture_output=True, text=True, check=True).stderr
        assert "No module named" not in log and "Traceback" not in log


def test_the_layers_above_the_base_stay_small(release: Release) -> None:
    base = os.environ.get("BASE_IMAGE") or "python:3.11-slim-bookworm"
    sizes = [int(docker("image", "inspect", "--format", "{{.Size}}", name)) for name in (release.image, base)]
    assert sizes[0] - sizes[1] <= 200 * MEGABYTE


def test_it_starts_while_the_registry_is_unreachable(release: Release) -> None:
    uri = "http://192.0.2.1:5000"  # an address for documentation: nobody answers there
    with release.container(release.image, "--env", f"MLFLOW_TRACKING_URI={uri}") as name:
        assert release.probe(name, "wait", "20")["status"] == 200
        version = json.loads(release.probe(name, "get", "/version")["body"])
    assert version["source"] == "baked" and version["model"]["version"] == "1"


def test_the_page_is_complete_without_a_registry_and_a_network(release: Release) -> None:
    with release.container(release.image) as name:
        assert release.probe(name, "wait", "20")["status"] == 200
        page = release.probe(name, "get", "/")["body"]
        files = re.findall(r'(?:src|href)="(page/static/[^"]+)"', page)
        assert len(files) == 3
        assert all(release.probe(name, "get", f"/{file}")["status"] == 200 for file in files)
        facts = json.loads(release.probe(name, "get", "/page/model")["body"])
    assert facts["source"] == "baked" and facts["bundle_digest"] == release.version("1").tags["bundle.digest"]


def test_a_second_build_has_the_same_files_even_after_another_promotion(release: Release) -> None:
    record = Production(since=1e9, action="rollback", by="a test", why="version 2 failed", run_id="0")
    release.client.set_model_version_tag("flight-delay", "1", PRODUCTION_TAG, record.model_dump_json())
    done = release.run("release rebuild", release.image)
    assert done.returncode == 0 and re.search(r"same \d{4,} files", done.stdout), done.stderr


def test_a_tampered_model_in_the_context_stops_the_build(release: Release, tmp_path: Path) -> None:
    for name in ("Dockerfile", "requirements.txt", "app"):
        subprocess.run(["cp", "-r", str(release.path / name), str(tmp_path)], check=True)
    assert release.run("model export", str(tmp_path / "model")).returncode == 0
    model = tmp_path / "model" / "model.lgb"
    digest = release.version("1").tags["bundle.digest"]
    model.write_bytes(model.read_bytes().replace(b"leaf_value=", b"leaf_value=1", 1))
    assert "does not match its manifest" in release.failed_build(tmp_path, digest)
    release.run("model export", str(tmp_path / "model"), "--version", "2")  # a whole model, but another one
    assert "does not match the registry" in release.failed_build(tmp_path, digest)


def test_a_version_that_is_not_production_is_refused(release: Release) -> None:
    image = release.renamed("2")
    done = release.run("release smoke", image)
    assert done.returncode == 3 and "version 2 of flight-delay is not Production (version 1 is)" in done.stderr
    done = release.run("release image", "--version", "99")
    assert done.returncode == 1 and "no version 99" in done.stderr


def test_a_tag_that_does_not_match_is_refused(release: Release) -> None:
    for wrong, reason in ((":model-v9", "holds version 1"), (":model-v1-g0000000", f"of commit {release.commit[:7]}")):
        docker("tag", release.image, release.repository + wrong)
        done = release.run("release smoke", release.repository + wrong)
        docker("image", "rm", release.repository + wrong)
        assert done.returncode == 3 and reason in done.stderr and "tag does not match" in done.stderr
    done = release.run("release smoke", f"{release.repository}:model-v77")
    assert done.returncode == 3 and "make image" in done.stderr


def test_an_image_whose_labels_say_another_bundle_than_the_registry_is_refused(release: Release) -> None:
    image = release.derived(f"LABEL ai.on-time.model.bundle_digest={'0' * 64}", "model-v1-gfffffff", revision="f" * 40)
    done = release.run("release smoke", image)
    assert done.returncode == 3 and "is not version 1 of the registry" in done.stderr


def test_smoke_refuses_an_image_that_serves_another_model_than_its_labels_say(release: Release) -> None:
    command = 'RUN sed -i \'s/"version": *"1"/"version": "2"/\' /srv/model/version.json'
    image = release.derived(f"USER 0\n{command}\nUSER 10001", "model-v1-geeeeeee", revision="e" * 40)
    done = release.run("release smoke", image)
    assert done.returncode == 3 and "model.version: 1, 2" in done.stderr


def test_uncommitted_files_are_not_built(release: Release) -> None:
    file = release.path / "app" / "errors.py"
    content = file.read_text()
    file.write_text(content + "\n")
    done = release.run("release image")
    file.write_text(content)
    assert done.returncode == 3 and "app/errors.py" in done.stderr and "commit" in done.stderr


def test_a_model_that_no_commit_makes_is_not_built(release: Release) -> None:
    version = release.version("1")
    key = "dvc.md5.build/bundle"
    release.client.set_model_version_tag(version.name, version.version, key, "0" * 32 + ".dir")
    done = release.run("release image")
    release.client.set_model_version_tag(version.name, version.version, key, version.tags[key])
    assert done.returncode == 3 and "no commit's dvc.lock" in done.stderr


@pytest.fixture(scope="module")
def bill(release: Release) -> dict[str, Any]:
    """The bill of materials of the image of Production."""
    return written_bill(release, release.image)


def written_bill(release: Release, image: str) -> dict[str, Any]:
    """Write the bill of materials of an image and return it."""
    done = release.run("release sbom", image)
    assert done.returncode == 0, done.stderr
    return dict(json.loads((release.path / done.stdout.split()[0]).read_text()))


def test_the_bill_of_materials_is_what_dpkg_and_pip_list_in_the_running_image(
    release: Release, bill: dict[str, Any]
) -> None:
    components = bill["components"]
    debian = {(c["name"], c["version"]) for c in components if c.get("purl", "").startswith("pkg:deb/debian/")}
    rows = [line.split() for line in docker("run", "--rm", release.image, "dpkg", "--list").splitlines()]
    assert debian == {(row[1].partition(":")[0], row[2]) for row in rows if row[0] == "ii"} and len(debian) > 50
    python = {f"{c['name']}=={c['version']}" for c in components if c.get("purl", "").startswith("pkg:pypi/")}
    pip = ["run", "--rm", "--network=none", "--entrypoint=pip", release.image]
    options = ["list", "--format=freeze", "--disable-pip-version-check"]
    installed = [docker(*pip, *which, *options).split() for which in ([], ["--python", "/opt/venv/bin/python"])]
    assert python == {*installed[0], *installed[1]} and len(installed[1]) > 30
    others = {c["name"]: c["type"] for c in components if c.get("purl", "")[:8] not in ("pkg:deb/", "pkg:pypi")}
    assert others == {"debian": "operating-system", "python": "application"}
    itself = bill["metadata"]["component"]
    identity = docker("image", "inspect", "--format", "{{.Id}}", release.image)
    assert (itself["name"], itself["version"]) == (release.repository, "model-v1")
    assert [f"sha256:{h['content']}" for h in itself["hashes"]] == [identity]
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(json.dumps(bill)) is None
    assert validator.validate_str(json.dumps(bill | {"components": [{"type": "thing"}]}))


def test_a_bill_of_materials_that_misses_or_adds_a_package_is_refused(release: Release, bill: dict[str, Any]) -> None:
    folder = "/opt/venv/lib/python3.11/site-packages"
    package = "mkdir -p {0}/late-1.0.dist-info && printf 'Metadata-Version: 2.1\\nName: late\\nVersion: 1.0\\n' > {0}"
    add = f"RUN {package}/late-1.0.dist-info/METADATA".format(folder)
    debian = "dpkg --purge --force-all libgomp1"
    changed = release.derived(
        f"USER 0\n{add} && {debian} && rm -r {folder}/starlette-*", "model-v1-gababab1", "ababab1"
    )
    with pytest.raises(audit.AuditFailed) as refused:
        audit.check_sbom(bill, changed)
    for reason in ("late==1.0 is not listed", "libgomp1:", "starlette=="):
        assert reason in str(refused.value)
    names = {c["name"] for c in written_bill(release, changed)["components"]}
    assert "late" in names and not names & {"libgomp1", "starlette"}
    hidden = release.derived(
        f"USER 0\n{add}\nENV PYTHONPATH=/hidden".replace(folder, "/hidden"), "model-v1-gababab2", "ababab2"
    )
    done = release.run("release sbom", hidden)
    assert done.returncode == 3 and "late==1.0 is not listed" in done.stderr
    assert not list(release.path.glob("build/sbom-*ababab2*"))
