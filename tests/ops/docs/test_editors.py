"""What editors read: tasks and containers start the Makefile's verbs, and .editorconfig agrees with the formatters."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import tomllib
from typing import Any

import pytest

from tests.conftest import ROOT

TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def unknown(command: str) -> list[str]:
    """Return the words of a command that are not `make` and verbs of the Makefile after it."""
    program, *verbs = command.split()
    return [program] * (program != "make") + [verb for verb in verbs if verb not in TARGETS]


def read(path: str) -> dict[str, Any]:
    """Return a JSON object that git does not ignore."""
    ignored = subprocess.run(["git", "check-ignore", "--quiet", "--no-index", path], cwd=ROOT, check=False)
    assert ignored.returncode == 1, f"{path} is ignored"
    content = json.loads((ROOT / path).read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def test_each_task_is_a_verb_of_the_makefile() -> None:
    tasks = read(".vscode/tasks.json")["tasks"]
    assert len(tasks) >= 5
    assert [task["label"] for task in tasks] == [task["command"] for task in tasks]
    assert not [found for task in tasks for found in unknown(task["command"])]


@pytest.mark.parametrize(
    ("command", "found"),
    [("make fly", ["fly"]), ("pytest", ["pytest"]), ("make test || true", ["||", "true"]), ("make setup data", [])],
)
def test_any_other_command_is_found(command: str, found: list[str]) -> None:
    assert unknown(command) == found


def test_container_has_the_python_of_the_project() -> None:
    container = read(".devcontainer/devcontainer.json")
    version = (ROOT / ".python-version").read_text(encoding="utf-8").strip()
    assert f":{version}-" in container["image"]
    assert container["postCreateCommand"] and not unknown(container["postCreateCommand"])


def test_editor_breaks_lines_as_black_does() -> None:
    settings = configparser.ConfigParser()
    settings.read_string("[top]\n" + (ROOT / ".editorconfig").read_text(encoding="utf-8"))
    black = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["black"]
    assert settings["*.py"]["max_line_length"] == str(black["line-length"])
    assert settings["Makefile"]["indent_style"] == "tab"
