"""Progress without a terminal: a line per step, and the items."""

from __future__ import annotations

import pytest

from stages.base.progress import progress_bar, track


def test_a_line_per_step_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(2), "models")) == [0, 1]
    assert list(track(range(2), "silent", lines=False)) == [0, 1]
    with progress_bar("cards", lambda: pytest.fail("counted for a bar that is not shown")) as advance:
        advance(2)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "models: 1 of 2\nmodels: 2 of 2\n")
