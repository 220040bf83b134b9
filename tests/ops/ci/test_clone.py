"""The first sight of a clone: the same bytes whatever git's settings are, and no hint to add what nobody changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT, make_clone

HINT = "git add dvc.lock"


def test_a_clone_with_autocrlf_has_the_same_bytes(tmp_path: Path) -> None:
    origin = make_clone(tmp_path / "origin", data=False)
    for setting in ("core.autocrlf=true", "core.eol=crlf"):
        folder = tmp_path / setting
        subprocess.run(["git", "clone", "--quiet", "--config", setting, str(origin.path), str(folder)], check=True)
        names = origin.run("git", "ls-files", "-z").stdout.split("\0")[:-1]
        assert [n for n in names if (folder / n).read_bytes() != (origin.path / n).read_bytes()] == []


def test_dvc_gives_no_hint_to_add_what_it_wrote(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {copy: {cmd: cp .gitignore out, deps: [.gitignore], outs: [out]}}\n")
    (tmp_path / ".gitignore").write_text("/out\n", encoding="utf-8")

    def dvc(module: str, *arguments: str) -> str:
        command = [sys.executable, "-m", module, *arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return done.stdout + done.stderr

    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    dvc("dvc", "init", "--quiet")
    shown = dvc("ops.cli.quiet_dvc", "repro")
    assert "Running stage 'copy'" in shown and HINT not in shown
    (tmp_path / "dvc.lock").unlink()
    assert HINT in dvc("dvc", "repro")
