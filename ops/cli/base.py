"""Shared parts of the command line: commands with an example, option types, subprocesses, JSON."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from stages.base.paths import finite

CALLER_DIR = "ONTIME_CALLER_DIR"
"""The variable with the caller's working directory, set by the script `on-time`."""

CHANGES = "May change: "
FULL_BYTES = 10_000_000
LOCK = Path("build/pipeline.lock")
"""Locked while the pipeline runs; never removed."""


class Group(click.Group):
    """A group whose commands each have an example, and are listed in the order of their definition."""

    def verb(
        self, example: str, changes: str, name: str | None = None
    ) -> Callable[[Callable[..., Any]], click.Command]:
        """Return a decorator that makes a function a command; its help ends with what it may change, and an example."""
        return self.command(name, epilog=f"{CHANGES}{changes}.\n\n\b\nExample:\n  {example}")

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in the order of their definition."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with the whole first paragraph of their help."""
        found = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help or "") for name, command in found.items() if command])


class CallerPath(click.Path):
    """A path relative to the folder that the user is in; the commands themselves run at the top of the checkout."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path from the top of the checkout."""
        path = Path(os.environ.get(CALLER_DIR, ""), value)
        return Path(os.fsdecode(super().convert(path, param, ctx)))


class Address(CallerPath):
    """The address of an object store, or a path relative to the caller's working directory."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the address as text."""
        return value if "://" in value else str(super().convert(value, param, ctx))


class Several(click.ParamType[Any]):
    """Values of one type, separated by commas."""

    def __init__(self, of: click.ParamType[Any]) -> None:
        self.of = of
        self.name = f"{of.name},…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """Return the values."""
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(self.of.convert(part, param, ctx) for part in parts)


class Version(click.IntRange):
    """The number of a registered version, converted to the registry's string."""

    name = "version"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number as a string."""
        return str(super().convert(value, param, ctx))


DAY = click.DateTime(["%Y-%m-%d"])
VERSION = Version(min=1)
COUNT = click.IntRange(min=1)
AMOUNT = click.FloatRange(min=0, min_open=True)
version_option = click.option("--version", type=VERSION, metavar="N", help="Number of a registered version.")
base_option = click.option(
    "--base", "base_", metavar="REVISION", default="origin/main", help="Branch or commit to compare with."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
host_option = click.option(
    "--host", default="", show_default=False, metavar="USER@MACHINE", help="Machine to reach by ssh."
)


def execute(*command: str, **environment: str) -> None:
    """Run a program with these variables; if it fails, exit with 1, without another message."""
    if shutil.which(command[0]) is None:
        raise click.ClickException(f"{command[0]} is not installed.")
    done = subprocess.run(command, env=os.environ | environment, check=False)
    if done.returncode:
        sys.exit(1)


def become(*command: str, **environment: str) -> None:
    """Replace this process by a program with these variables, so that a signal ends the program itself."""
    os.execve(command[0], command, os.environ | environment)


def dvc(*arguments: str) -> None:
    """Run DVC, without hints; raise FileInvalid if a file that it reads holds conflict markers."""
    from stages.base import yaml_files  # pylint: disable=import-outside-toplevel # it imports YAML

    yaml_files.check()
    with _alone(), subprocess.Popen([sys.executable, "-m", "ops.cli.quiet_dvc", *arguments]) as process:
        try:
            process.wait()
        except KeyboardInterrupt:  # the terminal has sent it to DVC and its stage, too
            process.wait()
            click.echo("Stopped. Complete stages are kept: the same command continues after them.", err=True)
            sys.exit(130)
    if process.returncode:
        if shutil.disk_usage(".").free < FULL_BYTES:  # DVC does not always say so
            raise click.ClickException(
                f"the disk of {os.getcwd()} is full: free some space, and run the command again."
            )
        sys.exit(1)


@contextmanager
def _alone() -> Iterator[None]:
    """Refuse to run the pipeline twice at the same time in one checkout."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise click.ClickException(
                "the pipeline already runs in this folder; run the command again when it has ended."
            ) from None
        yield


def echo_json(value: Any) -> None:
    """Print a value as JSON; numbers that are not finite become null."""
    click.echo(json.dumps(finite(value), indent=2, ensure_ascii=False, default=str))
