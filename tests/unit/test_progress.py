"""Progress: lines where nobody watches, a bar on a terminal, and the items in both cases."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from stages.progress import rows, steps, track
from tests.conftest import ROOT

CODE = """
from stages.progress import rows, steps, track
assert list(track(iter("abc"), "letters", 3)) == ["a", "b", "c"]
with steps("rounds", 2) as advance:
    advance()
    print("printed")
    advance()
with rows("cards", lambda: 1200) as advance:
    advance(700)
    advance(500)
"""


def test_off_a_terminal_each_step_is_a_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(2), "models")) == [0, 1]
    assert list(track(range(2), "silent", lines=False)) == [0, 1]
    with steps("rounds", 2) as advance:
        advance()
    with rows("cards", lambda: pytest.fail("counted for a bar that is not shown")) as done:
        done(2)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "models: 1 of 2\nmodels: 2 of 2\n")


@pytest.mark.parametrize("ci", ["", "true"])
def test_on_a_terminal_there_is_a_bar_but_not_in_ci(ci: str) -> None:
    ours, theirs = pty.openpty()
    env = os.environ | {"TERM": "xterm", "CI": ci}
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=theirs, text=True, check=True
    )
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert done.stdout == "printed\n"
    assert ("━" in shown and "3/3" in shown and "2/2" in shown) == (not ci)
    assert ("1200/1200" in shown and " a second" in shown) == (not ci)
    assert ("letters: 3 of 3" in shown) == bool(ci)
