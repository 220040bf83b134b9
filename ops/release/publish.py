"""`on-time release publish` and `verify`: an image in the shared registry, and whether it may leave it again.

What is pushed is found by its digest from then on: a tag can be moved, a digest cannot. Before it is deployed, GitHub
must hold two attestations of that digest, signed by the workflow that releases: provenance, and bill of materials.
"""

from python_on_whales import docker

from app.errors import OnTimeError
from ops.ci.github import GitHubRefused, gh, output, setting
from ops.release import images
from ops.release.docker import BY_DIGEST, engine_errors

SIGNER = ".github/workflows/release.yml"
PREDICATES = {"provenance": "https://slsa.dev/provenance/v1", "bill of materials": "https://cyclonedx.org/bom"}


class PublishFailed(OnTimeError):
    """An image is not in the registry, or nothing proves where it comes from."""


def _by_digest(name: str, image: str) -> str:
    """Return an image by the digest that it has in the registry of `name`; raise PublishFailed without one."""
    known = docker.image.inspect(image).repo_digests or []
    found = next((digest for digest in known if digest.startswith(f"{name}@")), None)
    if found is None:
        raise PublishFailed(f"{image} has no digest in the registry of {name}.")
    return found


@engine_errors()
def publish_image(image: str) -> str:
    """Push an image by its own tag and by its model's version; return it by its digest."""
    version = images.facts_of(image)[f"{images.OURS}model.version"]
    name = image.rpartition(":")[0]
    docker.image.tag(image, f"{name}:model-v{version}")
    for tag in (image, f"{name}:model-v{version}"):
        docker.image.push(tag, quiet=True)
    found = _by_digest(name, image)
    output(name=name, digest=found.partition("@")[2], image=found)
    return found


@engine_errors()
def verify_image(image: str) -> str:
    """Return an image by its digest if the release of this repository has attested it; raise PublishFailed if not."""
    found = image
    if "@" not in image:
        docker.image.pull(image, quiet=True)
        found = _by_digest(image.rpartition(":")[0], image)
    if not BY_DIGEST.fullmatch(found):
        raise PublishFailed(f"{found} is not an image by its digest: NAME@sha256:<64 hexadecimal digits>.")
    repository = setting("GITHUB_REPOSITORY")
    for what, predicate in PREDICATES.items():
        signed = ["--repo", repository, "--signer-workflow", f"{repository}/{SIGNER}", "--predicate-type", predicate]
        try:
            gh("attestation", "verify", f"oci://{found}", *signed)
        except GitHubRefused as err:
            raise PublishFailed(f"{found} has no {what} that {SIGNER} has signed; it is not deployed. {err}") from err
    output(image=found)
    return found
