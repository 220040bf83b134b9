"""`on-time data`: fetch and validate the raw tables."""

# pylint: disable=import-outside-toplevel # a command imports what it runs

import re
from pathlib import Path

import click

from ops.cli.base import CallerPath, Group, dvc

group = Group()
REMOTES = (Path(".dvc/config"), Path(".dvc/config.local"))


@group.verb("on-time data fetch --archive ~/downloads/tables.tar.gz")
@click.option("--archive", type=CallerPath(exists=True, dir_okay=False), help="Source package, already downloaded.")
def fetch(archive: Path | None) -> None:
    """Fetch the raw tables, from the DVC remote if one is set, and compare them with their pinned digests."""
    from stages import fetch as raw

    if archive is None and not raw.DATA_DIR.exists() and _has_remote():
        dvc("pull", str(raw.DATA_DIR))
    click.echo(raw.ensure(archive))


@group.verb("on-time data check")
@click.pass_context
def check(ctx: click.Context) -> None:
    """Validate the raw tables: columns, keys and rules."""
    ctx.invoke(fetch)
    dvc("repro", "validate")


@group.verb("on-time data test-rows")
@click.pass_context
def test_rows(ctx: click.Context) -> None:
    """Make the rows on which a promotion compares two models."""
    ctx.invoke(fetch)
    dvc("repro", "featurize")


def _has_remote() -> bool:
    texts = [path.read_text(encoding="utf-8") for path in REMOTES if path.exists()]
    return any(re.search(r'^\[.*remote "', text, re.MULTILINE) for text in texts)
