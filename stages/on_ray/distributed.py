"""Training with Ray Train: each worker has a share of the rows, and together they make the model of all rows.

LightGBM's workers exchange the histograms of their rows only with `tree_learner: data_parallel` and the network
parameters of Ray Train; without them, each one silently trains on its share alone. `refuse_alone` detects that.
"""

# pylint: disable=import-outside-toplevel # Ray is an extra

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightgbm
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from app.errors import OnTimeError
from stages.base.paths import write_json
from stages.features.feature_files import TARGET
from stages.on_ray.cluster import RETRIES, cluster, ended
from stages.problem_kit.params import TrainParams
from stages.training.boosting import Part, dataset, dropout, read_features

SOCKET_MINUTES = 10
"""Timeout of LightGBM for a silent worker; Ray detects a worker that has ended within seconds."""
ADDRESSES = {"machines": "", "local_listen_port": 12400}
"""The network parameters that name addresses, and their defaults."""
LEAST_ROWS = 0.9
"""Share of the expected rows that the roots of the trees must have; of two workers, one alone has 0.5."""

Network = Callable[[], dict[str, Any]]


class Fit(NamedTuple):
    """A booster to train: its name in messages, and the Parquet files of its rows, in order."""

    label: str
    files: Sequence[Path]


class Fitted(NamedTuple):
    """A trained booster, and the mean log loss on its rows after each round."""

    booster: lightgbm.Booster
    loss: list[float]


def network_params() -> dict[str, Any]:
    """Return what LightGBM needs to reach the other workers; for use by a worker of Ray Train."""
    from ray.train.lightgbm import get_network_params

    return dict(get_network_params())


def fit(
    fits: Sequence[Fit],
    p: TrainParams,
    params: dict[str, Any],
    folder: Path,
    workers: int = 0,
    network: Network = network_params,
) -> list[Fitted]:
    """Train boosters one after the other in one run of Ray Train; raise OnTimeError if workers end again and again.

    `params` are those of LightGBM, `workers` as in `cluster`. The workers write to a new folder within `folder`, which
    all of them must reach at the same path, as well as the files; it is removed afterwards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with cluster(workers) as number, tempfile.TemporaryDirectory(prefix="ray-", dir=folder.resolve()) as scratch:
        config = {
            "folder": Path(scratch),
            "fits": [[file.resolve() for file in one.files] for one in fits],
            "p": p,
            "params": params | {"tree_learner": "data_parallel", "pre_partition": True, "time_out": SOCKET_MINUTES},
            "network": network,
        }
        _run(config, number)
        fitted = []
        for place, one in enumerate(fits):
            found, rows = _read_fitted(Path(scratch), place, number)
            refuse_alone(found.booster, rows, p.bagging_fraction if p.bagging_freq else 1.0)
            print(f"{one.label}: {p.rounds} rounds", file=sys.stderr, flush=True)
            fitted.append(found)
    return fitted


def refuse_alone(booster: lightgbm.Booster, rows: int, bagging_fraction: float = 1.0) -> None:
    """Raise OnTimeError if the trees were grown on a share of the rows, because the workers were not connected."""
    roots = re.findall(r"^internal_count=(\d+)", booster.model_to_string(), re.MULTILINE)
    found = np.mean([int(root) for root in roots] or [0])
    expected = bagging_fraction * rows
    if roots and found < LEAST_ROWS * expected:
        raise OnTimeError(
            f"the trees were grown on {found:,.0f} rows each, not on {expected:,.0f}: each worker has trained alone on "
            "its share. Check `tree_learner` and the network parameters in stages/on_ray/distributed.py."
        )


def _run(config: dict[str, Any], workers: int) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.lightgbm import LightGBMTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    failures = FailureConfig(max_failures=RETRIES, controller_failure_limit=RETRIES)
    trainer = LightGBMTrainer(
        _work,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=workers),
        run_config=RunConfig(storage_path=str(config["folder"]), failure_config=failures),
    )
    try:
        trainer.fit()
    except TrainingFailedError as err:
        causes = getattr(err, "worker_failures", {})
        raise ended(next((str(cause) for cause in causes.values()), str(err))) from err


def _work(config: dict[str, Any]) -> None:
    """Train the boosters as one of the workers; the first one writes the models, each one its loss."""
    from ray.train import get_context
    from ray.train.collective import barrier

    rank, workers = get_context().get_world_rank(), get_context().get_world_size()
    params = config["params"] | config["network"]()
    connected = None
    for number, files in enumerate(config["fits"]):
        model = config["folder"] / f"{number}.txt"
        if model.exists():  # of the attempt before; a model is written when no worker can be before this line
            continue
        data = _share(files, rank, workers, config["p"])
        curve: dict[str, Any] = {}
        barrier()
        booster = lightgbm.train(
            params,
            data,
            config["p"].rounds,
            valid_sets=[data],
            valid_names=["train"],
            callbacks=[lightgbm.record_evaluation(curve)],
        )
        if connected is None:  # the workers stay connected: LightGBM often cannot open the same port a second time
            connected = booster
            params = {name: value for name, value in params.items() if name not in ADDRESSES}
        facts = {"rows": data.num_data(), "loss": curve["train"]["binary_logloss"]}
        write_json(config["folder"] / f"{number}-{rank}.json", facts)
        barrier()
        if rank == 0:
            draft = model.with_suffix(".partial")
            draft.write_text(_without_addresses(booster.model_to_string()), encoding="utf-8")
            draft.rename(model)


def _share(files: Sequence[Path], rank: int, workers: int, p: TrainParams) -> lightgbm.Dataset:
    """Return every `workers`-th row of the files, which LightGBM reads when the workers are connected.

    So each worker has rows of all months: a worker finds the bins of some features in its own rows, and bins that
    were found in the winter would not tell the temperatures of the summer apart.
    """
    sizes = [pq.read_metadata(file).num_rows for file in files]
    parts, targets = [], []
    first = 0
    for file, size in zip(files, sizes, strict=True):
        own = np.arange(first, first + size) % workers == rank
        masks = {group: masked[own] for group, masked in dropout(sum(sizes), p, first, size).items()}
        parts.append(Part(partial(read_features, file), own, masks))
        targets.append(pd.read_parquet(file, columns=[TARGET])[TARGET].to_numpy()[own])
        first += size
    return dataset(parts, np.concatenate(targets))


def _without_addresses(model: str) -> str:
    """Return a model without the addresses of the workers, which are others in each run."""
    for name, default in ADDRESSES.items():
        model = re.sub(rf"^\[{name}: .*\]$", f"[{name}: {default}]", model, flags=re.MULTILINE)
    return model


def _read_fitted(folder: Path, number: int, workers: int) -> tuple[Fitted, int]:
    """Return a booster with its mean loss, and the number of rows that the workers had together."""
    parts = [json.loads((folder / f"{number}-{rank}.json").read_text(encoding="utf-8")) for rank in range(workers)]
    rows = [part["rows"] for part in parts]
    loss = np.average([part["loss"] for part in parts], axis=0, weights=rows)
    return Fitted(lightgbm.Booster(model_file=folder / f"{number}.txt"), loss.tolist()), sum(rows)
