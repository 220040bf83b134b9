"""No command shows the password of an address."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import mlflow
import pytest

from app.errors import ModelUnavailable
from app.registry import download
from ops.cli import main
from ops.registry import aliases
from stages.tracking import mlflow_runs
from tests.conftest import ROOT

SERVER = "http://team:S3cret@127.0.0.1:1"
COMMANDS = (
    "model promote",
    "model rollback --reason late",
    "model history",
    "model score data/airlines.csv build/none",
    "model export build/none",
    "model ui",
    "data add --from-journal",
    "data add --inbox https://team:S3cret@127.0.0.1:1/inbox",
    "model compare",
    "model retrain",
)


@pytest.mark.parametrize("line", COMMANDS)
def test_command_hides_the_password(
    line: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", SERVER)
    monkeypatch.setenv("ONTIME_JOURNAL_URL", "postgresql://team:S3cret@127.0.0.1:1/journal?sslpassword=S3cret")
    monkeypatch.setattr(sys, "argv", ["on-time", *line.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capfd.readouterr()
    assert ended.value.code not in (0, None) and err.strip().splitlines()[-1].startswith("error: ")
    assert "S3cret" not in out + err


def test_links_hide_the_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", SERVER)
    monkeypatch.setattr(mlflow_runs, "experiment_id", lambda: "1")
    assert aliases.link("r") == "http://127.0.0.1:1/#/experiments/1/runs/r"
    monkeypatch.delenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", raising=False)
    download.connect(f"sqlite:///{tmp_path}/m.db")
    assert os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] == "true", "MLflow prints addresses as they are"


def test_path_with_a_percent_sign_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mlflow, "__file__", "/team/100%/mlflow/__init__.py")
    with pytest.raises(ModelUnavailable, match="/team/100%/mlflow: .*Rename the folder"):
        download.connect(f"sqlite:///{tmp_path}/m.db")
