"""params.yaml as one frozen model."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated

from pydantic import Field

from app.interface import FEATURES
from stages import interface
from stages.base.errors import ParamsInvalid
from stages.problem_kit.params import (
    PARAMS_FILE,
    DataParams,
    Engine,
    EvaluateParams,
    FeaturizeParams,
    GateParams,
    GrowthParams,
    MonitorParams,
    Partitioning,
    Section,
    TrainParams,
    ValidateParams,
    as_dict,
    parse,
)


class Params(Section):
    """All of params.yaml."""

    partition: Partitioning
    engine: Engine
    data: DataParams
    growth: GrowthParams
    problem: interface.Params
    validate_: Annotated[ValidateParams, Field(alias="validate")]
    featurize: FeaturizeParams
    train: TrainParams
    evaluate: EvaluateParams
    gate: GateParams
    monitor: MonitorParams

    @property
    def train_period(self) -> tuple[date, date]:
        """Return the first and the last day of training."""
        return self.featurize.periods(self.problem)[0]

    @property
    def test_period(self) -> tuple[date, date]:
        """Return the first and the last day of the test."""
        return self.featurize.periods(self.problem)[1]


def check_windows(p: Params, path: Path = PARAMS_FILE) -> None:
    """Raise ParamsInvalid unless training and test lie within the data, and training ends first."""
    days, train, test = p.problem.days(), p.train_period, p.test_period
    for name, (first, last) in (("train", train), ("test", test)):
        for wrong, why in (
            (last < first, "ends before it begins"),
            (first < days[0] or last > days[-1], f"reaches beyond the data, {days[0]} to {days[-1]}"),
            (not any(first <= day <= last for day in days), "is empty: problem.gaps has all of its days"),
        ):
            if wrong:
                raise ParamsInvalid(f"{path}: featurize.{name}, {first} to {last}, {why}.")
    if train[1] >= test[0]:
        raise ParamsInvalid(
            f"{path}: featurize.train, {train[0]} to {train[1]}, overlaps featurize.test, {test[0]} to {test[1]}, or "
            "follows it: training has to end before the test begins."
        )


def load(path: Path = PARAMS_FILE) -> Params:
    """Read params.yaml; raise ParamsInvalid with every invalid key, or with a window that cannot be."""
    p = parse(Params, as_dict(path), path)
    check_windows(p, path)
    if p.engine == "ray" and p.partition == "all":
        raise ParamsInvalid(f"{path}: engine: ray divides the rows by month, and needs partition: month.")
    groups = {feature.group for feature in FEATURES if feature.group}
    unknown = sorted(set(p.train.group_dropout) - groups)
    if unknown:
        known = ", ".join(sorted(groups)) or "none"
        raise ParamsInvalid(
            f"{path}: unknown groups under train.group_dropout: {', '.join(unknown)}. app/problem has: {known}."
        )
    return p
