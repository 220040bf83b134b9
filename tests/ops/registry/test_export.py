"""A version as a folder, and the service on that folder with no registry."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from app.errors import ModelUnavailable
from app.interface import EXAMPLE
from app.model import evaluation
from app.model.evaluation import EVALUATION_FILE
from app.registry import registered
from ops.registry import commands
from tests.support.promotion import NAME, Bench, record_of
from tests.support.servers.service import started

Evaluate = Callable[..., dict[str, object]]
FILES = ["evaluation.json", "manifest.json", "model.lgb", "version.json"]


@pytest.fixture(name="evaluate")
def evaluations(bench: Bench) -> Iterator[Evaluate]:
    """Log an evaluation to the training run of a version, of its bundle or of another one, until the test ends."""
    logged: list[Path] = []

    def evaluate(name: str, digest: str = "") -> dict[str, object]:
        version = bench.client.get_model_version(NAME, bench.versions[name])
        facts = {"bundle_digest": digest or version.tags[registered.DIGEST_TAG], "test": {"roc_auc": 0.7}}
        run = bench.client.get_run(version.run_id or "")
        bench.client.log_dict(run.info.run_id, facts, EVALUATION_FILE)
        logged.append(Path((run.info.artifact_uri or "").removeprefix("file://")) / EVALUATION_FILE)
        return facts

    yield evaluate
    for path in logged:
        path.unlink()  # other tests share the artifacts


def test_exported_production_is_served(bench: Bench, evaluate: Evaluate, tmp_path: Path) -> None:
    facts = evaluate("good")
    commands.promote(bench.client, bench.params, bench.versions["good"])
    folder = tmp_path / "deep" / "copy"
    assert str(folder) in commands.export(bench.client, bench.params, folder, None)
    with started(tmp_path, ONTIME_BAKED_MODEL=str(folder)) as service:
        answer = httpx.post(f"{service.base}/predict", json=EXAMPLE).json()
        version = service.version()
    kept = registered.load(folder, "baked")
    assert answer["model"] == version["model"] == {"name": "flight-delay", "version": bench.versions["good"]}
    assert (version["source"], version["alias"]) == ("baked", "production")
    assert version["run_id"] == kept.run_id == bench.client.get_model_version(kept.name, kept.version).run_id
    assert version["bundle_digest"] == json.loads((folder / "version.json").read_text())["bundle_digest"]
    assert sorted(f.name for f in folder.iterdir()) == FILES
    assert kept.evaluation == facts and kept.production == record_of(bench.client)


def test_evaluation_of_another_bundle_is_left_out(bench: Bench, evaluate: Evaluate, tmp_path: Path) -> None:
    evaluate("equal", "0" * 64)
    commands.export(bench.client, bench.params, tmp_path / "copy", bench.versions["equal"])
    assert registered.load(tmp_path / "copy", "baked").evaluation is None


def test_too_large_evaluation_is_left_out(
    bench: Bench, evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate("equal")
    commands.export(bench.client, bench.params, tmp_path / "copy", bench.versions["equal"])
    assert registered.load(tmp_path / "copy", "baked").evaluation is not None
    monkeypatch.setattr(evaluation, "MOST_BYTES", 1)
    assert registered.load(tmp_path / "copy", "baked").evaluation is None


def test_export_without_a_training_run(bench: Bench, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object) -> None:
        raise MlflowException("Run is gone", RESOURCE_DOES_NOT_EXIST)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowClient, "list_artifacts", fail)
        commands.export(bench.client, bench.params, tmp_path / "copy", bench.versions["weak"])
    printed = capfd.readouterr().err
    assert "without its evaluation" in printed and "Run is gone" in printed and printed.count("\n") == 1
    assert registered.load(tmp_path / "copy", "baked").evaluation is None


def test_export_by_number(bench: Bench, tmp_path: Path) -> None:
    client, p = bench.client, bench.params
    with pytest.raises(ModelUnavailable, match="alias production"):
        commands.export(client, p, tmp_path / "copy", None)
    with pytest.raises(ModelUnavailable, match="no version 99"):
        commands.export(client, p, tmp_path / "copy", "99")
    assert not (tmp_path / "copy").exists()
    commands.export(client, p, tmp_path / "copy", bench.versions["weak"])
    kept = registered.load(tmp_path / "copy", "baked")
    assert (kept.version, kept.alias, kept.production) == (bench.versions["weak"], "", None)


def test_export_replaces_an_earlier_export_only(bench: Bench, tmp_path: Path) -> None:
    client, p, version = bench.client, bench.params, bench.versions["weak"]
    folder = tmp_path / "models"
    (folder / "notes").mkdir(parents=True)
    (folder / "notes" / "thesis.txt").write_text("precious", encoding="utf-8")
    (folder / "model.lgb").write_text("mine", encoding="utf-8")
    with pytest.raises(commands.ExportRefused, match=r"other files than an export \(notes\). Nothing was removed"):
        commands.export(client, p, folder, version)
    assert (folder / "notes" / "thesis.txt").read_text(encoding="utf-8") == "precious"
    assert (folder / "model.lgb").read_text(encoding="utf-8") == "mine"
    (tmp_path / "empty").mkdir()
    for _ in range(2):  # into an empty folder, and over an earlier export
        commands.export(client, p, tmp_path / "empty", version)
        assert registered.load(tmp_path / "empty", "baked").version == version


@pytest.mark.parametrize("kind", ["link", "file", "current folder"])
def test_export_refuses(kind: str, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "place"
    target = tmp_path / "target"
    target.mkdir()
    if kind == "link":
        place.symlink_to(target)
    elif kind == "file":
        place.write_text("mine", encoding="utf-8")
    else:
        place.mkdir()
        monkeypatch.chdir(place)
    with pytest.raises(commands.ExportRefused, match="Name a new folder|name a new or empty folder"):
        commands.export(bench.client, bench.params, place, bench.versions["weak"])
    assert place.exists() and (kind != "file" or place.read_text(encoding="utf-8") == "mine")
