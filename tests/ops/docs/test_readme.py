"""The README is short, and its translation has the same structure, commands, pictures and links."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

ENGLISH, FRENCH = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.fr.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OWN = {"README.md", "README.fr.md"}


def structure(text: str) -> dict[str, list[str]]:
    """Return what a translation keeps: levels of headings, blocks without comments, code, links, rows of tables."""
    prose = BLOCK.sub("", text)
    blocks = [f"{kind}\n{re.sub(r' +# .*', '', content)}" for kind, content in BLOCK.findall(text)]
    return {
        "headings": re.findall(r"^#+(?= )", prose, re.MULTILINE),
        "blocks": blocks,
        "code": sorted(re.findall(r"`[^`\n]+`", prose)),
        "links": sorted(set(re.findall(r"\]\(([^)\s]+)\)", prose)) - OWN),
        "rows": re.findall(r"^\|(?=[^-])", prose, re.MULTILINE),
    }


def test_the_readme_is_read_in_minutes() -> None:
    assert len(ENGLISH.splitlines()) <= 120


def test_translation_has_the_same_structure() -> None:
    assert structure(FRENCH) == structure(ENGLISH)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("## Read on", "## More\n\n## Read on"),
        ("$ make promote", "$ make advance"),
        ("docs/pictures/page.png", "docs/pictures/other.png"),
        ("(docs/daily.md)", "(docs/loop.md)"),
        ("| No feature uses", "| another | row |\n| No feature uses"),
        ("`./on-time doctor`", "`./on-time help`"),
    ],
)
def test_a_change_of_one_of_them_alone_is_noticed(old: str, new: str) -> None:
    changed = ENGLISH.replace(old, new, 1)
    assert changed != ENGLISH and structure(FRENCH) != structure(changed)


def test_its_pictures_are_there() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", ENGLISH)
    assert len(pictures) == 2 and all((ROOT / path).is_file() for path in pictures)
