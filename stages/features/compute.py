"""Compute features, target and lookups of rows, partition by partition.

The values come from app.problem's functions, which the service calls for a request: training and serving cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import NamedTuple

import numpy as np
import pandas as pd

from app.interface import FEATURE_NAMES, Lookups, compute
from stages import interface
from stages.base.paths import FEATURES_DIR
from stages.features.feature_files import DAY, GROUP, KEY, TARGET, scenario_name
from stages.params import Params
from stages.problem_kit.rows import LabelledRows
from stages.problem_kit.rules import Tables
from stages.tables.partitions import Partition, Store

CHUNK_ROWS = 100_000


class Counts(NamedTuple):
    """Rows of a partition: for training, of these with the target 1, and for the test."""

    train: int
    positive: int
    test: int


def rows_of(tables: Tables, partition: Partition, p: interface.Params) -> LabelledRows:
    """Return the rows of a partition from tables that may contain other days."""
    rows = interface.labelled_rows(tables, p)
    return rows.where(rows.within((partition.first, partition.last)))


def compute_features(
    rows: LabelledRows, tables: Tables, lookups: Lookups, p: interface.Params, scenario: str = ""
) -> pd.DataFrame:
    """Return features, target, day, group and key of each row, computed in chunks to bound memory."""
    chunks = [
        compute(
            interface.arrays_of_rows(rows.frame.iloc[start : start + CHUNK_ROWS], tables, lookups, p, scenario), lookups
        )
        for start in range(0, len(rows), CHUNK_ROWS)
    ]
    frame = pd.DataFrame(np.concatenate(chunks), columns=list(FEATURE_NAMES))
    return frame.assign(**{TARGET: rows.target, DAY: rows.day, GROUP: rows.group, KEY: rows.key})


def compute_within(
    store: Store, period: tuple[date, date], lookups: Lookups, p: interface.Params
) -> Iterator[pd.DataFrame]:
    """Yield the features of a period by partition."""
    for partition, _, tables in store.each(interface.reach_days(p)):
        rows = rows_of(tables, partition, p)
        inside = rows.within(period)
        if inside.any():
            yield compute_features(rows.where(inside), tables, lookups, p)


def write_partition(store: Store, partition: Partition, lookups: Lookups, p: Params) -> Counts:
    """Write the features of a partition: those for training, and those for the test in each scenario."""
    tables = store.around(partition, interface.reach_days(p.problem))
    rows = rows_of(tables, partition, p.problem)
    train, test = (rows.where(rows.within(period)) for period in p.featurize.periods(p.problem))
    for part, name, scenario in (
        (train, "train", ""),
        (test, "test", ""),
        *((test, scenario_name(scenario), scenario) for scenario in interface.scenarios(p.problem)),
    ):
        if len(part):
            path = FEATURES_DIR / name / partition.file
            path.parent.mkdir(parents=True, exist_ok=True)
            compute_features(part, tables, lookups, p.problem, scenario).to_parquet(path, index=False)
    return Counts(len(train), int(train.target.sum()), len(test))


def fit_lookups(store: Store, p: Params) -> Lookups:
    """Return the lookups, fitted on the training rows."""
    period = p.train_period

    def training() -> Iterator[pd.DataFrame]:
        for partition in store.partitions:
            rows = rows_of(store.own(partition), partition, p.problem)
            yield rows.where(rows.within(period)).frame

    return interface.lookups(store.undated, training(), p.problem)
