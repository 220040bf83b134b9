"""Progress: lines where nobody watches, a bar on a terminal, and the items in both cases."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from stages.progress import progress_bar, track
from tests.conftest import ROOT

CODE = """
from stages.progress import progress_bar, track
assert list(track(iter("abc"), "letters", 3)) == ["a", "b", "c"]
with progress_bar("cards", lambda: 1200) as advance:
    advance(700)
    print("printed")
    advance(500)
"""


def test_a_line_per_step_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(2), "models")) == [0, 1]
    assert list(track(range(2), "silent", lines=False)) == [0, 1]
    with progress_bar("cards", lambda: pytest.fail("counted for a bar that is not shown")) as advance:
        advance(2)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "models: 1 of 2\nmodels: 2 of 2\n")


def test_a_bar_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    env = os.environ | {"TERM": "xterm"}
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=theirs, text=True, check=True
    )
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert done.stdout == "printed\n"
    assert "━" in shown and "3/3" in shown and "1200/1200" in shown and "letters: 3 of 3" not in shown
