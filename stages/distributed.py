"""Training with Ray Train: each worker has a share of the rows, and together they make the model of all rows.

LightGBM's workers exchange the histograms of their rows only with `tree_learner: data_parallel` and the network
parameters of Ray Train; without them, each one silently trains on its share alone. `refuse_alone` detects that.
"""

# pylint: disable=import-outside-toplevel # Ray is an extra

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import lightgbm
import numpy as np
import pyarrow.parquet as pq

from app.errors import OnTimeError
from app.features import Floats
from app.interface import CATEGORIES, FEATURE_NAMES, without
from stages.cluster import cluster
from stages.files import write_json
from stages.frames import TARGET
from stages.sections import TrainParams

RETRIES = 2
"""Number of times that training is repeated after a worker has ended; models that were complete are kept."""
SOCKET_MINUTES = 10
"""Time after which LightGBM gives up a worker that sends nothing; Ray notices a worker that has ended in seconds."""
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


class Share(NamedTuple):
    """The rows of one worker: every `workers`-th row of a fit, from row `rank` on.

    So each worker has rows of all months: a worker finds the bins of some features in its own rows, and bins that
    were found in the winter would not tell the temperatures of the summer apart.
    """

    files: Sequence[Path]
    places: Sequence[int]
    """The row of the fit that is the first one of each file, and the number of rows of the fit."""
    rank: int
    workers: int

    @property
    def total(self) -> int:
        """Return the number of rows of the fit."""
        return self.places[-1]

    def first(self, file: int) -> int:
        """Return the position of this worker's first row in a file."""
        return (self.rank - self.places[file]) % self.workers


class Masks(NamedTuple):
    """Which groups of features are masked in which share of the rows; the same rows for any number of workers."""

    seed: int
    shares: Mapping[str, float]

    def apply(self, features: Floats, first: int, total: int) -> Floats:
        """Mask rows that begin with row `first` of `total`."""
        for number, (group, share) in enumerate(self.shares.items()):
            drawn = np.random.PCG64(self.seed).advance(number * total + first)
            masked = np.random.Generator(drawn).random(len(features)) < share
            features = np.where(masked[:, None], without(group, features), features)
        return features


class Rows(lightgbm.Sequence):
    """A worker's features in a file; one row group of the file is in memory at a time."""

    batch_size = 100_000

    def __init__(self, share: Share, file: int, masks: Masks) -> None:
        self.share, self.path, self.masks = share, share.files[file], masks
        self.place, self.skipped = share.places[file], share.first(file)
        metadata = pq.read_metadata(self.path)
        self._groups = [0, *accumulate(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))]
        self._starts = [len(range(self.skipped, row, share.workers)) for row in self._groups]
        self._first, self._block = 0, np.empty((0, len(FEATURE_NAMES)))

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, rows: Any) -> Floats:
        """Return one row, shape (k,), or consecutive rows, shape (n, k)."""
        if not isinstance(rows, slice):
            return np.asarray(self._from(int(rows))[0])
        row, last, parts = rows.start, min(rows.stop, len(self)), []
        while row < last:
            parts.append(self._from(row)[: last - row])
            row += len(parts[-1])
        return np.concatenate(parts)

    def _from(self, row: int) -> Floats:
        """Return the rows from one on to the end of its row group."""
        if not self._first <= row < self._first + len(self._block):
            group = int(np.searchsorted(self._starts, row, side="right")) - 1
            table = pq.ParquetFile(self.path).read_row_group(group, columns=list(FEATURE_NAMES))
            features = np.column_stack([table[name].to_numpy() for name in FEATURE_NAMES]).astype(np.float64)
            features = self.masks.apply(features, self.place + self._groups[group], self.share.total)
            step = self.share.workers
            self._first, self._block = (
                self._starts[group],
                features[(self.skipped - self._groups[group]) % step :: step],
            )
        return self._block[row - self._first :]


def shares(files: Sequence[Path], workers: int) -> list[Share]:
    """Return the share of each worker."""
    places = [0, *accumulate(pq.read_metadata(file).num_rows for file in files)]
    return [Share(files, places, rank, workers) for rank in range(workers)]


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
        of_fits = [shares([file.resolve() for file in one.files], number) for one in fits]
        config = {
            "folder": scratch,
            "shares": of_fits,
            "masks": Masks(p.seed, p.group_dropout),
            "params": params | {"tree_learner": "data_parallel", "pre_partition": True, "time_out": SOCKET_MINUTES},
            "rounds": p.rounds,
            "network": network,
        }
        with _reported(fits, p.rounds, Path(scratch)):
            _run(config, number)
        fitted = [_fitted(Path(scratch), i, number) for i in range(len(fits))]
        fraction = p.bagging_fraction if p.bagging_freq else 1.0
        for one, of_workers in zip(fitted, of_fits, strict=True):
            refuse_alone(one.booster, of_workers[0].total, fraction)
    return fitted


def refuse_alone(booster: lightgbm.Booster, rows: int, bagging_fraction: float = 1.0) -> None:
    """Raise OnTimeError if the trees were grown on a share of the rows, because the workers were not connected."""
    roots = re.findall(r"^internal_count=(\d+)", booster.model_to_string(), re.MULTILINE)
    found, expected = np.mean([int(root) for root in roots] or [0]), bagging_fraction * rows
    if roots and found < LEAST_ROWS * expected:
        raise OnTimeError(
            f"the trees were grown on {found:,.0f} rows each, not on {expected:,.0f}: each worker has trained alone on "
            "its share. Check `tree_learner` and the network parameters in stages/distributed.py."
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
        run_config=RunConfig(storage_path=config["folder"], failure_config=failures),
    )
    try:
        trainer.fit()
    except TrainingFailedError as err:
        causes = getattr(err, "worker_failures", {})
        reason = next((str(cause) for cause in causes.values()), str(err)).strip().splitlines() or ["no reason given"]
        raise OnTimeError(
            f"Ray Train has ended after {RETRIES} retries: {reason[-1].rstrip('.')}. Check the memory of the workers, "
            "and repeat the command."
        ) from err


def _work(config: dict[str, Any]) -> None:
    """Train the boosters as one of the workers; the first one writes the models, each one its loss."""
    from ray.train import get_context
    from ray.train.collective import barrier

    rank, folder = get_context().get_world_rank(), Path(config["folder"])
    params = config["params"] | config["network"]()
    connected = None
    for number, of_workers in enumerate(config["shares"]):
        model = folder / f"{number}.txt"
        if model.exists():  # of an attempt before; a model is written when no worker can be before this line
            continue
        share: Share = of_workers[rank]
        curve: dict[str, Any] = {}
        data = _dataset(share, config["masks"])
        barrier()
        booster = lightgbm.train(
            params,
            data,
            config["rounds"],
            valid_sets=[data],
            valid_names=["train"],
            callbacks=[lightgbm.record_evaluation(curve)],
        )
        if connected is None:  # the workers stay connected: LightGBM often cannot open the same port a second time
            connected = booster
            params = {name: value for name, value in params.items() if name not in ADDRESSES}
        write_json(
            folder / f"{number}-{rank}.json", {"rows": data.num_data(), "loss": curve["train"]["binary_logloss"]}
        )
        barrier()
        if rank == 0:
            draft = model.with_suffix(".partial")
            draft.write_text(_without_addresses(booster.model_to_string()), encoding="utf-8")
            os.replace(draft, model)


def _dataset(share: Share, masks: Masks) -> lightgbm.Dataset:
    """Return the rows of a worker, which LightGBM reads when the workers are connected, so that their bins agree."""
    targets = [pq.read_table(file, columns=[TARGET])[TARGET].to_numpy() for file in share.files]
    return lightgbm.Dataset(
        [Rows(share, file, masks) for file in range(len(share.files))],
        np.concatenate([target[share.first(file) :: share.workers] for file, target in enumerate(targets)]),
        feature_name=list(FEATURE_NAMES),
        categorical_feature=list(CATEGORIES),
    )


def _without_addresses(model: str) -> str:
    """Return a model without the addresses of the workers, which are others in each run."""
    for name, default in ADDRESSES.items():
        model = re.sub(rf"^\[{name}: .*\]$", f"[{name}: {default}]", model, flags=re.MULTILINE)
    return model


def _fitted(folder: Path, number: int, workers: int) -> Fitted:
    parts = [json.loads((folder / f"{number}-{rank}.json").read_text(encoding="utf-8")) for rank in range(workers)]
    loss = np.average([part["loss"] for part in parts], axis=0, weights=[part["rows"] for part in parts])
    return Fitted(lightgbm.Booster(model_file=folder / f"{number}.txt"), loss.tolist())


@contextmanager
def _reported(fits: Sequence[Fit], rounds: int, folder: Path) -> Iterator[None]:
    """Print a line for each booster as soon as it is trained."""
    ended = threading.Event()

    def watch() -> None:
        for number, one in enumerate(fits):
            while not (folder / f"{number}.txt").exists():
                if ended.wait(1):
                    return
            print(f"{one.label}: {rounds} rounds", file=sys.stderr, flush=True)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
        watching.join()
    finally:
        ended.set()
