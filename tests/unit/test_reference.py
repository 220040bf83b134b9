"""The pages of docs/reference are what the code writes, explain every row, and a changed text is noticed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest

from app.settings import Settings
from ops.cli import cli
from ops.docs import reference
from ops.docs.operations import operations, schemas
from ops.docs.schemas import table, words
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def _top(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages are written at the top of the checkout."""
    monkeypatch.chdir(ROOT)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A folder with all pages."""
    assert [path.name for path in reference.write(tmp_path)] == list(reference.PAGES)
    assert not reference.stale(tmp_path)
    return tmp_path


def test_the_committed_pages_are_what_the_code_writes() -> None:
    assert not reference.stale(), "run `on-time ci reference`"


def test_a_changed_help_makes_the_page_of_the_commands_stale(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = cli.get_command(click.Context(cli), "ci")
    assert isinstance(group, click.Group)
    monkeypatch.setattr(group.commands["lock"], "help", "Do something else.")
    assert [path.name for path in reference.stale(written)] == ["cli.md"]


def test_a_changed_default_makes_the_page_of_the_settings_stale(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dict(Settings.model_fields)["port"], "default", 80)
    assert [path.name for path in reference.stale(written)] == ["settings.md"]


def test_a_changed_contract_and_a_missing_page_are_noticed(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contract = json.loads((ROOT / "openapi.json").read_text(encoding="utf-8"))
    contract["info"]["description"] = "Something else."
    (written / "openapi.json").write_text(json.dumps(contract), encoding="utf-8")
    (written / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    (written / "metrics.md").unlink()
    monkeypatch.chdir(written)
    assert [path.name for path in reference.stale(written)] == ["metrics.md", "api.md"]


@pytest.mark.parametrize("name", ["settings.md", "metrics.md", "parameters.md"])
def test_every_setting_metric_and_parameter_is_explained(name: str) -> None:
    rows = re.findall(r"^\| `(.*?)` .*\| (.*) \|$", (reference.FOLDER / name).read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 20
    assert [row for row, meaning in rows if not meaning] == []


def test_every_command_has_a_section() -> None:
    text = (reference.FOLDER / "cli.md").read_text(encoding="utf-8")
    groups = [cli.get_command(click.Context(cli), name) for name in cli.list_commands(click.Context(cli))]
    verbs = [f"{g.name} {verb}" for g in groups if isinstance(g, click.Group) for verb in g.commands]
    assert re.findall("^### on-time (.*)$", text, re.MULTILINE) == verbs


def test_the_site_shows_the_values_of_the_parameters() -> None:
    shown = reference.with_values((reference.FOLDER / "parameters.md").read_text(encoding="utf-8"))
    assert re.search(r"^\| `train.seed` \| `42` \| integer \| ", shown, re.MULTILINE)
    assert re.search(r"^\| `problem.gaps` \|  \| list of ", shown, re.MULTILINE)
    assert shown.count("| parameter | value | type | meaning |") == shown.count("| --- | --- | --- | --- |") > 5


def test_the_comment_beside_a_key_is_its_meaning(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("# all\na: # of a\n  b: x#y # of b\n  c: [1, 2]\n", encoding="utf-8")
    assert reference.comments(file) == {"a": "of a", "a.b": "of b"}


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "integer", "minimum": 0, "maximum": 9}, "integer ≥ 0, ≤ 9"),
        ({"type": "string", "format": "date"}, "date"),
        ({"enum": ["a", "b"], "type": "string"}, "`a` or `b`"),
        ({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}]}, "number > 0 or null"),
        ({"type": "array", "items": {"$ref": "#/x/Row"}, "minItems": 1, "maxItems": 7}, "list of 1 to 7: `Row`"),
        ({"type": "array", "prefixItems": [{"type": "string"}, {"type": "number"}]}, "[text, number]"),
        ({"type": "object", "additionalProperties": {"type": "boolean"}}, "by name: true or false"),
        ({}, "any value"),
    ],
)
def test_a_type_is_named_in_words(schema: dict[str, object], text: str) -> None:
    assert words(schema) == text


def test_operations_and_schemas_link_to_each_other() -> None:
    contract = json.loads((ROOT / "openapi.json").read_text(encoding="utf-8"))
    text = "\n\n".join([*operations(contract), *schemas(contract)])
    headings = {h.lower() for h in re.findall("^### (.*)$", text, re.MULTILINE)}
    linked = set(re.findall(r"\]\(#([a-z]+)\)", text))
    assert linked and linked <= headings


def test_a_cell_stays_in_its_row() -> None:
    assert table(["a", "b"], [["x|y", "one\ntwo"]]) == "| a | b |\n| --- | --- |\n| x\\|y | one two |"
