"""docs/adapt.md: its code is that of the second problem, which stays small, and it describes the whole interface."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.interface import ServingProblem, names_of
from stages.interface import TrainingProblem

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/adapt.md").read_text(encoding="utf-8")
MOST_LINES = 300
BLOCKS = re.findall(r"(?:^<!-- (.+?) -->\n)?^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_every_code_block_is_in_the_file_it_names() -> None:
    quoted = [(name, code) for name, language, code in BLOCKS if language in ("python", "yaml")]
    assert len(quoted) >= 8
    for name, code in quoted:
        assert name.startswith("tests/adapt/") and code in (ROOT / name).read_text(encoding="utf-8"), code


def test_every_command_is_run_by_the_long_test() -> None:
    names = [name.removeprefix("run: ") for name, language, _ in BLOCKS if language not in ("python", "yaml")]
    run = re.findall(r'documented\("(\w+)"\)', (ROOT / "tests/adapt/test_adapt.py").read_text(encoding="utf-8"))
    assert names and sorted(names) == sorted(run)


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("app", [*names_of(ServingProblem), "compute_one", "from_arrays"]),
        ("stages", [*names_of(TrainingProblem), "raw_rows", "reach_days"]),
    ],
)
def test_exactly_the_interface_is_described(module: str, names: list[str]) -> None:
    table = PAGE.split(f"that `{module}/problem/__init__.py` exports")[1].split("\n\n")[1]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    described = [re.split(r"[(:`]", name)[0].strip() for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    assert sorted(described) == sorted(names)


def test_the_second_problem_is_small() -> None:
    files = [*ROOT.glob("tests/adapt/app_problem/**/*.py"), *ROOT.glob("tests/adapt/stages_problem/**/*.py")]
    assert 100 < sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files) <= MOST_LINES
