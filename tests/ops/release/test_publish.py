"""What leaves the registry of images: only what a release of this repository has attested, and only as what it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ops.registry.aliases import PRODUCTION, STAGING
from ops.release import images, publish
from stages.tracking import mlflow_runs
from tests.conftest import ROOT
from tests.support.promotion import Bench
from tests.support.servers import gh

DIGEST = f"sha256:{'a' * 64}"
IMAGE = f"ghcr.io/team/on-time@{DIGEST}"
PROVENANCE, SBOM = publish.PREDICATES.values()


@pytest.fixture
def attest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A GitHub that knows these attestations of the digest, and no others."""
    programs = gh.install(tmp_path / "bin", tmp_path / "github.json", ROOT)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setenv("PRETEND_GITHUB", str(tmp_path / "github.json"))
    monkeypatch.setenv("GITHUB_REPOSITORY", "team/on-time")
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))

    def known(*predicates: str) -> None:
        gh.write(gh.EMPTY | {"attested": [f"{DIGEST} {predicate}" for predicate in predicates]})

    return known


@pytest.mark.parametrize(
    ("predicates", "image", "missing"),
    [
        ((PROVENANCE, SBOM), IMAGE, ""),
        ((), IMAGE, "has no provenance"),
        ((PROVENANCE,), IMAGE, "has no bill of materials"),
        ((SBOM,), IMAGE, "has no provenance"),
        ((PROVENANCE, SBOM), IMAGE.replace("a" * 64, "b" * 64), "has no provenance"),
        ((PROVENANCE, SBOM), "on-time@sha256:abc", "not an image by its digest"),
    ],
)
def test_both_attestations_allow_a_deployment(
    attest: Callable[..., None], predicates: tuple[str, ...], image: str, missing: str, tmp_path: Path
) -> None:
    attest(*predicates)
    if missing:
        with pytest.raises(publish.PublishFailed, match=missing):
            publish.verify_image(image)
        assert not (tmp_path / "output").exists()
    else:
        assert publish.verify_image(image) == image
        assert (tmp_path / "output").read_text() == f"image={image}\n"


def test_the_release_of_this_repository_must_sign(attest: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    attest(PROVENANCE, SBOM)
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(publish, "gh", lambda *arguments: asked.append(arguments))
    publish.verify_image(IMAGE)
    for arguments in asked:
        assert arguments[arguments.index("--repo") + 1] == "team/on-time"
        assert arguments[arguments.index("--signer-workflow") + 1] == "team/on-time/.github/workflows/release.yml"
    assert (ROOT / publish.SIGNER).is_file() and len(asked) == 2


def test_staging_and_production_take_their_versions(bench: Bench) -> None:
    name, newest, other = "flight-delay", bench.versions["broken slice"], bench.versions["good"]
    bench.client.set_registered_model_alias(name, PRODUCTION, other)
    facts = {
        number: {
            f"{images.OURS}model.name": name,
            f"{images.OURS}model.version": number,
            f"{images.OURS}model.bundle_digest": bench.client.get_model_version(name, number).tags[
                mlflow_runs.DIGEST_TAG
            ],
        }
        for number in (newest, other)
    }
    assert str(images.registered(bench.client, facts[newest], STAGING).version) == newest
    assert str(images.registered(bench.client, facts[other]).version) == other
    assert str(images.registered(bench.client, facts[newest], "").version) == newest
    for number, alias in ((newest, PRODUCTION), (other, STAGING)):
        with pytest.raises(images.ImageRefused, match=f"version {number} of {name} is not {alias.title()}"):
            images.registered(bench.client, facts[number], alias)
