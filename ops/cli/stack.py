"""`on-time stack`: run the services around the model, and save their databases."""

# pylint: disable=import-outside-toplevel # a command imports what it runs

from pathlib import Path

import click

from ops.cli import model
from ops.cli.base import CallerPath, Group, execute

group = Group()
COMPOSE_FILE = "ops/stack/compose/compose.yml"


@group.verb("on-time stack up", "the missing secrets, and the containers of the stack")
@click.pass_context
def up(ctx: click.Context) -> None:
    """Start the monitoring and its databases by Docker Compose."""
    ctx.invoke(credentials)
    execute("docker", "compose", "-f", COMPOSE_FILE, "--profile", "monitoring", "up", "--detach")


@group.verb("on-time stack credentials", "the missing secrets")
def credentials() -> None:
    """Write the missing secrets that Docker Compose mounts."""
    from ops.stack.credentials import FOLDER, write_secrets

    made = write_secrets(FOLDER)
    outcome = f"{', '.join(made)} written" if made else "all files exist already"
    click.echo(f"{FOLDER}: {outcome}.")


@group.verb("on-time stack backup", "backup/")
def backup() -> None:
    """Save MLflow's database and the journal to backup/<time>/."""
    from ops.stack.backup import DATABASES, FOLDER, save_databases

    folder = save_databases(FOLDER)
    names = " and ".join(DATABASES)
    click.echo(f"{folder} contains {names}. `on-time stack restore {folder}` restores them.")


@group.verb("on-time stack restore backup/2026-01-31T120000Z", "MLflow's database and the journal")
@click.argument("folder", type=CallerPath(exists=True, file_okay=False))
def restore(folder: Path) -> None:
    """Replace the present databases by those in FOLDER."""
    from ops.stack.backup import DATABASES, restore_databases

    restore_databases(folder)
    click.echo(f"{' and '.join(DATABASES)} are as in {folder}.")


@group.verb("on-time stack demo --port 8001", "the same as `model repro` and `model promote`; the journal")
@click.option("--port", envvar="ONTIME_PORT", type=click.IntRange(1, 65535), default=8000, help="Port to listen on.")
@click.pass_context
def demo(ctx: click.Context, port: int) -> None:
    """Train a model, promote it when nothing is in Production, start the service and send one request."""
    from ops.stack.demo import run_demo

    ctx.invoke(model.repro)
    ctx.invoke(model.promote, if_none=True)
    run_demo(port)
