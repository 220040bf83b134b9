"""The core's sections of params.yaml, as frozen models."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stages.base import yaml_files
from stages.base.errors import FileInvalid, ParamsInvalid

PARAMS_FILE = Path("params.yaml")
ADDED = "added"
"""The folder in data/ with what `on-time data add` added."""
Parsed = TypeVar("Parsed", bound="Section")

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Ratio = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
MetricName = Literal["roc_auc", "pr_auc", "log_loss", "brier", "ece", "top_precision"]
Partitioning = Literal["month", "all"]
Engine = Literal["local", "ray"]
SliceMetricName = Literal["log_loss", "roc_auc"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Day = Annotated[date, Field(strict=False)]  # DVC does not parse dates: they are quoted
Period = Annotated[tuple[Day, Day], Field(strict=False)]
Band = Annotated[tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]], Field(strict=False)]


class Section(BaseModel):
    """A part of params.yaml."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class DataParams(Section):
    """Where the raw tables come from."""

    package: str
    version: str
    sha256: Sha256
    tables: dict[str, Sha256]
    added: dict[str, Sha256] = {}

    @property
    def pinned(self) -> dict[str, str]:
        """Return the SHA-256 of each table of the source package by the name of its file."""
        return {f"{name}.csv": digest for name, digest in self.tables.items()}

    @property
    def files(self) -> dict[str, str]:
        """Return the SHA-256 of each file in data/, including the additions."""
        return self.pinned | {f"{ADDED}/{name}": digest for name, digest in self.added.items()}


class Coverage(Section):
    """The days that the raw tables cover; the section `problem` extends it."""

    first_date: Day
    last_date: Day
    gaps: list[Period] = []

    @model_validator(mode="after")
    def _some_day(self) -> Self:
        if not self.days():
            raise ValueError("first_date, last_date and gaps leave no day with data")
        return self

    def days(self) -> list[date]:
        """Return the days from the first to the last date, without the gaps."""
        every = (self.first_date + timedelta(days=i) for i in range((self.last_date - self.first_date).days + 1))
        return [day for day in every if not any(first <= day <= last for first, last in self.gaps)]

    def complete_months(self) -> list[date]:
        """Return the covered days up to the end of the newest month that is covered completely."""
        days = self.days()
        known = set(days)
        for last in reversed(days):
            month = (last.replace(day=i) for i in range(1, last.day + 1))
            if (last + timedelta(days=1)).day == 1 and known.issuperset(month):
                return days[: days.index(last) + 1]
        return []


class GrowthParams(Section):
    """Limits of `on-time data add`."""

    max_quarantined: Share
    max_shift: Ratio


class ValidateParams(Section):
    """Bounds of `validate`; stages/problem defines the rules and the columns."""

    rows: dict[str, Band]
    missing_share: dict[str, Share]
    tolerance: dict[str, Annotated[int, Field(ge=0)]]


class FeaturizeParams(Section):
    """Split and samples of `featurize`: fixed periods, or numbers of days that end with the newest complete month."""

    train: Period | None = None
    test: Period | None = None
    train_days: Positive | None = None
    test_days: Positive | None = None
    reference_rows: Positive
    golden_rows: Positive
    seed: int

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = {name for name in ("train", "test", "train_days", "test_days") if getattr(self, name) is not None}
        if given not in ({"train", "test"}, {"train_days", "test_days"}):
            raise ValueError("give train and test, or train_days and test_days")
        return self

    @property
    def relative(self) -> bool:
        """Return whether the periods follow the data."""
        return self.train_days is not None

    def periods(self, coverage: Coverage) -> tuple[tuple[date, date], tuple[date, date]]:
        """Return the periods of training and test; days without data do not count."""
        if self.train and self.test:
            return self.train, self.test
        days = coverage.complete_months()
        test, train = self.test_days or 0, self.train_days or 0
        if len(days) <= test:
            raise ParamsInvalid(
                f"{PARAMS_FILE}: the data have {len(days)} days in complete months, featurize.test_days is {test}, and "
                "some must be left for training. Add data or lower test_days."
            )
        first = max(0, len(days) - test - train)
        return (days[first], days[-test - 1]), (days[-test], days[-1])


class TrainParams(Section):
    """Model and threshold of `train`."""

    rounds: Annotated[int, Field(ge=5)]
    group_dropout: dict[str, Share]
    fold_months: list[Annotated[int, Field(ge=1, le=12)]] | Positive
    threshold_rule: Literal["precision", "alert_share"]
    threshold_value: Share
    seed: int
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    num_leaves: Annotated[int, Field(gt=1)]
    min_data_in_leaf: Positive
    feature_fraction: Annotated[float, Field(gt=0, le=1)]
    bagging_fraction: Annotated[float, Field(gt=0, le=1)]
    bagging_freq: Annotated[int, Field(ge=0)]
    lambda_l2: NonNegative
    cat_smooth: NonNegative
    cat_l2: NonNegative
    min_data_per_group: Positive
    max_cat_threshold: Positive

    def folds(self, known: list[int]) -> list[int]:
        """Return the months of the folds: the newest of each listed one, or the last training months.

        Takes the sorted months of training since January 1970; raises ParamsInvalid if a month, or all months before
        it, are not among them.
        """
        if isinstance(self.fold_months, int):
            if len(known) <= self.fold_months:
                raise ParamsInvalid(
                    f"{PARAMS_FILE}: train.fold_months is {self.fold_months}, training has only {len(known)} months."
                )
            return known[-self.fold_months :]
        newest = {month % 12 + 1: month for month in known}
        for fold in self.fold_months:
            if newest.get(fold, known[0]) == known[0]:
                raise ParamsInvalid(
                    f"{PARAMS_FILE}: train.fold_months: month {fold} or the months before it have no training rows. A "
                    "single number instead of the list stands for the last months of the training period."
                )
        return [newest[fold] for fold in self.fold_months]


class EvaluateParams(Section):
    """Parameters of `evaluate`."""

    bootstrap: Positive
    ece_bins: Positive
    riskiest_share: Share
    seed: int


class PullRequestParams(Section):
    """Allowed regression against the merge base, and floors of the slices."""

    max_regression: Annotated[dict[MetricName, NonNegative], Field(min_length=1)]
    slice_floors: Annotated[dict[MetricName, Finite], Field(min_length=1)]
    slice_max_regression: dict[MetricName, NonNegative]
    max_alert_change: Share


class PromotionParams(Section):
    """Margins of a challenger against the champion, and the confidence of the comparison."""

    margins: Annotated[dict[MetricName, NonNegative], Field(min_length=1)]
    slice_margins: Annotated[dict[SliceMetricName, NonNegative], Field(min_length=1)]
    max_decisions: Positive
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    bootstrap: Positive
    seed: Annotated[int, Field(ge=0)]
    latency_calls: Positive
    max_latency_ratio: Ratio
    max_size_ratio: Ratio


class GateParams(Section):
    """The gate policy."""

    floors: Annotated[dict[MetricName, Finite], Field(min_length=1)]
    leak_roc_auc: Share
    brier_skill: Share
    log_loss_gain: NonNegative
    slices: Annotated[list[str], Field(min_length=1)]
    pull_request: PullRequestParams
    promotion: PromotionParams


class DriftParams(Section):
    """Alarm thresholds of the drift monitor."""

    min_rows: Positive
    psi_factor: Ratio
    psi_floor: Ratio
    missing_margin: Share
    unseen_share: Share
    under_prediction: Share
    over_prediction: Share
    log_loss: Ratio


class RetrainParams(Section):
    """Conditions of retraining."""

    min_new_outcomes: Positive
    cooldown_days: NonNegative
    max_age_days: Positive
    max_missing_features: Annotated[int, Field(ge=0)]


class MonitorParams(Section):
    """Monitoring of the served model."""

    drift: DriftParams
    retrain: RetrainParams


def as_dict(path: Path = PARAMS_FILE) -> dict[str, Any]:
    """Return the content of params.yaml; raise ParamsInvalid if it cannot be read."""
    try:
        content = yaml_files.load(path)
    except FileInvalid as err:
        raise ParamsInvalid(str(err)) from err
    if not isinstance(content, dict):
        raise ParamsInvalid(f"{path} is empty, or has no sections. `git checkout {path}` restores it.")
    return content


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings; keys are joined by dots."""
    if not isinstance(values, dict):
        return {prefix: values}
    return {k: v for name, value in values.items() for k, v in flatten(value, f"{prefix}.{name}".lstrip(".")).items()}


def changes(before: Any, after: Any, prefix: str = "", missing: str = "none") -> list[tuple[str, Any, Any]]:
    """Return the keys of nested mappings whose values differ, with both values; `missing` where one has no value."""
    old, new = flatten(before, prefix), flatten(after, prefix)
    differing = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return [(key, old.get(key, missing), new.get(key, missing)) for key in differing]


def parse(model: type[Parsed], values: Any, path: Path, section: str = "") -> Parsed:
    """Parse a section into its model; raise ParamsInvalid with every invalid key."""
    try:
        return model.model_validate(values)
    except ValidationError as err:
        wrong = "; ".join(
            f"{'.'.join(map(str, (*filter(None, [section]), *e['loc']))) or 'the file'}: {e['msg']}"
            for e in err.errors()
        )
        raise ParamsInvalid(
            f"{path}: {wrong}. stages/problem_kit/params.py and stages/problem define the keys and their types."
        ) from err


def load_section(model: type[Parsed], name: str, path: Path = PARAMS_FILE) -> Parsed:
    """Read one section only, without importing the problem or pandas."""
    return parse(model, as_dict(path).get(name), path, name)
