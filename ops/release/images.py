"""`make image`: one commit's code and one version of the model as an image that is named after both."""

import hashlib
import json
import os
import re
import shlex
import tarfile
import tempfile
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from python_on_whales import docker
from python_on_whales.exceptions import NoSuchImage

from app.errors import Refused
from app.interface import NAME
from app.registry.registered import VERSION_FILE, load
from ops.registry import commands
from ops.registry.aliases import PRODUCTION, by_alias
from ops.release.docker import BY_DIGEST, REPOSITORY, engine_errors, execute
from stages.base.git import git, show
from stages.params import Params
from stages.tracking import mlflow_runs

BASE_IMAGE = os.environ.get("BASE_IMAGE") or "python:3.11-slim-bookworm"
CONTEXT = (
    *("Dockerfile", ".dockerignore", "requirements.txt", "requirements-monitor.txt"),
    *("app", "stages", "ops", "params.yaml", "data.dvc", "dvc.yaml", "dvc.lock", "pyproject.toml"),
)
ADDRESS = re.compile(r"(?:https?://(?:[^@/]+@)?|ssh://(?:[^@/]+@)?|[^@/]+@)([\w.-]+)[:/](.+?)(?:\.git)?/?")
OCI, OURS = "org.opencontainers.image.", "ai.on-time."
PROMOTION = ("alias", "production")
"""Fields of a version's record that a later promotion changes."""


class ImageRefused(Refused):
    """An image that must not be built, or whose name and content differ."""


def committed() -> str:
    """Return the commit; refuse while a file that goes into the image differs from it."""
    names = [line[3:] for line in git("status", "--porcelain", "--", *CONTEXT).splitlines()]
    if names:
        changed = ", ".join(names[:5])
        raise ImageRefused(f"the image is named after a commit, but {changed} differs from it: commit first.")
    return git("rev-parse", "HEAD").strip()


def lock_of(version: ModelVersion) -> str:
    """Return the dvc.lock that makes this version's bundle; refuse a version that no commit can make again."""
    md5 = version.tags.get("dvc.md5.build/bundle", "unknown")
    commits = git("log", "--reverse", "--format=%H", f"-S{md5}", "--", "dvc.lock").split()
    if not commits:
        raise ImageRefused(
            f"no commit's dvc.lock makes version {version.version} of {version.name} (bundle {md5}): "
            "commit dvc.lock with the change that made it."
        )
    return show(commits[0], Path("dvc.lock")) or ""


def source() -> str:
    """Return the repository's web address, without a user's name or token; empty when there is none."""
    url = git("remote", "get-url", "origin") if "origin" in git("remote").split() else ""
    found = ADDRESS.fullmatch(url.strip())
    return f"https://{found[1]}/{found[2]}" if found else ""


def labels(version: ModelVersion, commit: str, base: str) -> dict[str, str]:
    """Return the labels: where the image's code and its model come from."""
    project = tomllib.loads(git("show", f"{commit}:pyproject.toml"))["project"]
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or git("show", "--no-patch", "--format=%ct", commit))
    facts = {
        f"{OCI}title": project["name"],
        f"{OCI}description": project["description"],
        f"{OCI}version": f"model-v{version.version}",
        f"{OCI}revision": commit,
        f"{OCI}created": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        f"{OCI}source": source(),
        f"{OCI}licenses": str(project.get("license", "")),
        f"{OCI}base.name": base,
        f"{OURS}model.name": version.name,
        f"{OURS}model.version": str(version.version),
        f"{OURS}model.run_id": version.run_id or "",
        f"{OURS}model.bundle_digest": version.tags[mlflow_runs.DIGEST_TAG],
        f"{OURS}data.md5": version.tags.get("dvc.md5.data", ""),
        f"{OURS}dvc.lock.sha256": hashlib.sha256(lock_of(version).encode()).hexdigest(),
    }
    return {name: value for name, value in facts.items() if value}


def context(folder: Path, commit: str) -> None:
    """Write the commit's files for the build."""
    names = git("ls-tree", "--name-only", commit, "--", *CONTEXT).split()
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        git("archive", "--output", file.name, commit, "--", *names)
        with tarfile.open(file.name) as archive:
            archive.extractall(folder, filter="data")


def check_model(folder: Path, version: ModelVersion) -> None:
    """Refuse a context whose model is not the version that the image will be named after."""
    found, digest = load(folder, "baked"), version.tags[mlflow_runs.DIGEST_TAG]
    if (found.version, found.bundle.digest) != (str(version.version), digest):
        raise ImageRefused(f"{folder} holds version {found.version}, not {version.version} with digest {digest[:12]}….")


def build(
    client: MlflowClient,
    p: Params,
    number: str | None,
    tags: list[str] | None = None,
    promotion: dict[str, Any] | None = None,
) -> str:
    """Build the image of Production, or of the version `number`; return its immutable tag.

    `promotion`, the fields of PROMOTION in an image, replaces those of the registry, and the build uses no cache.
    """
    commit = committed()
    with tempfile.TemporaryDirectory(prefix="on-time-image-") as scratch:
        folder = Path(scratch)
        context(folder, commit)
        commands.export(client, p, folder / "model", number)
        record = folder / "model" / VERSION_FILE
        known = json.loads(record.read_text(encoding="utf-8")) | (promotion or {})
        record.write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        version = client.get_model_version(NAME, known["version"])
        check_model(folder / "model", version)
        name = f"{REPOSITORY}:model-v{version.version}"
        tags = tags or [name, f"{name}-g{commit[:7]}"]
        facts = labels(version, commit, BASE_IMAGE)
        arguments = {"BASE": BASE_IMAGE, "BUNDLE_DIGEST": facts[f"{OURS}model.bundle_digest"], "COMMIT": commit}
        _docker_build(folder, "service", tags, facts, arguments, promotion is not None)
    return tags[-1]


def build_tools() -> str:
    """Build the image of the drift monitor and of MLflow's server; return its tag, which names the commit."""
    commit = committed()
    tag = f"{REPOSITORY}-tools:g{commit[:7]}"
    facts = {f"{OCI}title": f"{REPOSITORY}-tools", f"{OCI}revision": commit, f"{OCI}source": source()}
    with tempfile.TemporaryDirectory(prefix="on-time-image-") as scratch:
        context(Path(scratch), commit)
        arguments = {"BASE": BASE_IMAGE, "REQUIREMENTS": "requirements-monitor.txt"}
        _docker_build(Path(scratch), "monitor", [tag], facts, arguments)
    return tag


def _docker_build(
    folder: Path, target: str, tags: list[str], facts: dict[str, str], arguments: dict[str, str], fresh: bool = False
) -> None:
    """Build by Docker's command: DOCKER_BUILD_FLAGS takes every flag of the builder that is installed."""
    for path in folder.rglob("*"):  # the same modes, whatever the umask is
        path.chmod(0o755 if path.is_dir() else 0o644)
    options = [f"--tag={tag}" for tag in tags]
    if fresh:
        options.append("--no-cache")
    options += [f"--build-arg={key}={value}" for key, value in arguments.items()]
    options += [f"--label={key}={value}" for key, value in facts.items()]
    flags = shlex.split(os.environ.get("DOCKER_BUILD_FLAGS", ""))
    execute(["docker", "build", f"--target={target}", *flags, *options, str(folder)], shown=True)


def files(image: str) -> dict[str, tuple[object, ...]]:
    """Return by layer and path: type, mode, owner, target of a link, SHA-256 of the content."""
    found: dict[str, tuple[object, ...]] = {}
    with tempfile.TemporaryDirectory(prefix="on-time-image-") as scratch:
        docker.image.save(image, output=f"{scratch}/image.tar")
        with tarfile.open(f"{scratch}/image.tar") as saved:
            manifest = saved.extractfile("manifest.json")
            assert manifest is not None
            for i, name in enumerate(json.load(manifest)[0]["Layers"]):
                with tarfile.open(fileobj=saved.extractfile(name)) as layer:
                    found |= {f"layer {i}: {member.name}": _facts(layer, member) for member in layer}
    return found


def _facts(layer: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[object, ...]:
    content = layer.extractfile(member) if member.isfile() else None
    digest = hashlib.file_digest(content, "sha256").hexdigest() if content else ""  # type: ignore[arg-type]
    return member.type, member.mode, member.uid, member.gid, member.linkname, digest


@engine_errors()
def build_again(client: MlflowClient, p: Params, image: str) -> str:
    """Build an image a second time without any cache, and compare all files; raise ImageRefused if one differs.

    The version may have been promoted again, or replaced, since: both images hold what was recorded for the first.
    """
    known = facts_of(image)
    if known[f"{OCI}revision"] != committed():
        raise ImageRefused(f"{image} is of commit {known[f'{OCI}revision'][:7]}: check that one out first.")
    copy = f"{REPOSITORY}:again-{os.getpid()}"
    try:
        record = json.loads(docker.run(image, ["cat", f"model/{VERSION_FILE}"], remove=True))
        promotion = {name: record[name] for name in PROMOTION if name in record}
        build(client, p, known[f"{OURS}model.version"], [copy], promotion)
        before, after = files(image), files(copy)
    finally:
        if docker.image.exists(copy):
            docker.image.remove(copy)
    different = sorted(path for path in before | after if before.get(path) != after.get(path))
    if different:
        raise ImageRefused(f"a second build of {image} differs in {len(different)} files: {', '.join(different[:5])}.")
    return f"A second build of {image}, without cache, has the same {len(after)} files."


def _labels(image: str) -> dict[str, str]:
    config = docker.image.inspect(image).config
    return dict(config.labels or {}) if config else {}


@engine_errors()
def facts_of(image: str) -> dict[str, str]:
    """Return an image's labels; refuse one that is not on the engine, not ours, or whose tag does not match them."""
    try:
        found = _labels(image)
    except NoSuchImage as err:
        raise ImageRefused(f"{image} is not on this engine: `make image` builds it.") from err
    required = (f"{OURS}model.version", f"{OURS}model.bundle_digest", f"{OCI}revision")
    missing = [name for name in required if name not in found]
    if missing:
        raise ImageRefused(f"{image} lacks the label {missing[0]}: `make image` has not built it.")
    version, commit = found[f"{OURS}model.version"], found[f"{OCI}revision"][:7]
    tag = image.rpartition(":")[2]
    if not BY_DIGEST.fullmatch(image) and tag not in (f"model-v{version}", f"model-v{version}-g{commit}"):
        raise ImageRefused(
            f"{image} holds version {version} and is of commit {commit}: the tag does not match. Its tag is "
            f"model-v{version} or model-v{version}-g{commit}; a name by its digest needs none."
        )
    return found


def registered(client: MlflowClient, facts: dict[str, str], alias: str = PRODUCTION) -> ModelVersion:
    """Return the version in the registry that an image holds; refuse another bundle, or one without the alias."""
    name, number = facts[f"{OURS}model.name"], facts[f"{OURS}model.version"]
    version = commands.find_version(client, name, number, "", "`make history` shows them")
    digest = version.tags.get(mlflow_runs.DIGEST_TAG, "none")
    if digest != facts[f"{OURS}model.bundle_digest"]:
        other = f"version {number} of the registry, whose digest is {digest[:12]}…"
        raise ImageRefused(f"the image's bundle is not {other}.")
    holder = by_alias(client, name, alias) if alias else version
    if holder is None or holder.version != version.version:
        now = f"version {holder.version} is" if holder else "none is"
        advice = "take the image of the version that is"
        if alias == PRODUCTION:
            advice = f"`make promote VERSION={number}`, or {advice}"
        raise ImageRefused(f"version {number} of {name} is not {alias.title()} ({now}): {advice}.")
    return version


@engine_errors()
def size_above_base(image: str) -> int:
    """Return the bytes that an image adds to its base."""
    base = _labels(image).get(f"{OCI}base.name", "")
    sizes = [docker.image.inspect(name).size or 0 for name in (image, base) if docker.image.exists(name)]
    return sizes[0] - sum(sizes[1:])
