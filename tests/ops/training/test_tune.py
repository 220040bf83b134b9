"""The search on made-up flights: it goes on where it was stopped, and proposes what is better, not what is equal."""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path

import mlflow
import numpy as np
import optuna
import pytest
from dvc.utils.serialize import modify_yaml

from app.problem.lookups import Lookups
from ops.gate.evidence import Resampled
from ops.training import tune
from stages import params
from stages.base.paths import FEATURES_DIR, write_json
from stages.features.feature_files import DAY, GROUP
from stages.tracking import mlflow_runs
from tests.conftest import ROOT
from tests.support.processes import started
from tests.support.promotion import flights
from tests.support.repositories.scratch import make_repository

P = params.load(ROOT / "params.yaml")
MAY_FIRST = 15826
WEAK = {"rounds": 100, "learning_rate": 0.02, "num_leaves": 7, "min_data_in_leaf": 1600, "fold_months": [7, 8]}


@pytest.fixture
def folder(tables: Lookups, tmp_path: Path) -> Path:
    """A folder with made-up training flights of May to August, and parameters that learn next to nothing from them."""
    make_repository(tmp_path)
    (tmp_path / FEATURES_DIR / "train").mkdir(parents=True)
    train = flights(0).iloc[::3]
    train[DAY] = train[GROUP] = (MAY_FIRST + np.arange(len(train)) * 120 // len(train)).astype(np.int32)
    train.to_parquet(tmp_path / FEATURES_DIR / "train/0000-all.parquet", index=False)
    write_json(tmp_path / FEATURES_DIR / "lookups.json", tables.to_json())
    with modify_yaml(str(shutil.copy(ROOT / "params.yaml", tmp_path))) as content:
        content["train"] |= WEAK
        content["gate"]["slices"] = ["origin=EWR", "carrier=UA"]
        content["gate"]["promotion"]["max_size_ratio"] = 100.0
    return tmp_path


@pytest.mark.long
def test_interrupted_search_continues(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "params.yaml").read_text()
    monkeypatch.chdir(folder)
    address = f"sqlite:///{folder}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    command = [sys.executable, "-u", "-m", "ops.cli", "model", "tune", "--trials", "4"]
    with started(command, PYTHONPATH=str(ROOT), MLFLOW_TRACKING_URI=address) as search:
        search.wait_until("the first trial ends", lambda: "trial 1 of 4" in search.output())
        client = mlflow_runs.connect()
        second = {"mlflow.runName": "trial 1"}
        search.wait_until(
            "the second has its parameters", lambda: any(r.data.params for r in mlflow_runs.find_runs(client, second))
        )
        search.send_signal(signal.SIGINT)
        assert search.wait(300) != 0 and "trial 4 of 4" not in search.output()
    for apply in (False, True):
        assert (folder / "params.yaml").read_text() == before
        tune.search_parameters(4, apply)
        out, err = capsys.readouterr()
        assert "-  num_leaves: 7" in out and "trial 1 of 4" not in err
    after = (folder / "params.yaml").read_text()
    changed = [pair for pair in zip(before.splitlines(), after.splitlines(), strict=True) if pair[0] != pair[1]]
    assert changed and {pair[0].split(":")[0].strip() for pair in changed} <= set(tune.SPACE)
    params.load(folder / "params.yaml")

    (parent,) = mlflow_runs.find_runs(client, {mlflow_runs.STAGE_TAG: "tune"})
    trials = mlflow_runs.find_runs(client, {mlflow_runs.STAGE_TAG: "trial", mlflow_runs.PARENT_TAG: parent.info.run_id})
    assert len(trials) == 4 and trials[-1].data.params["num_leaves"] == "7"
    assert parent.data.tags["decision"] == "proposed" and parent.data.metrics["log_loss_gain"] > 0
    mlflow.set_tracking_uri("")


def test_first_trial_is_what_params_yaml_has(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    p = params.load().train
    first = tune.ask(tune.open_study(p, 2.0))
    assert first.params == tune.present(p)
    study = tune.open_study(p, 2.0)
    assert tune.ask(study).params == first.params
    assert study.trials[first.number].state == optuna.trial.TrialState.FAIL


def test_too_large_model_is_never_the_best(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    p = params.load().train
    study = tune.open_study(p, 2.0)
    losses = {p.num_leaves: 0.5, 2 * p.num_leaves: 0.45, 2 * p.num_leaves + 1: 0.4}
    for leaves in losses:
        study.enqueue_trial(tune.present(p) | {"num_leaves": leaves}, skip_if_exists=True)
    for _ in losses:
        trial = tune.ask(study)
        study.tell(trial, losses[trial.params["num_leaves"]])
    assert study.best_value == 0.45 and study.best_params["num_leaves"] == 2 * p.num_leaves


def measured(log_loss: float, noise: float = 0.0, slice_loss: float = 0.5) -> Resampled:
    """Return what a model of this log loss shows, its resamples scattered by `noise`."""
    scatter = np.random.default_rng(0).normal(0, noise, 1001)
    scatter[0] = 0
    whole = {name: np.full(1001, 0.5) for name in P.gate.promotion.margins}
    return Resampled(
        whole | {"log_loss": log_loss + scatter},
        {name: {"log_loss": np.full(1001, slice_loss), "roc_auc": np.full(1001, 0.7)} for name in P.gate.slices},
    )


@pytest.mark.parametrize(
    ("challenger", "reason"),
    [
        (measured(0.501), "log_loss (gain)"),
        (measured(0.499, noise=0.0005), "log_loss (gain)"),  # 2 standard deviations, of 40 trials the best
        (measured(0.49, slice_loss=0.9), "log_loss (not worse)"),
    ],
)
def test_worse_or_better_by_chance_is_not_proposed(challenger: Resampled, reason: str) -> None:
    decision = tune.decide_parameters(challenger, measured(0.5), P, trials=40)
    assert not decision.accepted and all(reason in text for text in decision.reasons)
    assert tune.decide_parameters(measured(0.49, noise=0.0005), measured(0.5), P, trials=40).accepted
