"""Schemathesis against a real service: every operation of the contract, all checks, requests valid and not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.servers.service import Start

EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES", "15")


@pytest.mark.long
def test_schemathesis_finds_nothing(baked: Path, tmp_path: Path, start: Start) -> None:
    service = start(baked_model=baked, journal_url=f"sqlite:///{tmp_path}/journal.db")
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{service.base}/openapi.json"]
    options = [
        "--checks=all",
        "--phases=examples,coverage,fuzzing,stateful",
        f"--max-examples={EXAMPLES}",
        "--seed=1",
        "--workers=1",
        "--no-color",
    ]
    env = os.environ | {"SCHEMATHESIS_HOOKS": "tests.support.clients.schemathesis_hooks", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, *options], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "No issues found" in done.stdout
