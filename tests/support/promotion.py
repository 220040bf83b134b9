"""What promotion needs: models of made-up flights, registered as the pipeline does."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import yaml
from mlflow import MlflowClient

from app.interface import EXAMPLE, FEATURE_NAMES
from app.model import bundles
from app.model.served import Production
from app.problem.lookups import Lookups
from app.registry import download
from ops.registry import aliases
from ops.registry.aliases import PRODUCTION
from stages import params
from stages.base.paths import FEATURES_DIR, METRICS_FILE, write_json
from stages.evaluation.floors import Decision
from stages.evaluation.versions import register_version
from stages.features.feature_files import DAY, GROUP, KEY, TARGET, matrix
from stages.params import Params
from stages.problem_kit.rows import months_of
from stages.tracking import logged_model, mlflow_runs
from stages.training.bundle import write_bundle
from tests.support.models import ROWS
from tests.support.processes import Program, started
from tests.support.repositories.clone import ROOT
from tests.support.repositories.scratch import make_repository

NAME = "flight-delay"
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
    day = (FIRST_DAY + np.repeat(np.arange(DAYS), PER_DAY)).astype(np.int32)
    return frame.assign(
        **{TARGET: (risk > 1).astype(np.int8), DAY: day, GROUP: day, KEY: np.arange(rows, dtype=np.uint64)}
    )


@dataclass(frozen=True)
class Bench:
    """A folder with parameters and test flights, and a registry whose versions are named."""

    path: Path
    uri: str
    versions: dict[str, str]

    @property
    def client(self) -> MlflowClient:
        """A client of the registry."""
        return mlflow_runs.connect()

    @property
    def params(self) -> Params:
        """The parameters in the folder."""
        return params.load(self.path / "params.yaml")

    def promotion(self, version: str) -> AbstractContextManager[Program]:
        """Promote a version in a process of its own, which ends with the block."""
        command = [sys.executable, "-m", "ops.cli", "model", "promote", "--version", version]
        return started(command, self.path, MLFLOW_TRACKING_URI=self.uri, PYTHONPATH=str(ROOT))


def make_folder(path: Path, tables: Lookups) -> None:
    """Write params.yaml, made-up test flights and bundles of different quality to a repository."""
    make_repository(path)
    p = yaml.safe_load((ROOT / "params.yaml").read_text())
    p["gate"] |= {"floors": {"roc_auc": 0.6}, "leak_roc_auc": 1.0, "brier_skill": 0.0, "log_loss_gain": 0.0}
    p["gate"]["slices"] = ["origin=EWR", "carrier=UA", "hour=13-17"]
    p["gate"]["promotion"] |= {"bootstrap": 200, "latency_calls": 20, "max_latency_ratio": 50.0, "max_size_ratio": 50.0}
    p["gate"]["promotion"]["margins"] = {"roc_auc": 0.01, "log_loss": 0.01}  # these models hardly differ by chance
    (path / "params.yaml").write_text(yaml.safe_dump(p))
    test, train = flights(1), flights(0)
    (path / FEATURES_DIR / "test").mkdir(parents=True)
    for month, rows in test.groupby(months_of(test[DAY].to_numpy())):
        rows.to_parquet(path / FEATURES_DIR / "test" / f"{month:04d}.parquet", index=False)
    write_json(path / FEATURES_DIR / "lookups.json", tables.to_json())
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
        facts = {"threshold": threshold, "lookups": tables.to_json(), "training_data_sha256": "0" * 64, "rows": ROWS}
        write_bundle(booster, facts, [EXAMPLE], path / "bundles" / name)
        train.head(1).to_parquet(path / "bundles" / name / bundles.REFERENCE_FILE)


def fill(path: Path, names: list[str]) -> dict[str, str]:
    """Register bundles of the folder in this order, and return their version numbers."""
    client, p, versions = mlflow_runs.connect(), params.load(), {}
    for name in names:
        with mlflow_runs.stage_run("train"):
            logged_model.log_bundle(path / "bundles" / name)
        folder = path / "bundles" / name
        digest = bundles.load(folder / bundles.MODEL_FILE, folder / bundles.MANIFEST_FILE).digest
        versions[name] = str(register_version(client, p, digest, Decision(()), MEASURED).version)
    return versions


def decision_of(client: MlflowClient, run_id: str) -> dict[str, Any]:
    """Return the evidence that a decision run keeps."""
    with open(client.download_artifacts(run_id, "decision.json"), encoding="utf-8") as file:
        return dict(json.load(file))


def pointers(client: MlflowClient) -> tuple[str | None, str | None]:
    """Return the version that is Production, and the one that was before."""
    return aliases.read_aliases(client, NAME).get(PRODUCTION), aliases.previous(client, NAME)


def decisions(client: MlflowClient) -> list[Any]:
    """Return the decision runs, newest first."""
    return mlflow_runs.find_runs(client, {mlflow_runs.STAGE_TAG: "decision"})


def record_of(client: MlflowClient) -> Production:
    """Return the record of how the Production version became that."""
    found = download.registered(client.get_model_version_by_alias(NAME, PRODUCTION), PRODUCTION).production
    assert found
    return found


def assert_settled(client: MlflowClient) -> None:
    """Assert that alias, history and record tell one story."""
    last, record = aliases.moves(client, NAME)[-1], record_of(client)
    assert (record.run_id, record.action, record.why) == (last["run_id"], last["action"], last["why"])
    assert abs(record.since - int(last["at"]) / 1000) < 5
    assert pointers(client) == (last["to"], last["from"] or None)
