"""The documentation names only files, sections and commands that exist."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import click
import pytest

from ops.cli import cli

ROOT = Path(__file__).resolve().parents[3]
MOST_BYTES = 300_000
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
SHOWN = re.compile(r"\]\(([^)\s]+\.png)\)")
PATH = re.compile(r"(?<![\w./-])((?:app|stages|ops|tests|docs|reports|\.github|\.ci)/[\w./-]*)")
MODULE = re.compile(r"python -m ((?:app|stages|ops|tests)[\w.]*)")
MAKE = re.compile(r"\bmake((?: [a-z][a-z-]*| [A-Z_]+=(?:\"[^\"]*\"|\S*))+)")
WORD = re.compile(r"[A-Z_]+=(?:\"[^\"]*\"|\S*)|[a-z][a-z-]*")
ON_TIME = re.compile(r"(?<![\w/:=-])on-time +([a-z][a-z-]*) +([a-z][a-z-]*)([^&|#;]*)")


def git(*args: str) -> list[str]:
    """Return what git prints, by lines; with 1 as exit code it found nothing."""
    done = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.splitlines()


FILES = {path for path in git("ls-files", "--cached", "--others", "--exclude-standard") if (ROOT / path).exists()}
FOLDERS = {str(parent) for path in FILES for parent in Path(path).parents}
DOCS = sorted(path for path in FILES if path.endswith(".md"))


def code(text: str) -> list[str]:
    """Return all code of a document: the spans, and the lines of the fenced blocks."""
    blocks = [line for block in FENCE.findall(text) for line in block.splitlines()]
    return SPAN.findall(FENCE.sub("", text)) + blocks


def commands(text: str) -> list[str]:
    """Return the code of a document that is typed: the spans, and what follows a prompt or is a span in a block."""
    blocks = "\n".join(FENCE.findall(text)).replace("\\\n", " ")
    typed = re.findall(r"^\$ (.*)$", blocks, re.MULTILINE)
    return SPAN.findall(FENCE.sub("", text)) + SPAN.findall(blocks) + [line.split(" # ")[0] for line in typed]


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(path: Path) -> list[str]:
    """Return the relative links of a document whose file or section is missing."""
    broken = []
    for target, anchor in LINK.findall(path.read_text(encoding="utf-8")):
        file = (path.parent / target) if target else path
        if not file.exists() or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            broken.append(f"{target}#{anchor}")
    return broken


def missing_paths(text: str) -> list[str]:
    """Return the paths and modules in the code of a document that are neither in the repository nor ignored by git."""
    snippets = code(text)
    named = {path.rstrip("/.") for snippet in snippets for path in PATH.findall(snippet)}
    absent = sorted(named - FILES - FOLDERS)
    both = absent + [f"{path}/" for path in absent]  # a pattern for folders needs the slash
    ignored = {path.rstrip("/") for path in git("check-ignore", *both)} if absent else set()
    modules = {name.replace(".", "/") for snippet in snippets for name in MODULE.findall(snippet)}
    return sorted(set(absent) - ignored) + sorted(
        name for name in modules if f"{name}.py" not in FILES and f"{name}/__main__.py" not in FILES
    )


def unknown_targets(text: str, makefile: str) -> list[str]:
    """Return the targets and variables of `make` in a document that the Makefile lacks."""
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    variables = set(re.findall(r"\b[A-Z_]+\b", makefile))
    words = [word for snippet in commands(text) for match in MAKE.findall(snippet) for word in WORD.findall(match)]
    names = [(name, equals) for name, equals, _ in (word.partition("=") for word in words)]
    return [name for name, equals in names if name not in (variables if equals else targets)]


def unknown_commands(text: str) -> list[str]:
    """Return the commands of a document that `on-time` lacks, or has without the options given."""
    context, unknown = click.Context(cli), []
    for snippet in commands(text):
        for group_name, verb, rest in ON_TIME.findall(snippet):
            group = cli.get_command(context, group_name)
            command = group.get_command(context, verb) if isinstance(group, click.Group) else None
            known = {option for param in command.params for option in param.opts} if command else set()
            if not command or not set(re.findall(r"(?<=\s)--[a-z-]+", rest)) <= known | {"--help"}:
                unknown.append(f"on-time {group_name} {verb}{rest}")
    return unknown


@pytest.mark.parametrize("document", DOCS)
def test_relative_links_lead_to_file_and_section(document: str) -> None:
    assert not broken_links(ROOT / document)


@pytest.mark.parametrize("document", DOCS)
def test_every_path_and_module_in_code_exists(document: str) -> None:
    assert not missing_paths((ROOT / document).read_text(encoding="utf-8"))


@pytest.mark.parametrize("document", DOCS)
def test_every_make_target_exists(document: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert not unknown_targets((ROOT / document).read_text(encoding="utf-8"), makefile)


@pytest.mark.parametrize("document", DOCS)
def test_every_command_exists_with_its_options(document: str) -> None:
    assert not unknown_commands((ROOT / document).read_text(encoding="utf-8"))


def test_what_is_missing_is_found(tmp_path: Path) -> None:
    text = (
        "# A title\n[a](nowhere.md) [b](#no-section) [c](#a-title)\n`app/nothing.py` `ops/stack/compose/secrets`\n"
        '`app/` `python -m stages.nothing` `make fly BASE=x HEIGHT=y` `make gate BASE="two words"`\n'
        "```console\n$ on-time model fly && on-time model \\\n    gate --upwards  # not on-time data fly\n"
        "on-time:model-v1 is not a command\n```\n"
    )
    document = tmp_path / "page.md"
    document.write_text(text, encoding="utf-8")
    assert broken_links(document) == ["nowhere.md#", "#no-section"]
    assert missing_paths(text) == ["app/nothing.py", "stages/nothing"]
    assert unknown_targets(text, "gate:\n\techo $(BASE)\n") == ["fly", "HEIGHT"]
    assert [" ".join(found.split()) for found in unknown_commands(text)] == [
        "on-time model fly",
        "on-time model gate --upwards",
    ]


def test_the_index_lists_every_page() -> None:
    linked = {target for target, _ in LINK.findall((ROOT / "docs/README.md").read_text(encoding="utf-8"))}
    assert {path.removeprefix("docs/") for path in DOCS if path.startswith("docs/")} - {"README.md"} <= linked


def unused_pictures(pages: dict[str, str], pictures: set[str]) -> set[str]:
    """Return the pictures, by their paths in the repository, that no page shows."""
    shown = {
        os.path.normpath(os.path.join(os.path.dirname(page), target))
        for page, text in pages.items()
        for target in SHOWN.findall(text)
    }
    return pictures - shown


def test_every_picture_is_shown_and_small() -> None:
    pictures = {path for path in FILES if path.startswith("docs/") and path.endswith(".png")}
    assert len(pictures) > 5
    assert not unused_pictures({page: (ROOT / page).read_text(encoding="utf-8") for page in DOCS}, pictures)
    assert not [path for path in pictures if (ROOT / path).stat().st_size > MOST_BYTES]
    assert unused_pictures(
        {"docs/a.md": "[![A](b.png)](c.png) ![D](../e.png)"}, {"docs/b.png", "e.png", "docs/f.png"}
    ) == {"docs/f.png"}
