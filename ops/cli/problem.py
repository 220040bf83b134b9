"""`on-time problem`: check the packages that define the problem."""

# pylint: disable=import-outside-toplevel # a command imports what it runs

import sys

import click

from app.errors import Refused
from ops.cli.base import Group

group = Group()


@group.verb("on-time problem check", "nothing")
def check() -> None:
    """Check that app/problem and stages/problem implement the interface of docs/adapt.md consistently."""
    from ops.problem import problem_check
    from stages import params

    found = problem_check.problems(params.load())
    if found:
        for line in found:
            click.echo(f"error: {line}", err=True)
        sys.exit(Refused.exit_code)
    click.echo("app/problem and stages/problem have the whole interface.")
