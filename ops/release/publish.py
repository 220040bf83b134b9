"""`on-time release publish` and `verify`: an image in the shared registry, and whether it may leave it again.

What is pushed is found by its digest from then on: a tag can be moved, a digest cannot. Before it is deployed, GitHub
must hold two attestations of that digest, signed by the workflow that releases: where it was built, and what is in it.
"""

from __future__ import annotations

import re

from app.errors import OnTimeError
from ops.ci.github import GitHubRefused, gh, output, setting
from ops.release import image as images
from ops.release.docker import docker

SIGNER = ".github/workflows/release.yml"
PREDICATES = {"provenance": "https://slsa.dev/provenance/v1", "bill of materials": "https://cyclonedx.org/bom"}
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class PublishFailed(OnTimeError):
    """An image is not in the registry, or nothing proves where it comes from."""

    exit_code = 15


def _digest(said: str, image: str) -> str:
    """Return the last digest that docker has named; raise PublishFailed without one."""
    found = DIGEST.findall(said)
    if not found:
        raise PublishFailed(f"docker named no digest for {image}: {said[-200:]}")
    return str(found[-1])


def publish(image: str) -> str:
    """Push an image by its own tag and by its model's version; return it by its digest."""
    version = images.facts_of(image)[f"{images.OURS}model.version"]
    name = image.rpartition(":")[0]
    tag = f"{name}:model-v{version}"
    digest = _digest(docker("push", image), image)
    docker("tag", image, tag)
    moved = _digest(docker("push", tag), tag)
    if moved != digest:
        raise PublishFailed(f"{image} is {digest}, {tag} is {moved}: another release pushes. Run it again.")
    output(name=name, digest=digest, image=f"{name}@{digest}")
    return f"{name}@{digest}"


def verify(image: str) -> str:
    """Return an image by its digest if the release of this repository has attested it; raise PublishFailed if not."""
    name = image.partition("@")[0] if "@" in image else image.rpartition(":")[0]
    found = f"{name}@{_digest(image if '@' in image else docker('pull', image), image)}"
    repository = setting("GITHUB_REPOSITORY")
    for what, predicate in PREDICATES.items():
        signed = ["--repo", repository, "--signer-workflow", f"{repository}/{SIGNER}", "--predicate-type", predicate]
        try:
            gh("attestation", "verify", f"oci://{found}", *signed)
        except GitHubRefused as err:
            raise PublishFailed(f"{found} has no {what} that {SIGNER} has signed; it is not deployed. {err}") from err
    output(image=found)
    return found
