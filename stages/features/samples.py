"""Samples of the training rows: the reference sample of the drift monitor, and the golden requests of the bundle."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from app.interface import Lookups
from stages import interface
from stages.base.errors import ParamsInvalid
from stages.base.paths import FEATURES_DIR
from stages.features import feature_files
from stages.features.compute import Counts, rows_of
from stages.features.feature_files import KEY
from stages.interface import EDGE_CASES
from stages.problem_kit.params import FeaturizeParams
from stages.tables.partitions import Store


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
    pd.concat(parts).to_parquet(FEATURES_DIR / "reference.parquet")


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
            drawn += interface.requests(interface.arrays_of_rows(frame, tables, lookups, problem))
    plain = len(drawn) - len(EDGE_CASES)
    return drawn[:plain] + [request | case for request, case in zip(drawn[plain:], EDGE_CASES, strict=True)]
