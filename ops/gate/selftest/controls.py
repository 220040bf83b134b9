"""Models that the promotion gate has to refuse: made from the real flights, promoted from a registry of their own."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import mlflow
import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow import MlflowClient

from app.errors import OnTimeError
from app.model import bundle as model
from app.problem.features import CATEGORICAL, FEATURES
from app.problem.lookups import Floats
from ops.gate.evidence import REPAIRS_FILE
from ops.registry import commands as registry
from ops.registry.commands import PromotionRefused
from stages import featurize, progress, tracking
from stages.decision import Decision
from stages.featurize import DAY, OUT_DIR, TARGET
from stages.fetch import sha256
from stages.files import METRICS_FILE, write_json
from stages.params import Params
from stages.problem import raw as data
from stages.register import register
from stages.train import BUNDLE_DIR, fit, lightgbm_params, matrix, month_of, write_bundle

LEAK = "departure_delay_minutes"
SLOW_TIMES, SLOW_ROWS = 20, 4000
UNWATCHED = "carrier=OO"  # 32 flights in the whole year


class ControlFailed(OnTimeError):
    """The gate did not refuse what it has to refuse, or for another reason."""


class Workshop:
    """The training flights, every n-th of them, and bundles made from them."""

    def __init__(self, p: Params, every: int = 1) -> None:
        self.p, self.rows = p, slice(None, None, every)
        train = pd.read_parquet(OUT_DIR / "train.parquet").iloc[self.rows]
        self.features, self.target = matrix(train), train[TARGET].to_numpy()
        self.month = month_of(train[DAY].to_numpy())
        self.champion = model.load(BUNDLE_DIR / model.MODEL_FILE, BUNDLE_DIR / model.MANIFEST_FILE)
        self.booster = lightgbm.Booster(model_file=BUNDLE_DIR / model.MODEL_FILE)
        self.tables = self.champion.tables

    def fit(
        self, target: npt.NDArray[np.int8] | None = None, rows: Any = slice(None), **changes: Any
    ) -> lightgbm.Booster:
        """Train as the pipeline does, on other labels or rows, or with other parameters."""
        target = self.target if target is None else target
        return fit(self.features[rows], target[rows], self.p.train.model_copy(update=changes), label="negative control")

    def write(self, folder: Path, booster: lightgbm.Booster, **facts: Any) -> None:
        """Write a bundle with the champion's facts, some of them changed."""
        kept = {"threshold", "tables", "training_data_sha256", "reference_sha256"}
        requests = json.loads((OUT_DIR / "golden.json").read_text(encoding="utf-8"))
        write_bundle(booster, {k: v for k, v in self.champion.manifest.items() if k in kept} | facts, requests, folder)
        shutil.copy(BUNDLE_DIR / model.REFERENCE_FILE, folder)


def dataset(
    features: Floats, target: npt.NDArray[np.int8], names: list[str] | tuple[str, ...] = FEATURES
) -> lightgbm.Dataset:
    """Return rows as LightGBM takes them."""
    return lightgbm.Dataset(features, target, feature_name=list(names), categorical_feature=list(CATEGORICAL))


def shuffled_labels(shop: Workshop, folder: Path) -> None:
    """Learn from labels that belong to other flights."""
    shop.write(folder, shop.fit(np.random.default_rng(0).permutation(shop.target)))


def january_only(shop: Workshop, folder: Path) -> None:
    """Learn from January alone."""
    shop.write(folder, shop.fit(rows=shop.month == 1))


def united_at_the_mean(shop: Workshop, folder: Path) -> None:
    """Predict the mean for every flight of carrier UA, and all others as well as before.

    Each tree is made to ask first whether the carrier is UA. UA's rows have the mean's labels and no other feature, so
    nothing can part them any further: UA's branch is one leaf in each tree.
    """
    code = shop.tables.vocabularies["carrier"].index("UA")
    united = shop.features[:, FEATURES.index("carrier")] == code
    features, target = shop.features.copy(), shop.target.copy()
    features[united, 1:] = np.nan
    target[united] = np.arange(united.sum()) < shop.target.mean() * united.sum()
    forced = folder / "splits.json"
    write_json(forced, {"feature": FEATURES.index("carrier"), "threshold": code})
    rows = dataset(features, target)
    changes = {"forcedsplits_filename": str(forced), "feature_fraction": 1.0}
    booster = lightgbm.train(lightgbm_params(shop.p.train) | changes, rows, shop.p.train.rounds)
    forced.unlink()
    shop.write(folder, booster)


def slower(shop: Workshop, folder: Path) -> None:
    """Add nineteen times as many trees to the champion's, learnt from a few flights with next to no weight."""
    few = slice(None, SLOW_ROWS)
    rows = dataset(shop.features[few], shop.target[few])
    changes = {"learning_rate": 1e-9, "min_data_in_leaf": 20}
    more = (SLOW_TIMES - 1) * shop.p.train.rounds
    shop.write(
        folder,
        lightgbm.train(lightgbm_params(shop.p.train) | changes, rows, more, init_model=shop.booster),
    )


def leaky(shop: Workshop, folder: Path) -> None:
    """Learn from the delay at departure too, and ask for it in the manifest."""
    raw = featurize.repair(data.load(), json.loads(REPAIRS_FILE.read_text(encoding="utf-8")))
    known = raw.flights["dep_delay"][featurize.within(featurize.flight_days(raw.flights), shop.p.featurize.train)]
    names = [*FEATURES, LEAK]
    columns = np.column_stack([shop.features, known.to_numpy(dtype=np.float64)[shop.rows]])
    rows = dataset(columns, shop.target, names)
    shop.write(folder, shop.booster)
    lightgbm.train(lightgbm_params(shop.p.train), rows, shop.p.train.rounds).save_model(folder / model.MODEL_FILE)
    facts = json.loads((folder / model.MANIFEST_FILE).read_text(encoding="utf-8"))
    write_json(
        folder / model.MANIFEST_FILE, facts | {"features": names, "model_sha256": sha256(folder / model.MODEL_FILE)}
    )


def as_good(shop: Workshop, folder: Path) -> None:
    """Take the champion itself, with another threshold."""
    shop.write(folder, shop.booster, threshold=shop.champion.threshold + 0.001)


@dataclass(frozen=True)
class Control:
    """A version to promote: how its bundle is made, and the checks that may refuse it; none if it has to pass.

    `measured` changes the metrics registered with it, `watched` adds a slice to the policy.
    """

    name: str
    make: Callable[[Workshop, Path], None]
    checks: tuple[str, ...] = ()
    measured: Callable[[dict[str, Any]], dict[str, Any]] = dict
    watched: tuple[str, ...] = ()
    allow_equal: bool = False


CONTROLS = (
    Control("labels shuffled", shuffled_labels, ("roc_auc", "roc_auc (not worse)")),
    Control("trained on January only", january_only, ("roc_auc", "roc_auc (not worse)")),
    Control("carrier UA at the mean", united_at_the_mean, ("carrier=UA roc_auc (not worse)",)),
    Control(
        "a metric is missing",
        as_good,
        ("log loss gained on logistic regression",),
        lambda found: {name: part for name, part in found.items() if name != "logistic"},
        allow_equal=True,
    ),
    Control(
        "a metric is NaN",
        as_good,
        ("log loss gained on logistic regression",),
        lambda found: found | {"logistic": found["logistic"] | {"log_loss": math.nan}},
        allow_equal=True,
    ),
    Control(
        "a slice is empty", as_good, (f"{UNWATCHED} log_loss (not worse)",), watched=(UNWATCHED,), allow_equal=True
    ),
    Control("twenty times the trees", slower, ("latency ratio",)),
    Control("departure delay as a feature", leaky, ("bundle that the service can load", LEAK)),
    Control("no better than the champion", as_good, ("metrics better than the champion's",)),
    Control("the same, a tie allowed", as_good, allow_equal=True),
)


@contextmanager
def registry_of_its_own() -> Iterator[MlflowClient]:
    """Use an empty MLflow in a temporary folder until the block ends."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    with tempfile.TemporaryDirectory() as folder:
        uri = os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        try:
            MlflowClient(uri).create_experiment(tracking.EXPERIMENT, f"{folder}/artifacts")
            yield tracking.connect()
        finally:
            del os.environ["MLFLOW_TRACKING_URI"]
            if before is not None:
                os.environ["MLFLOW_TRACKING_URI"] = before
            mlflow.set_tracking_uri("")


def enter(client: MlflowClient, folder: Path, p: Params, measured: dict[str, Any]) -> str:
    """Register a bundle with its metrics, whether or not the service could load it; return its version number."""
    manifest = folder / model.MANIFEST_FILE
    booster = lightgbm.Booster(model_file=folder / model.MODEL_FILE)
    with tracking.stage_run("train"):
        files = [str(manifest), str(folder / model.REFERENCE_FILE)]
        info = mlflow.lightgbm.log_model(booster, name="model", extra_files=files, pip_requirements=["lightgbm"])
        mlflow.set_tags({tracking.DIGEST_TAG: sha256(manifest), tracking.MODEL_URI_TAG: info.model_uri})
    version = register(client, p, sha256(manifest), Decision(()), {})
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / METRICS_FILE.name
        path.write_text(json.dumps(measured), encoding="utf-8")  # NaN too
        client.log_artifact(version.run_id, str(path))
    return str(version.version)


def attempt(client: MlflowClient, shop: Workshop, control: Control) -> list[str]:
    """Make, register and promote a control; return the reasons it was refused for, none if it was promoted."""
    p = shop.p.model_copy(
        update={"gate": shop.p.gate.model_copy(update={"slices": [*shop.p.gate.slices, *control.watched]})}
    )
    measured = json.loads(METRICS_FILE.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        control.make(shop, Path(folder))
        number = enter(client, Path(folder), p, control.measured(measured))
    try:
        registry.promote(client, p, number, control.allow_equal)
    except PromotionRefused:
        decision = tracking.find_runs(client, {tracking.STAGE_TAG: "decision"})[0]
        return str(decision.data.tags["reasons"]).split("; ")
    return []


def verify(control: Control, reasons: list[str]) -> None:
    """Raise ControlFailed unless the reasons name the checks, or there are none where the model has to pass."""
    unnamed = [check for check in control.checks if not any(check in reason for reason in reasons)]
    if unnamed or bool(reasons) != bool(control.checks):
        wanted = ", ".join(control.checks) or "no reason"
        raise ControlFailed(f"'{control.name}' is to be refused by {wanted}; the reasons were {reasons or 'none'}.")


def table(p: Params, every: int = 1) -> str:
    """Promote every control over the committed model, and return the reasons as Markdown.

    Raises ControlFailed on the first one that is not refused by the checks that are there for it.
    """
    shop = Workshop(p, every)
    lines = [
        "| promoted over the committed model | verdict | checks that failed | the first of them |",
        "|---|---|--:|---|",
    ]
    with registry_of_its_own() as client:
        measured = json.loads(METRICS_FILE.read_text(encoding="utf-8"))
        registry.promote(client, p, enter(client, BUNDLE_DIR, p, measured))
        for control in progress.track(CONTROLS, "negative controls", lines=False):
            reasons = attempt(client, shop, control)
            verify(control, reasons)
            print(f"{control.name}: {'refused' if reasons else 'accepted'}", file=sys.stderr, flush=True)
            first = next((reason for reason in reasons if control.checks[-1] in reason), "–")
            verdict = "refused" if reasons else "accepted"
            lines.append(f"| {control.name} | {verdict} | {len(reasons)} | {first} |")
    return "\n".join(lines)
