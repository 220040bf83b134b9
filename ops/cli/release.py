"""`on-time release`: build, check, publish and deploy the image of a model version."""

# pylint: disable=import-outside-toplevel # a command imports what it runs

import click

from ops.cli.base import AMOUNT, VERSION, Group, host_option, version_option

group = Group()
image_argument = click.argument("image")


@group.verb("on-time release image --version 2", "Docker's images", name="image")
@version_option
def build(version: str | None) -> None:
    """Build the image of the Production version, or of another one, named after it; never `latest`."""
    from ops.ci.github import output
    from ops.release import images
    from stages import params
    from stages.tracking import mlflow_runs

    name = images.build(mlflow_runs.connect(), params.load(), version)
    output(image=name)
    size = images.size_above_base(name) / 1e6
    click.echo(f"{name} is built, {size:.0f} MB above its base. `on-time release smoke {name}` tests it.")


@group.verb("on-time release tools", "Docker's images")
def tools() -> None:
    """Build the image of the drift monitor and of MLflow's server, named after the commit."""
    from ops.release import images

    click.echo(f"{images.build_tools()} is built; ONTIME_TOOLS_IMAGE names it to ops/stack/compose.")


@group.verb("on-time release rebuild on-time:model-v2-g1a2b3c4", "nothing")
@image_argument
def rebuild(image: str) -> None:
    """Build IMAGE a second time without cache, and compare every file."""
    from ops.release.images import build_again
    from stages import params
    from stages.tracking import mlflow_runs

    click.echo(build_again(mlflow_runs.connect(), params.load(), image))


@group.verb("on-time release smoke on-time:model-v2-g1a2b3c4", "nothing")
@image_argument
@click.option("--any-version", is_flag=True, help="Accept a version that is not Production.")
def smoke(image: str, any_version: bool) -> None:
    """Run IMAGE as production does, without network, and compare it with its tag, its labels and the registry."""
    from ops.release.smoke import smoke_test

    smoke_test(image, any_version)


@group.verb(
    "on-time release deploy on-time:model-v2-g1a2b3c4 --host deploy@example.com",
    "the containers of the deployment, and the history in the registry",
)
@image_argument
@click.option("--alias", type=click.Choice(["production", "staging"]), default="production", help="Required alias.")
@host_option
@click.option("--soak", type=AMOUNT, default=10, help="Seconds to try it without traffic.")
@click.option("--watch", type=AMOUNT, default=30, help="Seconds to watch it with traffic.")
def deploy(image: str, alias: str, host: str, soak: float, watch: float) -> None:
    """Bring IMAGE into service, blue/green, on this machine or another; on any failure the old one keeps serving."""
    from ops.release.deploy import Plan, deploy_version, reach
    from stages import params
    from stages.tracking import mlflow_runs

    plan = Plan(reach(host), soak, watch)
    click.echo(deploy_version(mlflow_runs.connect(), params.load(), image, plan, alias))


@group.verb(
    'on-time release undeploy --version 1 --reason "version 2 is too slow"',
    "the containers of the deployment, the alias production, and the history in the registry",
)
@click.option("--version", type=VERSION, required=True, metavar="N", help="Version to bring back.")
@click.option("--reason", required=True, metavar="TEXT", help="What is wrong with the present one; recorded.")
@click.option("--image", default="", show_default=False, help="Image by its digest (default: the version's tag).")
@host_option
@click.option("--soak", type=AMOUNT, default=1, help="Seconds to try it without traffic.")
@click.option("--watch", type=AMOUNT, default=5, help="Seconds to watch it with traffic.")
def undeploy(version: str, reason: str, image: str, host: str, soak: float, watch: float) -> None:
    """Bring the image of an earlier version back into service, and make the version Production again."""
    from ops.release.deploy import Plan, reach, undeploy_to
    from stages import params
    from stages.tracking import mlflow_runs

    plan = Plan(reach(host), soak, watch)
    click.echo(undeploy_to(mlflow_runs.connect(), params.load(), version, plan, reason, image))


@group.verb("on-time release load-test --rate 200 --seconds 30", "nothing")
@click.option("--rate", type=AMOUNT, default=100, help="Requests per second.")
@click.option("--seconds", "duration", type=AMOUNT, default=60, help="Duration in seconds.")
@host_option
def load_test(rate: float, duration: float, host: str) -> None:
    """Load-test the deployed service; fail on wrong responses or a high latency."""
    from ops.release.deploy import reach
    from ops.release.load_test import load

    reach(host)
    load(rate, duration)


@group.verb("on-time release publish ghcr.io/team/on-time:model-v2-g1a2b3c4", "the image's registry")
@image_argument
def publish(image: str) -> None:
    """Push IMAGE to its registry by its own tag and as model-v<version>, and print its digest."""
    from ops.release.publish import publish_image

    click.echo(f"{publish_image(image)} is in the registry.")


@group.verb("on-time release verify --version 2", "nothing")
@click.argument("image", required=False)
@version_option
def verify(image: str | None, version: str | None) -> None:
    """Prove that a release of this repository has built IMAGE, or a version's image, and print its digest."""
    from ops.release.docker import REPOSITORY
    from ops.release.publish import SIGNER, verify_image

    if not image and not version:
        raise click.UsageError("Name an image, or a version by --version.")
    found = verify_image(image or f"{REPOSITORY}:model-v{version}")
    click.echo(f"{found} has provenance and bill of materials, signed by {SIGNER}.")


@group.verb("on-time release sbom on-time:model-v2-g1a2b3c4", "build/sbom-*.json")
@image_argument
def sbom(image: str) -> None:
    """Write the bill of materials (CycloneDX) of IMAGE to build/; refuse one that is not what runs in it."""
    from ops.ci.github import output
    from ops.release.audit import write_sbom

    written = write_sbom(image)
    output(sbom=str(written))
    click.echo(f"{written} is written.")


@group.verb("on-time release audit", "nothing")
def audit() -> None:
    """Audit the locked packages for known vulnerabilities; ops/release/audit-ignored.yml has the exceptions."""
    from ops.release.audit import audit_packages

    click.echo(audit_packages())


@group.verb("on-time release ssh --host deploy@example.com", "~/.ssh")
@host_option
def ssh(host: str) -> None:
    """Let ssh reach a machine with the key in DEPLOY_KEY and the host key in DEPLOY_KNOWN_HOSTS."""
    from ops.release.ssh import write_access

    click.echo(write_access(host))
