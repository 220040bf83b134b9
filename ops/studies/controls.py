"""Models that the promotion gate has to refuse, made from the real data and promoted in a registry of their own."""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightgbm
import mlflow
import numpy as np
from mlflow import MlflowClient

from app.errors import Refused
from app.interface import CATEGORIES, FEATURE_NAMES
from app.model import bundles
from app.problem_kit.features import Floats
from ops.gate.policy import table
from ops.registry import commands
from ops.registry.commands import PromotionRefused
from stages.base import progress
from stages.base.paths import BUNDLE_DIR, FEATURES_DIR, sha256, write_json
from stages.evaluation.floors import Decision
from stages.evaluation.versions import register_version
from stages.features import feature_files
from stages.features.feature_files import DAY, TARGET, matrix
from stages.params import Params
from stages.problem_kit.rows import Mask
from stages.tracking import logged_model, mlflow_runs
from stages.training.boosting import Source, Targets, fit, lightgbm_params
from stages.training.bundle import write_bundle

LEAK, LEAK_FLIPPED = "leaked_target", 0.1
SLOW_TIMES, SLOW_ROWS = 20, 4000
FIRST_DAYS = 31


class ControlFailed(Refused):
    """The gate accepted a negative control, or refused it for another reason."""


class Workshop:
    """The training rows, every n-th of them, and bundles made from them."""

    def __init__(self, p: Params, every: int = 1) -> None:
        self.p = p
        self.train = feature_files.read("train").iloc[::every]
        self.features, self.target = matrix(self.train), self.train[TARGET].to_numpy()
        self.champion = bundles.load(BUNDLE_DIR / bundles.MODEL_FILE, BUNDLE_DIR / bundles.MANIFEST_FILE)
        self.booster = lightgbm.Booster(model_file=BUNDLE_DIR / bundles.MODEL_FILE)

    def largest_watched(self) -> tuple[str, str]:
        """Return the category feature and the value of the largest watched slice that is named `feature=value`."""
        vocabularies, sizes = self.champion.lookups.vocabularies, {}
        for feature, _, value in (name.partition("=") for name in self.p.gate.slices):
            if value in vocabularies.get(feature, []):
                codes = self.features[:, FEATURE_NAMES.index(feature)]
                sizes[feature, value] = np.count_nonzero(codes == vocabularies[feature].index(value))
        if not sizes:
            raise ControlFailed("no slice in params.yaml (gate.slices) is named after the value of a category feature.")
        return max(sizes, key=lambda pair: sizes[pair])

    def fit(self, target: Targets | None = None, rows: Mask | None = None) -> lightgbm.Booster:
        """Train as the pipeline does, on other labels or rows."""
        train = self.train if target is None else self.train.assign(**{TARGET: target})
        return fit(Source.frame(train), self.p.train, rows, label="negative control")

    def write(self, folder: Path, booster: lightgbm.Booster, **facts: Any) -> None:
        """Write a bundle with the champion's facts, some of them changed."""
        kept = {"threshold", "lookups", "training_data_sha256", "reference_sha256", "rows"}
        requests = json.loads((FEATURES_DIR / "golden.json").read_text(encoding="utf-8"))
        write_bundle(booster, {k: v for k, v in self.champion.manifest.items() if k in kept} | facts, requests, folder)
        shutil.copy(BUNDLE_DIR / bundles.REFERENCE_FILE, folder)


def dataset(features: Floats, target: Targets, names: Sequence[str] = FEATURE_NAMES) -> lightgbm.Dataset:
    """Return rows in memory as a dataset of LightGBM."""
    return lightgbm.Dataset(features, target, feature_name=[*names], categorical_feature=[*CATEGORIES])


def shuffled_labels(shop: Workshop, folder: Path) -> None:
    """Train on the labels of other rows."""
    shop.write(folder, shop.fit(np.random.default_rng(0).permutation(shop.target)))


def first_days_only(shop: Workshop, folder: Path) -> None:
    """Train on the first days alone."""
    day = shop.train[DAY].to_numpy()
    shop.write(folder, shop.fit(rows=day < day.min() + FIRST_DAYS))


def largest_slice_at_the_mean(shop: Workshop, folder: Path) -> None:
    """Predict the mean for the largest watched slice, and all other rows as well as before.

    The first split of each tree is forced to be that of the slice, whose rows have the labels of the mean and no other
    feature: nothing can split them any further, so each tree has one leaf for the slice.
    """
    feature, value = shop.largest_watched()
    column, code = FEATURE_NAMES.index(feature), shop.champion.lookups.vocabularies[feature].index(value)
    inside = shop.features[:, column] == code
    features, target = shop.features.copy(), shop.target.copy()
    features[np.ix_(inside, np.arange(len(FEATURE_NAMES)) != column)] = np.nan
    target[inside] = np.arange(inside.sum()) < shop.target.mean() * inside.sum()
    forced = folder / "splits.json"
    write_json(forced, {"feature": column, "threshold": code})
    rows = dataset(features, target)
    changes = {"forcedsplits_filename": str(forced), "feature_fraction": 1.0}
    booster = lightgbm.train(lightgbm_params(shop.p.train) | changes, rows, shop.p.train.rounds)
    forced.unlink()
    shop.write(folder, booster)


def slower(shop: Workshop, folder: Path) -> None:
    """Add nineteen times as many trees to the champion's, trained on a few rows and with next to no weight."""
    rows = dataset(shop.features[:SLOW_ROWS], shop.target[:SLOW_ROWS])
    changes = lightgbm_params(shop.p.train) | {"learning_rate": 1e-9, "min_data_in_leaf": 20}
    more = (SLOW_TIMES - 1) * shop.p.train.rounds
    shop.write(folder, lightgbm.train(changes, rows, more, init_model=shop.booster))


def leaky(shop: Workshop, folder: Path) -> None:
    """Train on a noisy copy of the target as one more feature, and require it in the manifest."""
    flipped = np.random.default_rng(0).random(len(shop.target)) < LEAK_FLIPPED
    names = [*FEATURE_NAMES, LEAK]
    leak = np.where(flipped, 1 - shop.target, shop.target)
    rows = dataset(np.column_stack([shop.features, leak]), shop.target, names)
    shop.write(folder, shop.booster)
    lightgbm.train(lightgbm_params(shop.p.train), rows, shop.p.train.rounds).save_model(folder / bundles.MODEL_FILE)
    manifest = folder / bundles.MANIFEST_FILE
    facts = json.loads(manifest.read_text(encoding="utf-8"))
    write_json(manifest, facts | {"features": names, "model_sha256": sha256(folder / bundles.MODEL_FILE)})


def as_good(shop: Workshop, folder: Path) -> None:
    """Copy the champion, with another threshold."""
    shop.write(folder, shop.booster, threshold=shop.champion.threshold + 0.001)


@dataclass(frozen=True)
class Control:
    """A version to promote: how its bundle is made, and the checks that have to refuse it; none if it has to pass."""

    name: str
    make: Callable[[Workshop, Path], None]
    checks: tuple[str, ...] = ()
    allow_equal: bool = False


CONTROLS = (
    Control("labels shuffled", shuffled_labels, ("roc_auc", "roc_auc (not worse)")),
    Control(f"trained on the first {FIRST_DAYS} days", first_days_only, ("log_loss", "log_loss (not worse)")),
    Control("largest watched slice at the mean", largest_slice_at_the_mean, ("{slice} roc_auc (not worse)",)),
    Control("twenty times the trees", slower, ("latency ratio",)),
    Control("the target as a feature", leaky, ("bundle that the service can load", LEAK)),
    Control("no better than the champion", as_good, ("metrics better than the champion's",)),
    Control("the same, a tie allowed", as_good, allow_equal=True),
)


@contextmanager
def registry_of_its_own() -> Iterator[MlflowClient]:
    """Use an empty MLflow in a temporary folder until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        with patch.dict(os.environ, MLFLOW_TRACKING_URI=uri):
            MlflowClient(uri).create_experiment(mlflow_runs.EXPERIMENT, f"{folder}/artifacts")
            yield mlflow_runs.connect()
    mlflow.set_tracking_uri("")


def enter(client: MlflowClient, folder: Path, p: Params) -> str:
    """Register a bundle that the service may refuse, with the committed metrics; return its version number."""
    with mlflow_runs.stage_run("train"):
        logged_model.log_bundle(folder)
    return str(register_version(client, p, sha256(folder / bundles.MANIFEST_FILE), Decision(()), {}).version)


def attempt(client: MlflowClient, shop: Workshop, control: Control) -> list[str]:
    """Make, register and promote a control; return the reasons it was refused for, none if it was promoted."""
    with tempfile.TemporaryDirectory() as folder:
        control.make(shop, Path(folder))
        number = enter(client, Path(folder), shop.p)
    try:
        commands.promote(client, shop.p, number, control.allow_equal)
    except PromotionRefused:
        decision = mlflow_runs.find_runs(client, {mlflow_runs.STAGE_TAG: "decision"})[0]
        return str(decision.data.tags["reasons"]).split("; ")
    return []


def verify(control: Control, checks: list[str], reasons: list[str]) -> None:
    """Raise ControlFailed unless the reasons name the checks, or there are none where the model has to pass."""
    unnamed = [check for check in checks if not any(check in reason for reason in reasons)]
    if unnamed or bool(reasons) != bool(checks):
        wanted = ", ".join(checks) or "no check"
        raise ControlFailed(f"'{control.name}' has to be refused by {wanted}; the reasons were {reasons or 'none'}.")


def promote_all(p: Params, every: int = 1) -> str:
    """Promote every control over the committed model, and return the reasons as Markdown.

    Raises ControlFailed on the first one that is not refused by the checks that are there for it.
    """
    shop, rows = Workshop(p, every), []
    largest = "=".join(shop.largest_watched())
    with registry_of_its_own() as client:
        commands.promote(client, p, enter(client, BUNDLE_DIR, p))
        for control in progress.track(CONTROLS, "negative controls", lines=False):
            checks = [check.format(slice=largest) for check in control.checks]
            reasons = attempt(client, shop, control)
            verify(control, checks, reasons)
            verdict = "refused" if reasons else "accepted"
            print(f"{control.name}: {verdict}", file=sys.stderr, flush=True)
            first = next((reason for reason in reasons if checks[-1] in reason), "–")
            rows.append([control.name, verdict, str(len(reasons)), first])
    head = ["promoted over the committed model", "verdict", "checks that failed", "the first of them"]
    return table(head, rows)
