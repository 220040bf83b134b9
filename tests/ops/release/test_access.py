"""How a workflow reaches the machine that it deploys to, and how much load what serves there must bear."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.release.load_test import judge
from ops.release.ssh import AccessRefused, grant

FOUND = {"requests": 6000, "errors": 0, "p95_ms": 9.0}


def test_the_key_and_the_host_key_are_written(tmp_path: Path) -> None:
    folder = tmp_path / ".ssh"
    for _ in range(2):  # twice is once
        said = grant("ssh://me@machine.example.com", "SECRET", "machine.example.com ssh-ed25519 AAAA", folder)
    assert "machine.example.com" in said and "SECRET" not in said
    assert (folder / "id_on-time").read_text() == "SECRET\n"
    assert [(folder / name).stat().st_mode & 0o777 for name in ("id_on-time", ".")] == [0o600, 0o700]
    config = (folder / "config").read_text()
    assert config.count("Host machine.example.com\n") == 1 and "StrictHostKeyChecking yes" in config


def test_the_settings_of_other_machines_stay(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("Host other\n  Port 23\n")
    grant("me@machine", "k", "h", tmp_path)
    assert (tmp_path / "config").read_text().startswith("Host other\n  Port 23\n")


@pytest.mark.parametrize(("key", "known", "missing"), [("", "h", "DEPLOY_KEY"), ("k", " \n", "DEPLOY_KNOWN_HOSTS")])
def test_a_missing_key_or_host_key_is_refused(tmp_path: Path, key: str, known: str, missing: str) -> None:
    with pytest.raises(AccessRefused, match=missing):
        grant("me@machine", key, known, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_load_that_is_borne_passes() -> None:
    assert judge(FOUND, 60, 100).accepted


@pytest.mark.parametrize(
    "bad", [{"requests": 5000}, {"errors": 1}, {"p95_ms": 251.0}, {"p95_ms": float("nan")}], ids=str
)
def test_wrong_late_and_too_few_answers_fail(bad: dict[str, float]) -> None:
    assert not judge(FOUND | bad, 60, 100).accepted
