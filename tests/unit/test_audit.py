"""The audit's verdict: what is known, what is let pass for a time, and what could not be looked up."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from ops.release.audit import IGNORED_FILE, AuditFailed, Ignored, ignored, find_problems

TODAY = date(2026, 11, 23)
CLEAN = {"name": "numpy", "version": "2.4.6", "vulns": []}
HIT = {
    "name": "urllib3",
    "version": "2.0.0",
    "vulns": [{"id": "PYSEC-1", "aliases": ["GHSA-1"], "fix_versions": ["2.0.1"]}],
}
ENTRY = Ignored(id="GHSA-1", package="urllib3", reason="never called with it", expires=TODAY)


def test_nothing_known_passes() -> None:
    assert not find_problems([CLEAN], [], TODAY)


def test_a_vulnerability_is_named_with_its_fix() -> None:
    assert find_problems([CLEAN, HIT], [], TODAY) == ["urllib3 2.0.0: PYSEC-1, fixed in 2.0.1"]


def test_an_entry_lets_pass_until_its_last_day() -> None:
    assert not find_problems([CLEAN, HIT], [ENTRY], TODAY)
    tomorrow = find_problems([CLEAN, HIT], [ENTRY], date(2026, 11, 24))
    assert len(tomorrow) == 2 and "expired on 2026-11-23" in tomorrow[0] and "PYSEC-1" in tomorrow[1]


def test_an_entry_is_for_its_package() -> None:
    other = ENTRY.model_copy(update={"package": "numpy"})
    assert any("PYSEC-1" in reason for reason in find_problems([CLEAN, HIT], [other], TODAY))


def test_an_unused_entry_has_to_go() -> None:
    assert find_problems([CLEAN], [ENTRY], TODAY) == ["GHSA-1 (urllib3) is not found any more: delete the entry"]


def test_what_was_not_looked_up_does_not_pass() -> None:
    assert find_problems([], [], TODAY) == ["nothing was audited"]
    skipped = {"name": "scipy", "skip_reason": "Dependency not found"}
    assert "1 packages were not audited" in find_problems([CLEAN, skipped], [], TODAY)[0]


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
