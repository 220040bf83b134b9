"""The command line `on-time`: nouns as groups, verbs as commands; commands import their modules when they run."""

import gc
import importlib
import subprocess
import sys

import click

from app import environment
from ops.cli.base import Group, json_option
from stages.base.errors import expected

GROUPS = {
    "data": "Fetch, validate and extend the raw tables.",
    "model": "Train, compare, promote, roll back and serve the model.",
    "release": "Build, check, publish and deploy the image of a model version.",
    "monitor": "Watch the service and its model: drift, dashboards, alerts.",
    "stack": "Run the services around the model, and save their databases.",
    "ci": "What the workflows run, and what maintainers run beside them.",
    "bench": "Measure the service and the pipeline.",
    "problem": "Check the packages that define the problem.",
}
EPILOG = """\b
Exit codes:
  0 done, 1 failed, 2 wrong use, 3 refused by a gate or a check (docs/ci.md)
\b
Example:
  on-time model promote --version 2
Completion (also zsh_source, fish_source):
  eval "$(_ON_TIME_COMPLETE=bash_source on-time)"
"""


class LazyGroup(Group):
    """A group whose module is imported when its commands are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in the order of their definition."""
        self._load()
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name."""
        self._load()
        return super().get_command(ctx, cmd_name)

    def _load(self) -> None:
        if not self.commands:
            self.commands.update(importlib.import_module(f"ops.cli.{self.name}").group.commands)


cli = Group(
    help="Operate a machine-learning model: data, training, releases, monitoring. Everyday tasks: `make help`.",
    commands={name: LazyGroup(name, help=text) for name, text in GROUPS.items()},
    context_settings={"show_default": True, "help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog=EPILOG,
    callback=environment.apply,
)


@cli.verb("on-time doctor --json", "nothing")
@json_option
def doctor(as_json: bool) -> None:
    """Report what this machine has and lacks, what each part is for, and the command that installs it."""
    from ops.doctor.doctor import report  # pylint: disable=import-outside-toplevel # 0.1 s

    sys.exit(report(as_json))


def main() -> None:
    """Run a command; on an error, print one line to stderr and exit with the code that app/errors.py lists."""
    try:
        code = cli.main(prog_name="on-time", standalone_mode=False)
        gc.freeze()  # as in stages/base/errors.py
        sys.exit(code)
    except click.exceptions.NoArgsIsHelpError as err:
        err.show()
        sys.exit(err.exit_code)
    except click.UsageError as err:
        command = err.ctx.command_path if err.ctx else "on-time"
        _fail(f"{err.format_message()} `{command} --help` shows the usage.", err.exit_code)
    except click.ClickException as err:
        _fail(err.format_message(), err.exit_code)
    except subprocess.CalledProcessError as err:
        _fail(f"`{' '.join(map(str, err.cmd))[:100]}` ended with {err.returncode}.", 1)
    except click.Abort:
        sys.exit(130)
    except Exception as err:  # pylint: disable=broad-exception-caught # all others are raised again
        known = expected(err)
        if not known:
            raise
        _fail(str(known), known.exit_code)


def _fail(message: str, code: int) -> None:
    click.echo(f"error: {message}", err=True)
    sys.exit(code)
