"""`on-time ci`: commands for workflows and maintainers."""

# pylint: disable=import-outside-toplevel # a command imports what it runs

import sys
from pathlib import Path

import click

from ops.cli.base import AMOUNT, COUNT, VERSION, CallerPath, Group, base_option, dvc, execute

group = Group()
NOT_SERVED = {  # what packages that serving imports require, and its code does not import; by the reason
    "LightGBM's Python package, whose C library app/model/booster.py calls": ("narwhals", "scipy"),
    "WebSockets, which no route uses, and uvicorn's reload of changed code": ("websockets", "watchfiles"),
    "MLflow's runs and pickled models": ("cloudpickle", "gitdb", "gitpython", "smmap"),
    "logins with Google and Databricks": ("cffi", "cryptography", "pyasn1", "pyasn1-modules", "pycparser"),
}
LOCKED = {  # the file, and what it is locked from
    "requirements.txt": tuple(f"--no-emit-package={name}" for names in NOT_SERVED.values() for name in names),
    "requirements-dev.txt": ("--extra", "pipeline", "--extra", "dev", "-c", "requirements.txt"),
    "requirements-monitor.txt": ("--extra", "pipeline", "-c", "requirements-dev.txt"),
    "requirements-ray.txt": ("--extra", "pipeline", "--extra", "ray", "-c", "requirements-dev.txt"),
}
OPENAPI = Path("openapi.json")
reason_option = click.option("--reason", default="", show_default=False, metavar="TEXT", help="Reason; recorded.")


@group.verb("on-time ci packages", "the packages of this machine")
def packages() -> None:
    """Install the missing Debian packages that the tests use."""
    execute(".ci/packages")


@group.verb("on-time ci lock", "requirements*.txt")
def lock() -> None:
    """Lock the requirements from pyproject.toml again."""
    options = ["--quiet", "--universal", "--python-version", "3.11", "--generate-hashes", "--no-emit-index-url"]
    for file, source in LOCKED.items():
        execute("ops/ci/uv", "pip", "compile", *options, "--no-header", *source, "pyproject.toml", "-o", file)


@group.verb("on-time ci check-lock", "nothing")
def check_lock() -> None:
    """Compare dvc.lock with this commit's code, parameters and data, without data and without running a stage."""
    from ops.ci.lock import compare_lock

    click.echo(compare_lock())


@group.verb("on-time ci reproduce", "data/, only files that are missing")
def reproduce() -> None:
    """Prove in a clone that a rerun gives the committed dvc.lock and reports byte for byte."""
    from ops.ci.reproduce import reproduce_pipeline
    from ops.cli import data

    click.get_current_context().invoke(data.fetch)
    reproduce_pipeline()


@group.verb("on-time ci openapi", "openapi.json")
def openapi() -> None:
    """Write openapi.json, the contract with clients, after a change of the API."""
    from app.api import application, contract
    from app.settings import Settings

    OPENAPI.write_text(contract.render_contract(application.create_app(Settings())), encoding="utf-8")
    click.echo(f"{OPENAPI} is written; `git diff {OPENAPI}` shows what changed for clients.")


@group.verb("on-time ci pictures", "--folder")
@click.option(
    "--folder", type=CallerPath(file_okay=False), default="docs/pictures", help="Where the files are written."
)
def pictures(folder: Path) -> None:
    """Take the pictures of the documentation from the service and MLflow's UI, in Chromium."""
    from ops.docs.pictures import take

    take(folder)


@group.verb("on-time ci reference", "docs/reference")
def reference() -> None:
    """Write docs/reference from the commands, parameters, settings, metrics and openapi.json."""
    from ops.docs.reference import write_pages

    changed = write_pages()
    click.echo(f"{', '.join(map(str, changed)) or 'No page'} changed.")


@group.verb("on-time ci outputs", "data/ and the outputs of all stages")
def outputs() -> None:
    """Restore this commit's data and outputs from DVC's cache, as far as it has them."""
    dvc("checkout", "--allow-missing")


@group.verb("on-time ci trim-cache --base main", "DVC's cache")
@base_option
def trim_cache(base_: str) -> None:
    """Remove files from DVC's cache that neither this commit nor its merge base uses."""
    from ops.gate.pull_request import merge_base

    dvc("gc", "--workspace", "--rev", merge_base(base_), "--num", "1", "--force", "--quiet")


@group.verb("on-time ci comment --run 1234567890", "a comment of the pull request")
@click.option("--run", "run_id", required=True, metavar="ID", help="Run of the workflow `ci`.")
def comment(run_id: str) -> None:
    """Put the report of a workflow run on its pull request, as one comment."""
    from ops.ci import github

    click.echo(github.comment(run_id))


@group.verb('on-time ci propose --reason "drift of the scores"', "a branch and a pull request at GitHub")
@reason_option
def propose(reason: str) -> None:
    """Open a pull request with the changes of a retraining, or update the open one."""
    from ops.ci import github

    click.echo(github.propose(reason or "scheduled"))


@group.verb(
    "on-time ci record-deployment --environment staging --version 2 --image ghcr.io/team/on-time@sha256:…",
    "the deployments at GitHub",
)
@click.option("--environment", required=True, metavar="NAME", help="Environment of GitHub.")
@click.option("--version", type=VERSION, required=True, metavar="N", help="Version that is deployed.")
@click.option("--image", required=True, help="Image that is deployed, by its digest.")
@reason_option
def record_deployment(environment: str, version: str, image: str, reason: str) -> None:
    """Record at GitHub which version an environment runs."""
    from ops.ci import github

    click.echo(github.deployment(environment, version, image, reason or "release"))


@group.verb("on-time ci fuzz --minutes 1", "nothing")
@click.option("--minutes", type=AMOUNT, default=10, help="Duration.")
def fuzz(minutes: float) -> None:
    """Try almost valid bodies: none may get status 500, or be judged differently by the fast and the ordinary path."""
    limits = {"FUZZ_SECONDS": f"{60 * minutes:.0f}"}
    _pytest(
        "tests/app/api/test_requests.py", "tests/app/batches/test_read.py", "-q", "-k", "whatever or damaged", **limits
    )


@group.verb("on-time ci soak --seconds 300", "nothing")
@click.option("--seconds", type=COUNT, default=60, help="Duration of the first part.")
def soak(seconds: int) -> None:
    """Hold 300 connections without an error, then send 20,000 requests without a memory leak."""
    _pytest("tests/service/test_soak.py", "-q", "-s", SOAK_SECONDS=str(seconds), SOAK_REQUESTS="20000")


def _pytest(*arguments: str, **environment: str) -> None:
    execute(sys.executable, "-m", "pytest", *arguments, **environment)
