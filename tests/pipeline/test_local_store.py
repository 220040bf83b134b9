"""A local MLflow store follows its folder: a real one, moved, copied, and separated from its artifacts."""

from __future__ import annotations

import shlex
import shutil
import sqlite3
import subprocess
from pathlib import Path

import mlflow
import pytest

from app.errors import ModelUnavailable
from app.model import bundles
from app.registry import download, registered
from stages.tracking import local_store, logged_model, mlflow_runs
from tests.support.repositories.scratch import make_repository


def _enter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    uri = f"sqlite:///{folder}/mlflow.db"  # absolute, or MLflow would keep the connection to the old file
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


@pytest.fixture(scope="module")
def made(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with MLflow's database and artifacts, where version 1 of `m` is Production."""
    folder = tmp_path_factory.mktemp("store") / "first"
    shutil.copytree(bundle_dir, folder / "bundle")
    (folder / "bundle" / bundles.REFERENCE_FILE).touch()
    make_repository(folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        _enter(folder, monkeypatch)
        client = mlflow_runs.connect()
        with mlflow.start_run() as run:
            logged_model.log_bundle(folder / "bundle")
    tags = mlflow.get_run(run.info.run_id).data.tags
    digest, uri = tags[mlflow_runs.DIGEST_TAG], tags[mlflow_runs.MODEL_URI_TAG]
    client.create_registered_model("m")
    client.create_model_version("m", uri, run.info.run_id, {mlflow_runs.DIGEST_TAG: digest}, model_id=uri.split("/")[1])
    client.set_registered_model_alias("m", "production", "1")
    return shutil.copytree(folder, folder.with_name("made"))


@pytest.fixture
def store(made: Path) -> Path:
    """The same at the place that its database records, alone."""
    for folder in made.parent.iterdir():
        if folder != made:
            shutil.rmtree(folder)
    return shutil.copytree(made, made.with_name("first"))


def _serves_and_logs_in(folder: Path, uri: str) -> None:
    """Load Production, and log an artifact as a stage does."""
    mlflow_runs.connect()
    download.export(download.find(uri, "m", "production"), "production", uri, folder / "copy")
    assert registered.load(folder / "copy", "registry").version == "1"
    with mlflow_runs.stage_run("decision") as log:
        log.artifact(folder / "copy" / "version.json")
    assert any(path.name == "version.json" for path in (folder / "mlruns").rglob("*"))


@pytest.mark.parametrize("place", ["moved", "100% of späces"])
def test_a_moved_store_is_used_where_it_is(
    store: Path, place: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    there = store.rename(store.with_name(place))
    uri = _enter(there, monkeypatch)
    mlflow_runs.connect()
    assert capfd.readouterr().err == (
        f"mlflow.db was moved or copied from {store}: its artifacts are now those in {there}.\n"
    )
    assert local_store.follow(uri) is None
    _serves_and_logs_in(there, uri)
    assert not store.exists()


def test_a_copy_leaves_the_original_alone(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = shutil.copytree(store, store.with_name("copy"))
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    _serves_and_logs_in(there, _enter(there, monkeypatch))
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


def test_encoded_paths_are_followed(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = store.rename(store.with_name("ä b"))
    with sqlite3.connect(first / "mlflow.db") as database:
        for table, column in local_store.COLUMNS:
            encoded = f"replace({column}, '{store}', '{first.as_uri()}')"
            database.execute(f"UPDATE {table} SET {column} = {encoded}")
    there = first.rename(store.with_name("c d"))
    _serves_and_logs_in(there, _enter(there, monkeypatch))


def test_missing_artifacts_are_named(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = store.with_name("database alone")
    there.mkdir()
    make_repository(there)
    shutil.copy2(store / "mlflow.db", there)
    uri = _enter(there, monkeypatch)
    with pytest.raises(ModelUnavailable, match=f"are in another folder, {store}/mlruns") as stopped:
        mlflow_runs.connect()
    assert not (there / "mlruns").exists()
    subprocess.run(shlex.split(str(stopped.value).split("`")[1]), check=True)  # the command that copies them
    _serves_and_logs_in(there, uri)
    shutil.copy2(store / "mlflow.db", there)
    shutil.rmtree(store)
    shutil.rmtree(there / "mlruns")
    with pytest.raises(ModelUnavailable, match=f"were in {store}/mlruns, which does not exist"):
        mlflow_runs.connect()


@pytest.mark.parametrize("artifacts", [True, False])
def test_what_was_set_on_purpose_is_kept(
    store: Path, artifacts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = store.rename(store.with_name("moved"))
    monkeypatch.chdir(there if artifacts else tmp_path)
    if artifacts:  # they are where a user wants them; otherwise the store itself is in another folder
        with sqlite3.connect(there / "mlflow.db") as database:
            database.execute("UPDATE experiments SET artifact_location = '/srv/artifacts/' || experiment_id")
    before = (there / "mlflow.db").read_bytes()
    assert local_store.follow(f"sqlite:///{there}/mlflow.db") is None
    assert (there / "mlflow.db").read_bytes() == before
