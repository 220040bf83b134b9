"""`on-time problem`: check the packages that define the problem."""

# pylint: disable=import-outside-toplevel # a command imports what it runs

from __future__ import annotations

import sys

import click

from ops.cli.base import Group

group = Group()


@group.verb("on-time problem check")
def check() -> None:
    """Name what app/problem and stages/problem lack of the interface; docs/adapt.md describes it."""
    from stages.interface import missing

    if lines := missing():
        for line in lines:
            click.echo(f"error: {line}", err=True)
        sys.exit(1)
    click.echo("app/problem and stages/problem have the whole interface.")
