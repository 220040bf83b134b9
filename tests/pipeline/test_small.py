"""The pipeline on a small cut of the data: what reruns after which change, and how it stops."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from mlflow import MlflowClient

from app.errors import BundleInvalid
from app.registry import download, registered
from ops.problem.problem_check import CARD_KEYS
from ops.registry.commands import PromotionRefused, promote
from stages import params, register
from stages.base.paths import EVALUATION_FILE
from stages.evaluation import versions
from stages.evaluation.metrics import HIGHER_IS_BETTER
from stages.tracking import mlflow_runs
from tests.conftest import Clone
from tests.pipeline.conftest import executed, set_param


@pytest.mark.long
def test_a_parameter_reruns_its_stage_and_what_follows(changing: Clone) -> None:
    set_param(changing, "evaluate", "ece_bins", 5)
    assert executed(changing.run("dvc", "repro", "--dry").stdout)[0] == "evaluate"
    set_param(changing, "train", "num_leaves", 5)
    assert executed(changing.run("dvc", "repro").stdout) == ["train", "evaluate", "register"]
    assert "num_leaves" in changing.run("dvc", "params", "diff").stdout
    assert "roc_auc" in changing.run("dvc", "metrics", "diff").stdout


def test_changed_byte_in_the_data_stops_at_once(changing: Clone) -> None:
    path = changing.path / "data/weather.csv"
    original = path.read_bytes()
    path.write_bytes(original.replace(b"39.02", b"93.02", 1))
    done = changing.run("dvc", "repro", check=False)
    assert done.returncode != 0
    assert "data/weather.csv" in done.stderr and "make data" in done.stderr and "Traceback" not in done.stderr
    assert executed(done.stdout) == ["validate"]
    assert path.read_bytes() != original


@pytest.mark.long
def test_failing_stage_is_a_failed_run_with_its_error(changing: Clone) -> None:
    set_param(changing, "featurize", "reference_rows", 10**9)
    done = changing.run("python", "-m", "stages.featurize", check=False)
    assert done.returncode == 1 and done.stderr.startswith("error: params.yaml: featurize.reference_rows")
    assert done.stderr.count("\n") == 1
    client = MlflowClient(f"sqlite:///{changing.path}/mlflow.db")
    experiment = client.get_experiment_by_name(mlflow_runs.EXPERIMENT)
    assert experiment is not None
    newest = client.search_runs([experiment.experiment_id], max_results=1)[0]
    assert (newest.data.tags[mlflow_runs.STAGE_TAG], newest.info.status) == ("featurize", "FAILED")
    assert newest.data.params["reference_rows"] == str(10**9)


def inside(clone: Clone, patch: pytest.MonkeyPatch) -> None:
    """Make the clone the current folder."""
    patch.chdir(clone.path)
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{clone.path}/mlflow.db")


def test_a_tampered_bundle_is_not_registered(changing: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    inside(changing, monkeypatch)
    path = changing.path / "build/bundle/model.lgb"
    content = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(content.replace(b"leaf_value=", b"leaf_value=9", 1))
    with pytest.raises(BundleInvalid, match="not match its manifest"):
        register.main()


def test_a_weak_model_is_registered_but_not_promoted(small: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    inside(small, monkeypatch)
    with pytest.raises(PromotionRefused, match="is refused.*brier skill"):
        promote(mlflow_runs.connect(), params.load(), None)
    assert json.loads(Path("build/receipt.json").read_bytes())["floors"] is False


def test_evaluation_travels_with_the_version(small: Clone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    inside(small, monkeypatch)
    register.main()  # another test may have registered a later version
    client, uri = mlflow_runs.connect(), mlflow_runs.tracking_uri()
    version = download.find(uri, "flight-delay", "staging")
    kept = Path(client.get_run(version.run_id or "").info.artifact_uri.removeprefix("file://")) / EVALUATION_FILE.name
    first = kept.read_bytes()
    kept.unlink()
    download.export(version, "staging", uri, tmp_path / "without")
    assert registered.load(tmp_path / "without", "registry").evaluation is None
    register.main()
    assert kept.read_bytes() == first
    download.export(version, "staging", uri, tmp_path / "copy")
    found = registered.load(tmp_path / "copy", "registry").evaluation
    assert found
    measured = json.loads(EVALUATION_FILE.read_bytes())
    assert {key: found[key] for key in measured} == measured
    assert set(found) - set(measured) == {"curves", "importance", "metrics", "texts"}
    assert list(found["importance"])[0] == (versions.PLOTS_DIR / "importance.csv").read_text().split()[1].split(",")[0]
    assert {name: set(curve) for name, curve in found["curves"].items()} == {
        "roc": {"false_positive_rate", "true_positive_rate"},
        "calibration": {"predicted", "observed", "rows"},
    }
    assert sum(found["curves"]["calibration"]["rows"]) == found["rows"]["test"]["rows"]
    assert found["metrics"]["log_loss"] == {"title": "log loss", "higher_is_better": False}
    assert list(found["metrics"]) == list(HIGHER_IS_BETTER) and set(found["texts"]) == CARD_KEYS


def on_time(clone: Clone, line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the clone."""
    return clone.run("python", "-m", "ops.cli", *line.split(), check=False, **environment)


@pytest.mark.long
def test_deleted_version_is_made_again_as_named(changing: Clone, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mine.db"
    assert "Version 1 of flight-delay is Staging" in on_time(changing, "model repro", MLFLOW_TRACKING_URI=uri).stdout
    MlflowClient(uri).delete_registered_model("flight-delay")
    missing = on_time(changing, "model promote", MLFLOW_TRACKING_URI=uri)
    assert missing.returncode == 1 and "`make repro` makes one" in missing.stderr
    again = on_time(changing, "model repro", MLFLOW_TRACKING_URI=uri)
    assert executed(again.stdout) == [] and "Version 1 of flight-delay is Staging" in again.stdout, again.stderr
    assert (
        on_time(changing, "model promote", MLFLOW_TRACKING_URI=uri).returncode == 3
    )  # the gate refuses it, weak as it is
    assert not [line for line in changing.git_status().splitlines() if not line.startswith("??")]


@pytest.mark.long
def test_conflict_or_owner_stops_before_any_stage(changing: Clone) -> None:
    (changing.path / "dvc.lock").write_text("<<<<<<< HEAD\n" + (changing.path / "dvc.lock").read_text())
    for command in ("model repro", "ci check-lock"):
        done = on_time(changing, command)
        assert done.returncode == 1 and "error: dvc.lock:1: conflict marker" in done.stderr, done.stderr
    done = on_time(changing, "model repro", GIT_TEST_ASSUME_DIFFERENT_OWNER="1")
    assert done.returncode == 1 and "safe.directory" in done.stderr and done.stdout == ""


def test_promotion_needs_the_rows_of_the_lock(small: Clone, tmp_path: Path) -> None:
    path = next((small.path / "build/features/test").iterdir())
    path.rename(tmp_path / path.name)
    try:
        refused = small.run("python", "-m", "ops.cli", "model", "promote", check=False)
    finally:
        (tmp_path / path.name).rename(path)
    assert refused.returncode == 1 and "build/features is not what dvc.lock names" in refused.stderr


@pytest.mark.long
def test_later_evaluation_replaces_the_first(changing: Clone, tmp_path: Path) -> None:
    set_param(changing, "evaluate", "ece_bins", 5)
    assert executed(changing.run("dvc", "repro").stdout) == ["evaluate", "register"]
    client = MlflowClient(f"sqlite:///{changing.path}/mlflow.db")
    version = client.get_model_version_by_alias("flight-delay", "staging")
    kept = client.download_artifacts(str(version.run_id), "metrics.json", str(tmp_path))
    assert Path(kept).read_bytes() == (changing.path / "reports/metrics.json").read_bytes()
    measured = json.loads(Path(kept).read_text(encoding="utf-8"))["test"]
    assert client.get_run(str(version.run_id)).data.metrics["ece"] == measured["ece"]


ELSEWHERE = {"release rebuild", "release smoke", "release load-test", "release verify", "release audit"} | {
    "model gate-selftest",
    "monitor drift-selftest",
    "bench request",
    "ci fuzz",
    "ci soak",
}
"""Commands that change nothing, and need Docker, a network, a service or a long time."""


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder that are not git's, DVC's or compiled, with their bytes."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "pipeline.lock"]
    names = {path.relative_to(folder).as_posix(): path for path in paths if "__pycache__" not in path.parts}
    return {name: path.read_bytes() for name, path in names.items() if not name.startswith((".git/", ".dvc/"))}


@pytest.mark.long
def test_commands_that_change_nothing_change_nothing(small: Clone) -> None:
    page = Path("docs/reference/cli.md").read_text(encoding="utf-8")
    reading = set(re.findall(r"^\| `on-time (.+)` \|.*\| nothing \|$", page, re.MULTILINE)) - ELSEWHERE
    assert {"data status", "model gate", "doctor"} < reading
    small.run("python", "-m", "ops.cli", "model", "history")  # moves MLflow's store to this copy of the folder
    before = contents(small.path)
    for command in sorted(reading):
        options = ["--base", "HEAD"] if command == "model gate" else []
        small.run("python", "-m", "ops.cli", *command.split(), *options, check=False)
    after = contents(small.path)
    assert [name for name in before | after if before.get(name) != after.get(name)] == []
