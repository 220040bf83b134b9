"""Train boosters on rows that are read file by file: only LightGBM's bins of them, a byte a value, are in memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import lightgbm
import numpy as np
import numpy.typing as npt
import pandas as pd

from app.interface import CATEGORIES, FEATURE_NAMES, without
from app.problem_kit.features import Floats
from stages.base import progress
from stages.features import feature_files
from stages.features.feature_files import DAY, GROUP, KEY, TARGET, matrix
from stages.problem_kit.params import TrainParams
from stages.problem_kit.rows import Mask

Targets = npt.NDArray[np.int8]
Read = Callable[[], Floats]


class Part(lightgbm.Sequence):
    """Some rows of a file; the rows of the part that was read last are kept, for all parts together."""

    batch_size = 1 << 16
    _last: Part | None = None
    _kept: Floats = np.empty((0, len(FEATURE_NAMES)))

    def __init__(self, read: Read, rows: Mask, masks: dict[str, Mask]) -> None:
        """Set the reader of the file, the rows to use, and the rows where each group of features is masked."""
        self._read, self._rows, self._masks = read, rows, masks
        self._length = int(rows.sum())

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Floats:
        if Part._last is not self:
            Part._kept = Part._kept[:0]  # frees the memory first
            Part._kept, Part._last = self.features(), self
        rows: Floats = Part._kept[index]
        return rows

    def features(self) -> Floats:
        """Return the features, shape (n, k)."""
        features = self._read()
        if not self._rows.all():
            features = features[self._rows]
        for group, masked in self._masks.items():
            features = np.where(masked[:, None], without(group, features), features)
        return features


class Source:
    """Rows in a fixed order: day, group, target and key in memory, the features in files."""

    def __init__(self, facts: pd.DataFrame, reads: Sequence[Read], sizes: Sequence[int]) -> None:
        self.facts = facts
        self._reads, self._ends = reads, np.cumsum([0, *sizes])

    @classmethod
    def files(cls, name: str) -> Self:
        """Return the rows of a folder of features."""
        facts = [pd.read_parquet(path, columns=[DAY, GROUP, TARGET, KEY]) for path in feature_files.files(name)]
        reads = [partial(read_features, path) for path in feature_files.files(name)]
        return cls(pd.concat(facts, ignore_index=True), reads, [len(part) for part in facts])

    @classmethod
    def frame(cls, frame: pd.DataFrame) -> Self:
        """Return rows that are in memory."""
        return cls(frame[[DAY, GROUP, TARGET, KEY]].reset_index(drop=True), [partial(matrix, frame)], [len(frame)])

    @property
    def target(self) -> Targets:
        """Return the targets, shape (n,)."""
        return np.asarray(self.facts[TARGET], dtype=np.int8)

    def parts(self, rows: Mask, masks: dict[str, Mask] | None = None) -> list[Part]:
        """Return the masked rows by file; `masks` has which of these lack a group of features."""
        parts, start = [], 0
        for read, first, last in zip(self._reads, self._ends, self._ends[1:], strict=False):
            inside = rows[first:last]
            end = start + int(inside.sum())
            if end > start:
                own = {group: mask[start:end] for group, mask in (masks or {}).items()}
                parts.append(Part(read, inside, own))
            start = end
        return parts

    def features(self, rows: Mask) -> Floats:
        """Return the features of the masked rows, shape (n, k)."""
        return np.concatenate([part.features() for part in self.parts(rows)])


def read_features(path: Path) -> Floats:
    """Return the features of a file, shape (n, k)."""
    return matrix(pd.read_parquet(path, columns=list(FEATURE_NAMES)))


def lightgbm_params(p: TrainParams) -> dict[str, Any]:
    """Return LightGBM's parameters, without the number of threads, which LightGBM would save in the model."""
    ours = {"rounds", "group_dropout", "fold_months", "threshold_rule", "threshold_value"}
    return p.model_dump(exclude=ours) | {
        "objective": "binary",
        "metric": "binary_logloss",
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
        "data_random_seed": data_seed(p.seed),
    }


def data_seed(seed: int) -> int:
    """Return the seed of the rows that set the bins, as LightGBM derives it from `seed`, but not for a Sequence.

    Source: LightGBM 4, Config::Set in src/io/config.cpp and Random::NextShort in include/LightGBM/utils/random.h.
    """
    return ((214013 * seed + 2531011) % 2**32 >> 16 & 0x7FFF) % 32767


def dropout(total: int, p: TrainParams, first: int = 0, count: int | None = None) -> dict[str, Mask]:
    """Return the mask of rows for each group of `group_dropout`: a seeded share of `total` rows.

    With `count`, only the masks of `count` rows from row `first` on; they equal those of the whole.
    """
    masks = {}
    for number, (group, share) in enumerate(p.group_dropout.items()):
        drawn = np.random.PCG64(p.seed).advance(number * total + first)
        masks[group] = np.random.Generator(drawn).random(total if count is None else count) < share
    return masks


def dataset(parts: Sequence[Part], target: Targets) -> lightgbm.Dataset:
    """Return rows as a dataset of LightGBM."""
    return lightgbm.Dataset([*parts], target, feature_name=[*FEATURE_NAMES], categorical_feature=[*CATEGORIES])


def fit(
    source: Source, p: TrainParams, rows: Mask | None = None, curve: dict[str, Any] | None = None, label: str = ""
) -> lightgbm.Booster:
    """Train a booster on rows of a source, all unless given.

    The training loss by round is stored in `curve` if given.
    """
    rows = np.ones(len(source.facts), dtype=bool) if rows is None else rows
    data = dataset(source.parts(rows, dropout(int(rows.sum()), p)), source.target[rows])
    with progress.progress_bar(label, lambda: p.rounds) as advance:
        callbacks: list[Any] = [lambda _: advance(1)]
        if curve is not None:
            callbacks.append(lightgbm.record_evaluation(curve))
        booster = lightgbm.train(
            lightgbm_params(p),
            data,
            p.rounds,
            valid_sets=[data] if curve is not None else None,
            valid_names=["train"] if curve is not None else None,
            callbacks=callbacks,
        )
    print(f"{label}: {p.rounds} rounds", file=sys.stderr, flush=True)
    return booster


LOSS_STEP = 5
"""Rounds between two points of the loss curves, and the least number of rounds (train.rounds)."""


def loss_by_round(booster: lightgbm.Booster, features: Floats, target: Targets) -> list[float]:
    """Return the log loss after every `LOSS_STEP` rounds, in one pass over the trees."""
    rounds = range(LOSS_STEP, booster.current_iteration() + 1, LOSS_STEP)
    raw = np.zeros(len(features))
    losses = []
    for last in rounds:
        raw += np.asarray(
            booster.predict(features, start_iteration=last - LOSS_STEP, num_iteration=LOSS_STEP, raw_score=True)
        )
        losses.append(float(np.mean(np.logaddexp(0, raw) - target * raw)))
    return losses
