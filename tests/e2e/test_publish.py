"""An image pushed to a real registry, Debian's docker-registry, and taken back by its digest."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support import gh
from tests.support.release import Release, docker
from tests.support.sites import image_registry, running_site


@pytest.fixture(scope="module")
def registry(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a registry that is empty; the image of version 1 has a name there."""
    with image_registry(tmp_path_factory.mktemp("images")) as address:
        docker("tag", release.image, f"{address}/team/{release.image}")
        yield address


def test_an_image_is_pushed_under_its_version_and_found_by_its_digest(
    release: Release, registry: str, tmp_path: Path
) -> None:
    image = f"{registry}/team/{release.image}"
    done = release.run("release publish", image, GITHUB_OUTPUT=str(tmp_path / "output"))
    assert done.returncode == 0, done.stderr
    said = dict(line.split("=", 1) for line in (tmp_path / "output").read_text().splitlines())
    name = image.rpartition(":")[0]
    assert said["image"] == f"{name}@{said['digest']}" and said["image"] in done.stdout
    with urllib.request.urlopen(f"http://{registry}/v2/{name.partition('/')[2]}/tags/list", timeout=10) as answer:
        assert sorted(json.load(answer)["tags"]) == ["model-v1", f"model-v1-g{release.commit[:7]}"]

    docker("image", "rm", "--force", image, f"{name}:model-v1")
    programs = gh.install(tmp_path / "bin", tmp_path / "github.json", ROOT)
    environment = {"PRETEND_GITHUB": str(tmp_path / "github.json"), "GITHUB_REPOSITORY": "team/on-time"}
    environment |= {"IMAGE_NAME": name, "PATH": f"{programs}:/usr/bin:/bin"}
    refused = release.run("release verify", "--version", "1", **environment)
    assert refused.returncode == 1 and said["digest"] in refused.stderr, "the tag was resolved, and nothing attested"

    smoked = release.run("release smoke", said["image"])
    assert smoked.returncode == 0, smoked.stderr

    image = said["image"]
    docker("image", "rm", "--force", image)
    with running_site(release, "publish") as site:
        for order in (["deploy", image], ["undeploy", "--version", "1", "--reason", "a test", "--image", image]):
            done = site.deploy(*order, "--soak", "1", "--watch", "1")
            assert done.returncode == 0, done.stderr
            assert site.serving() == "1" and site.image() == image, "pulled and run by its digest"


def test_an_image_whose_tag_is_not_its_version_is_not_pushed(release: Release, registry: str) -> None:
    wrong = f"{registry}/team/{release.repository}:model-v9"
    docker("tag", release.image, wrong)
    done = release.run("release publish", wrong)
    assert done.returncode == 3 and "the tag does not match" in done.stderr
