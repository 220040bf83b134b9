"""The pages of docs/reference are what the code writes, and explain every row."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from app.settings import Settings
from ops.cli import cli
from ops.docs import reference
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def _top(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages are written at the top of the checkout."""
    monkeypatch.chdir(ROOT)


def committed(name: str) -> str:
    """Return a page of the repository."""
    return (ROOT / reference.FOLDER / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", reference.PAGES)
def test_a_committed_page_is_what_the_code_writes(name: str) -> None:
    assert committed(name) == reference.PAGES[name](), "run `on-time ci reference`"


def test_a_changed_help_and_default_change_their_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [path.name for path in reference.write_pages(tmp_path)] == list(reference.PAGES)
    assert not reference.write_pages(tmp_path)
    group = cli.get_command(click.Context(cli), "ci")
    assert isinstance(group, click.Group)
    monkeypatch.setattr(group.commands["lock"], "help", "Do something else.")
    monkeypatch.setattr(dict(Settings.model_fields)["port"], "default", 80)
    assert [path.name for path in reference.write_pages(tmp_path)] == ["cli.md", "settings.md"]


@pytest.mark.parametrize("name", ["settings.md", "metrics.md", "parameters.md"])
def test_settings_metrics_and_parameters_are_explained(name: str) -> None:
    rows = re.findall(r"^\| `(.*?)` .*\| (.*) \|$", committed(name), re.MULTILINE)
    assert len(rows) > 20
    assert [row for row, meaning in rows if not meaning] == []


def test_every_command_has_a_section() -> None:
    groups = [cli.get_command(click.Context(cli), name) for name in cli.list_commands(click.Context(cli))]
    verbs = [f"{g.name} {verb}" for g in groups if isinstance(g, click.Group) for verb in g.commands]
    assert re.findall("^### on-time (.*)$", committed("cli.md"), re.MULTILINE) == verbs


def test_the_comment_beside_a_key_is_its_meaning() -> None:
    text = "# all\na: # of a\n  b: x#y # of b, see docs/c.md\n  c: [1, 2]\nd:\n  b: 1 # other\n"
    assert reference.comments(text) == {"a": "of a", "a.b": "of b, see [c.md](../c.md)", "d.b": "other"}


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "integer", "minimum": 0, "maximum": 9}, "integer ≥ `0` ≤ `9`"),
        ({"type": "string", "format": "date"}, "date"),
        ({"enum": ["a", "b"], "type": "string"}, "`a` or `b`"),
        ({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}]}, "number > `0` or null"),
        ({"type": "array", "items": {"$ref": "#/x/Row"}}, "list of [Row](#row)"),
        ({"type": "array", "prefixItems": [{"type": "string"}, {"type": "number"}]}, "[string, number]"),
        ({"type": "object", "additionalProperties": {"type": "boolean"}}, "by name: boolean"),
        ({}, "any value"),
    ],
)
def test_a_type_is_named_in_words(schema: dict[str, object], text: str) -> None:
    assert reference.words(schema) == text


def test_schemas_are_linked_to_their_sections() -> None:
    headings = {heading.lower() for heading in re.findall("^### (.*)$", committed("api.md"), re.MULTILINE)}
    linked = set(re.findall(r"\]\(#([a-z]+)\)", committed("api.md")))
    assert linked and linked <= headings


def test_a_cell_stays_in_its_row() -> None:
    assert reference.table("a b", [["x|y", "one\ntwo"]]) == "| a | b |\n| --- | --- |\n| x\\|y | one two |"
