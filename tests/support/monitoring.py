"""What the tests of monitoring share: Debian's programs, the rules and the boards as data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

PROMETHEUS = ROOT / "ops" / "monitoring" / "config" / "prometheus"
ALERTMANAGER = ROOT / "ops" / "monitoring" / "config" / "alertmanager"
PACKAGES = {
    "promtool": "prometheus",
    "wrk": "wrk",
    "prometheus": "prometheus",
    "amtool": "prometheus-alertmanager",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "prometheus-blackbox-exporter": "prometheus-blackbox-exporter",
    "prometheus-node-exporter": "prometheus-node-exporter",
}


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip where a program is missing, but not in CI."""
    missing = sorted({PACKAGES[name] for name in programs if shutil.which(name) is None})
    return pytest.mark.skipif(
        bool(missing) and not os.environ.get("CI"), reason=f"Debian: apt install {' '.join(missing)}"
    )


def passes(*command: str | Path) -> str:
    """Run a command that has to succeed, and return what it printed."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules() -> list[dict[str, Any]]:
    """Return all recording and alerting rules."""
    files = sorted((PROMETHEUS / "rules").glob("*.yml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """Return the alerting rules."""
    return [rule for rule in rules() if "alert" in rule]


def boards() -> dict[str, dict[str, Any]]:
    """Return the committed dashboards by their uid."""
    files = sorted((ROOT / "ops" / "monitoring" / "config" / "grafana" / "dashboards").glob("*.json"))
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def panels() -> dict[str, dict[str, Any]]:
    """Return the panels of all dashboards, without headings, by `uid: title`."""
    return {
        f"{uid}: {panel['title']}": panel
        for uid, board in boards().items()
        for panel in board["panels"]
        if panel["type"] != "row"
    }
