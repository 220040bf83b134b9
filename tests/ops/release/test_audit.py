"""The audit's verdict: what is known, what is let pass for a time, and what could not be looked up."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from ops.release.audit import IGNORED_FILE, AuditFailed, Ignored, find_problems, ignored

TODAY, LATER = date(2026, 11, 23), date(2026, 11, 24)
CLEAN = {"name": "numpy", "version": "2.4.6", "vulns": []}
HIT = {
    "name": "urllib3",
    "version": "2.0.0",
    "vulns": [{"id": "PYSEC-1", "aliases": ["GHSA-1"], "fix_versions": ["2.0.1"]}],
}
ENTRY = Ignored(id="GHSA-1", package="urllib3", reason="never called with it", expires=TODAY)


@pytest.mark.parametrize(
    ("dependencies", "entries", "today", "problems"),
    [
        ([CLEAN], [], TODAY, []),
        ([CLEAN, HIT], [], TODAY, ["urllib3 2.0.0: PYSEC-1, fixed in 2.0.1"]),
        ([CLEAN, HIT], [ENTRY], TODAY, []),
        ([CLEAN, HIT], [ENTRY], LATER, ["expired on 2026-11-23", "PYSEC-1"]),
        ([CLEAN, HIT], [ENTRY.model_copy(update={"package": "numpy"})], TODAY, ["PYSEC-1", "not found any more"]),
        ([CLEAN], [ENTRY], TODAY, ["GHSA-1 (urllib3) is not found any more: delete the entry"]),
        ([], [], TODAY, ["nothing was audited"]),
        ([CLEAN, {"name": "scipy", "skip_reason": "not found"}], [], TODAY, ["1 packages were not audited"]),
    ],
)
def test_what_is_known_and_not_excepted_is_found(
    dependencies: list[dict[str, Any]], entries: list[Ignored], today: date, problems: list[str]
) -> None:
    found = find_problems(dependencies, entries, today)
    assert len(found) == len(problems)
    assert all(expected in actual for expected, actual in zip(problems, found))


def test_an_entry_needs_a_reason_and_a_last_day(tmp_path: Path) -> None:
    ignored(IGNORED_FILE)
    path = tmp_path / "ignored.yml"
    for text in (
        "[{id: X, package: y, reason: long enough}]",
        "[{id: X, package: y, reason: no, expires: 2027-01-01}]",
    ):
        path.write_text(text)
        with pytest.raises(AuditFailed, match="entry 0"):
            ignored(path)
