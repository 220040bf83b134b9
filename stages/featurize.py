"""Stage featurize: compute features, target and lookups from the validated tables, partition by partition."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import date
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from app.interface import FEATURE_NAMES, Lookups, compute
from stages import interface, params
from stages.base.errors import ParamsInvalid, run
from stages.base.paths import write_json
from stages.features import feature_files
from stages.features.feature_files import DAY, GROUP, KEY, LOOKUPS_FILE, OUT_DIR, TARGET, scenario_name
from stages.interface import EDGE_CASES
from stages.on_ray.cluster import cluster, results
from stages.params import Params
from stages.problem_kit.params import FeaturizeParams
from stages.problem_kit.rows import Rows
from stages.problem_kit.rules import Tables
from stages.tables import partitions
from stages.tables.partitions import Partition, Store
from stages.tracking import mlflow_runs

CHUNK_ROWS = 100_000


class Counts(NamedTuple):
    """Rows of a partition: for training, of these with the target 1, and for the test."""

    train: int
    positive: int
    test: int


def rows_of(tables: Tables, partition: Partition, p: interface.Params) -> Rows:
    """Return the rows of a partition from tables that may have those of other days."""
    rows = interface.rows(tables, p)
    return rows.where(rows.within((partition.first, partition.last)))


def features(rows: Rows, tables: Tables, lookups: Lookups, p: interface.Params, scenario: str = "") -> pd.DataFrame:
    """Return features, target, day, group and key of each row, computed in chunks to bound memory."""
    chunks = [
        compute(interface.columns(rows.frame.iloc[start : start + CHUNK_ROWS], tables, lookups, p, scenario), lookups)
        for start in range(0, len(rows), CHUNK_ROWS)
    ]
    frame = pd.DataFrame(np.concatenate(chunks), columns=list(FEATURE_NAMES))
    return frame.assign(**{TARGET: rows.target, DAY: rows.day, GROUP: rows.group, KEY: rows.key})


def features_within(
    store: Store, period: tuple[date, date], lookups: Lookups, p: interface.Params
) -> Iterator[pd.DataFrame]:
    """Yield the features of a period by partition."""
    for partition, _, tables in store.each(interface.reach_days(p)):
        rows = rows_of(tables, partition, p)
        inside = rows.within(period)
        if inside.any():
            yield features(rows.where(inside), tables, lookups, p)


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
            path = OUT_DIR / name / partition.file
            path.parent.mkdir(parents=True, exist_ok=True)
            features(part, tables, lookups, p.problem, scenario).to_parquet(path, index=False)
    return Counts(len(train), int(train.target.sum()), len(test))


def write_on_ray(store: Store, lookups: Lookups, p: Params) -> list[Counts]:
    """Write the features of all partitions as `write_partition` does, a task of Ray for each."""
    task = partial(_task, lookups=lookups, p=p)
    with cluster() as workers:
        counts = dict(results(task, len(store.partitions), workers))
    return [counts[place] for place in range(len(store.partitions))]


def _task(place: int, lookups: Lookups, p: Params) -> tuple[int, Counts]:
    store = partitions.written(p.problem)
    return place, write_partition(store, store.partitions[place], lookups, p)


def fit_lookups(store: Store, p: Params) -> Lookups:
    """Return the lookups, fitted on the training rows."""
    period = p.train_period

    def training() -> Iterator[pd.DataFrame]:
        for partition in store.partitions:
            rows = rows_of(store.own(partition), partition, p.problem)
            yield rows.where(rows.within(period)).frame

    return interface.lookups(store.undated, training(), p.problem)


def chosen(rows: int, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the positions of a sample of rows, in their order."""
    return np.sort(pd.RangeIndex(rows).to_series().sample(count, random_state=seed).to_numpy())


def write_reference(counts: list[Counts], p: FeaturizeParams) -> None:
    """Write the reference sample, with the positions of its rows among the training rows."""
    rows = sum(count.train for count in counts)
    if p.reference_rows > rows:
        raise ParamsInvalid(
            f"params.yaml: featurize.reference_rows is {p.reference_rows}, there are {rows} training rows."
        )
    positions, parts, start = chosen(rows, p.reference_rows, p.seed), [], 0
    for frame in feature_files.each("train"):
        own = positions[(positions >= start) & (positions < start + len(frame))]
        parts.append(frame.drop(columns=KEY).iloc[own - start].set_axis(own))
        start += len(frame)
    pd.concat(parts).to_parquet(OUT_DIR / "reference.parquet")


def golden_requests(
    store: Store, counts: list[Counts], lookups: Lookups, p: FeaturizeParams, problem: interface.Params
) -> list[dict[str, Any]]:
    """Return sampled requests; the last ones are changed to the problem's edge cases."""
    starts = np.cumsum([0, *(count.train for count in counts)])
    if not len(EDGE_CASES) <= p.golden_rows <= starts[-1]:
        raise ParamsInvalid(
            f"params.yaml: featurize.golden_rows is {p.golden_rows}, must be {len(EDGE_CASES)} (the edge cases of "
            f"stages/problem) to {starts[-1]} (the training rows)."
        )
    positions, drawn = chosen(int(starts[-1]), p.golden_rows, p.seed), []
    for partition, start, end in zip(store.partitions, starts, starts[1:], strict=False):
        own = positions[(positions >= start) & (positions < end)] - start
        if len(own):
            tables = store.around(partition, interface.reach_days(problem))
            rows = rows_of(tables, partition, problem)
            frame = rows.where(rows.within(p.periods(problem)[0])).frame.iloc[own]
            drawn += interface.requests(interface.columns(frame, tables, lookups, problem))
    plain = len(drawn) - len(EDGE_CASES)
    return drawn[:plain] + [request | case for request, case in zip(drawn[plain:], EDGE_CASES, strict=True)]


def main() -> None:
    """Read build/tables; write features, lookups and samples to build/features."""
    p = params.load()
    with mlflow_runs.stage_run("featurize", p.featurize.model_dump(mode="json"), ["build/tables"]) as log:
        store = partitions.written(p.problem)
        lookups = fit_lookups(store, p)
        shutil.rmtree(OUT_DIR, ignore_errors=True)
        if p.engine == "ray":
            counts = write_on_ray(store, lookups, p)
        else:
            counts = [write_partition(store, partition, lookups, p) for partition in store.partitions]
        write_reference(counts, p.featurize)
        write_json(LOOKUPS_FILE, lookups.to_json())
        write_json(OUT_DIR / "golden.json", golden_requests(store, counts, lookups, p.featurize, p.problem))
        train, positive, test = (sum(count) for count in zip(*counts, strict=True))
        log.metrics(train_rows=train, test_rows=test, train_rate=positive / train)
        log.artifact(LOOKUPS_FILE)


if __name__ == "__main__":
    run(main)
