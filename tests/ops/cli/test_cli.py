"""The command line: its help, its errors, its scripts, and the commands of Makefile and workflows that use it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ops.cli import GROUPS, cli, main
from ops.cli.base import execute
from tests.conftest import ROOT

HEAVY = {"app.problem", "fastapi", "lightgbm", "mlflow", "numpy", "pandas", "rich", "yaml"}
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = re.findall(r"^([a-z-]+):", MAKEFILE, re.M)


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command with the line that starts it."""
    for name, group in cli.commands.items():
        if not isinstance(group, click.Group):
            yield f"on-time {name}", group
            continue
        for verb in group.list_commands(click.Context(group)):
            command = group.get_command(click.Context(group), verb)
            assert command is not None
            yield f"on-time {name} {verb}", command


COMMANDS = dict(commands())


def parse(line: str) -> None:
    """Raise a UsageError, or KeyError, unless a line starts a command and all its words are the command's."""
    words = [word for word in shlex.split(line) if not re.match(r"[A-Z_]+=", word)]
    program, group, *verb = words[:3]
    top = isinstance(cli.commands.get(group), click.Group)
    command = COMMANDS[" ".join([Path(program).name, group, *verb[:top]])]
    context = click.Context(command, **cli.context_settings)
    _, extra, _ = command.make_parser(context).parse_args(words[2 + top :])
    arguments = [param for param in command.params if isinstance(param, click.Argument)]
    if extra and not arguments:
        raise click.UsageError(f"{extra} is too much for {line!r}")


def run(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    command = [sys.executable, "-m", "ops.cli", *shlex.split(line)]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("modle", 2, "No such command 'modle'. Did you mean 'model'? `on-time --help`"),
        ("model promte", 2, "No such command 'promte'. Did you mean 'promote'? `on-time model --help`"),
        ("model promote --verson 2", 2, "No such option '--verson'. Did you mean '--version'?"),
        ("model promote --version two", 2, "'two' is not a valid version. `on-time model promote --help`"),
        ("model promote --version 0", 2, "0 is not in the range"),
        ("model promote 2", 2, "unexpected extra argument"),
        ("model rollback", 2, "Missing option '--reason'"),
        ("release deploy", 2, "Missing argument 'IMAGE'"),
        ("release deploy x --alias best", 2, "'best' is not one of"),
        ("release verify", 2, "Name an image, or a version"),
        ("release load-test --rate 0", 2, "--rate"),
        ("monitor replay --first 31.12.2013", 2, "does not match the format"),
        ("data fetch --archive no-such.tar.gz", 2, "no-such.tar.gz' does not exist"),
        ("stack restore ops", 1, "ops is not a complete backup"),
    ],
)
def test_an_error_is_one_line_with_its_exit_code(
    line: str, code: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["on-time", *line.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert (ended.value.code, out, err.count("\n")) == (code, "", 1), err
    assert err.startswith("error: ") and says in err


def test_missing_program_is_named_failing_one_ends_1() -> None:
    with pytest.raises(click.ClickException, match="no-such-program is not installed"):
        execute("no-such-program")
    with pytest.raises(SystemExit) as ended:
        execute("sh", "-c", "exit $CODE", CODE="3")
    assert ended.value.code == 1
    execute("true")


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_has_help_and_a_valid_example(line: str) -> None:
    command = COMMANDS[line]
    assert command.help and command.help.endswith((".", ")")), line
    for option in command.params:
        assert not isinstance(option, click.Option) or option.help, f"{line} {option.name}"
    example = (command.epilog or "").splitlines()[-1].strip()
    assert line in example
    parse(example)


@pytest.mark.parametrize("line", ["--help", *(f"{group} --help" for group in GROUPS)])
def test_help_imports_nothing_that_takes_long(line: str) -> None:
    code = f"import sys; from ops.cli import cli; cli.main({line.split()!r}, 'on-time', standalone_mode=False); "
    code += "print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    loaded = set(done.stderr.split())
    assert done.returncode == 0 and "Usage: on-time" in done.stdout and "click" in loaded, done.stderr
    assert not HEAVY & loaded
    assert line != "--help" or not {f"ops.cli.{group}" for group in GROUPS} & loaded


@pytest.mark.parametrize(
    ("modules", "unused"),
    [
        ("app.registry.cache app.settings", {"lightgbm", "mlflow", "pandas", "scipy", "sklearn"}),  # model serve
        ("ops.registry.commands ops.registry.history", {"matplotlib", "ops.gate.evidence", "stages.evaluate"}),
    ],
)
def test_command_imports_only_what_it_uses(modules: str, unused: set[str]) -> None:
    code = f"import sys, {', '.join(modules.split())}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    loaded = set(done.stdout.split())
    assert set(modules.split()) <= loaded, done.stderr
    assert not unused & loaded


def test_a_shell_completes_groups_commands_and_options() -> None:
    for typed, completed in (("mod", "model"), ("model prom", "promote"), ("model promote --ver", "--version")):
        words = {"COMP_WORDS": f"on-time {typed}", "COMP_CWORD": str(len(typed.split()))}
        done = run("", _ON_TIME_COMPLETE="bash_complete", **words)
        assert done.stdout == f"plain,{completed}\n"


def test_script_takes_paths_from_the_caller_s_folder(tmp_path: Path) -> None:
    (tmp_path / "command").symlink_to(ROOT / "on-time")
    (tmp_path / "folder with späces").mkdir()
    folder = tmp_path / "folder with späces"
    (folder / "here.tar.gz").write_text("not opened, as nothing is missing")
    command = ["../command", "data", "fetch", "--archive", "here.tar.gz"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("data/: 5 files") and done.stderr == ""
    (folder / "here.tar.gz").unlink()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "here.tar.gz' does not exist" in done.stderr


def test_makefile_is_short_and_starts_known_commands() -> None:
    assert len(MAKEFILE.splitlines()) <= 120 and len(TARGETS) <= 22
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    values = ["VERSION=2", "REASON=x", "HOST=h", "PORT=1", "BASE=main"]
    for target in TARGETS:
        assert re.search(rf"^  {target} +\w", listed, re.M), target
        dry = ["make", "--dry-run", target, *values]
        for line in subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
            if line.startswith("./on-time ") and "--help" not in line:
                parse(line)
