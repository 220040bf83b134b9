"""A small registry: models of made-up flights, registered as the pipeline does, on SQLite and a real server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from app.interface import EXAMPLE, FEATURE_NAMES
from app.model import bundle as model
from app.problem.lookups import Lookups
from ops.release.docker import has_engine
from stages import params, tracking
from stages.decision import Decision
from stages.featurize import DAY, OUT_DIR, TARGET
from stages.files import METRICS_FILE, write_json
from stages.params import Params
from stages.register import register
from stages.train import matrix, write_bundle
from tests.conftest import ROOT, free_port, make_clone, running
from tests.support.release import Release

DAYS, PER_DAY = 40, 300
FIRST_DAY = 16010  # 2013-11-01
SMALL = {"verbosity": -1, "objective": "binary", "num_leaves": 15, "seed": 1, "num_threads": 1}
MEASURED = {"roc_auc": 0.8, "pr_auc": 0.8, "log_loss": 0.5, "brier": 0.15, "ece": 0.01, "top_precision": 0.9}


def flights(seed: int) -> pd.DataFrame:
    """Return made-up flights: rain and the evening are bad."""
    rng = np.random.default_rng(seed)
    rows = DAYS * PER_DAY
    frame = pd.DataFrame(rng.random((rows, len(FEATURE_NAMES))), columns=list(FEATURE_NAMES))
    for name in ("carrier", "origin", "dest"):
        frame[name] = rng.integers(0, 3, rows).astype(float)
    frame["departure_minute"] *= 1440
    risk = frame["precipitation_in"] + frame["departure_minute"] / 1440 + rng.normal(0, 0.35, rows)
    day = FIRST_DAY + np.repeat(np.arange(DAYS), PER_DAY)
    return frame.assign(**{TARGET: (risk > 1).astype(np.int8), DAY: day.astype(np.int32)})


@dataclass(frozen=True)
class Bench:
    """A folder with parameters and test flights, and a registry whose versions are named."""

    path: Path
    uri: str
    versions: dict[str, str]

    @property
    def client(self) -> MlflowClient:
        """A client of the registry."""
        return tracking.connect()

    @property
    def params(self) -> Params:
        """The parameters in the folder."""
        return params.load(self.path / "params.yaml")

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command of the registry as a process of its own."""
        env = os.environ | {"MLFLOW_TRACKING_URI": self.uri, "PYTHONPATH": str(ROOT)}
        pipe = subprocess.PIPE
        command = [sys.executable, "-m", "ops.registry.commands", *arguments]
        return subprocess.Popen(command, cwd=self.path, env=env, stdout=pipe, stderr=pipe, text=True)


@pytest.fixture(scope="session")
def folder(tables: Lookups, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with params.yaml, made-up test flights and bundles of different quality."""
    path = tmp_path_factory.mktemp("registry")
    p = yaml.safe_load((ROOT / "params.yaml").read_text())
    p["gate"] |= {"floors": {"roc_auc": 0.6}, "leak_roc_auc": 1.0, "brier_skill": 0.0, "log_loss_gain": 0.0}
    p["gate"]["slices"] = ["origin=EWR", "carrier=UA", "hour=13-17"]
    p["gate"]["promotion"] |= {"bootstrap": 200, "latency_calls": 20, "max_latency_ratio": 50.0, "max_size_ratio": 50.0}
    p["gate"]["promotion"]["margins"] = {"roc_auc": 0.01, "log_loss": 0.01}  # these models hardly differ by chance
    (path / "params.yaml").write_text(yaml.safe_dump(p))
    test, train = flights(1), flights(0)
    (path / OUT_DIR).mkdir(parents=True)
    test.to_parquet(path / OUT_DIR / "test.parquet", index=False)
    write_json(path / OUT_DIR / "lookups.json", tables.to_json())
    baselines = {"test": MEASURED, "constant": {"brier": 0.25}, "logistic": {"log_loss": 0.69}}
    write_json(path / METRICS_FILE, baselines)
    target = train[TARGET].to_numpy()
    no_ua = np.where(train["carrier"] == 2, target.mean() > np.random.default_rng(0).random(len(target)), target)
    made: dict[str, tuple[Any, int, float]] = {
        "weak": (target, 8, 0.5),
        "good": (target, 20, 0.5),
        "better": (target, 45, 0.5),
        "equal": (target, 8, 0.6),  # as weak, with another threshold
        "shuffled": (np.random.default_rng(0).permutation(target), 60, 0.5),
        "broken slice": (no_ua, 60, 0.5),
    }
    for name, (labels, rounds, threshold) in made.items():
        data = lightgbm.Dataset(matrix(train), labels, feature_name=list(FEATURE_NAMES), categorical_feature=[0, 1, 2])
        booster = lightgbm.train(SMALL, data, rounds)
        facts = {"threshold": threshold, "lookups": tables.to_json(), "training_data_sha256": "0" * 64}
        write_bundle(booster, facts, [EXAMPLE], path / "bundles" / name)
        (path / "bundles" / name / model.REFERENCE_FILE).write_bytes(b"none")
    return path


def fill(path: Path, names: list[str]) -> dict[str, str]:
    """Register bundles of the folder in this order, and return their version numbers."""
    client, p, versions = tracking.connect(), params.load(), {}
    for name in names:
        with tracking.stage_run("train"):
            tracking.log_bundle(path / "bundles" / name)
        folder = path / "bundles" / name
        digest = model.load(folder / model.MODEL_FILE, folder / model.MANIFEST_FILE).digest
        versions[name] = str(register(client, p, digest, Decision(()), MEASURED).version)
    return versions


@pytest.fixture(scope="session")
def filled(folder: Path) -> tuple[Path, dict[str, str]]:
    """A SQLite file in which every bundle is registered; nothing is promoted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        versions = fill(folder, ["weak", "good", "better", "equal", "shuffled", "broken slice"])
    return folder / "mlflow.db", versions


@pytest.fixture
def bench(filled: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A copy of that file, which the test may change."""
    database, versions = filled
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    shutil.copy(database, tmp_path / "mlflow.db")
    monkeypatch.chdir(database.parent)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return Bench(database.parent, uri, versions)


@pytest.fixture
def served(
    folder: Path, filled: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    """The same folder with a real MLflow server on loopback, in which three bundles are registered over HTTP."""
    assert filled  # its SQLite file exists: MLflow has made its tables once in this session
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", str(tmp_path)]
    with running(command, f"{uri}/health", tmp_path):
        monkeypatch.chdir(folder)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        yield Bench(folder, uri, fill(folder, ["weak", "good", "better"]))
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="session")
def release(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """A clone whose registry holds two small models, version 1 in Production, and the image of that version."""
    if not has_engine() and not os.environ.get("CI"):
        pytest.skip("no Docker engine answers on this machine")
    clone = make_clone(tmp_path_factory.mktemp("release"), data=False)
    clone.run("git", "remote", "add", "origin", "https://user:token@git.example.com/team/on-time.git")
    uri = f"sqlite:///{clone.path}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(clone.path)
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        fill(folder, ["good", "better"])
    repository = f"on-time-test-{os.getpid()}"
    commit = clone.run("git", "rev-parse", "HEAD").stdout.strip()
    made = Release(clone.path, uri, commit, repository)
    made.promote("1")
    done = made.run("ops.release.image", "build")
    assert done.returncode == 0, done.stderr[-3000:]
    yield made
    made.remove()


def decision_of(client: MlflowClient, run_id: str) -> dict[str, Any]:
    """Return the evidence that a decision run keeps."""
    with open(client.download_artifacts(run_id, "decision.json"), encoding="utf-8") as file:
        return dict(json.load(file))
