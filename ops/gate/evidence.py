"""The evidence of a promotion: challenger and champion from the registry, on the same rows, resampled by day.

Both models are scored again, because stored metrics may come from other rows or other code. The bootstrap is paired,
because the difference of two models varies far less than either of them. It draws whole days, because the flights of a
day share their weather: rows drawn one by one would give intervals that are too narrow.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from scipy import stats

from app.errors import BundleInvalid, ModelUnavailable
from app.interface import Lookups, Request
from app.model import bundles
from app.model.bundles import Bundle
from app.problem_kit.features import Floats
from app.registry import download, registered
from ops.gate.policy import Comparison, Evidence, advantage
from stages.base.errors import DataInvalid
from stages.base.paths import FEATURES_DIR, METRICS_FILE
from stages.evaluation import metrics, scores, versions
from stages.evaluation.floors import Bound
from stages.evaluation.metrics import HIGHER_IS_BETTER, MetricSettings, Scored
from stages.features import compute, feature_files
from stages.features.feature_files import DAY, KEY, LOOKUPS_FILE, TARGET, described, matrix
from stages.params import Params
from stages.problem_kit.params import PromotionParams
from stages.tables import partitions
from stages.tables.partitions import TABLES_DIR
from stages.tracking import mlflow_runs

WARM_UP_CALLS = 20
ROWS_TAG = "rows.sha256"
WITHOUT_IT = "`on-time model promote --without-champion` applies the floors alone"


@dataclass(frozen=True)
class Candidate:
    """A registered version, downloaded and verified; `size` is the size of model and manifest in bytes."""

    version: ModelVersion
    bundle: Bundle
    size: int


@dataclass(frozen=True)
class Resampled:
    """Each guarded metric, whole and by slice: of a model, on the rows as they are, then by resample of the days.

    Of a comparison, the challenger's advantage by resample.
    """

    metrics: dict[str, Floats] = field(default_factory=dict)
    slices: dict[str, dict[str, Floats]] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)  # of each slice


@dataclass(frozen=True)
class TestRows:
    """The test rows, with the lookups that their features were computed with."""

    frame: pd.DataFrame
    lookups: Lookups
    described: dict[str, Any]

    @classmethod
    def load(cls) -> TestRows:
        """Read what `featurize` wrote."""
        try:
            lookups = json.loads(LOOKUPS_FILE.read_text(encoding="utf-8"))
            frame = feature_files.read("test")
            return cls(frame, Lookups.from_json(lookups), described(frame))
        except (OSError, KeyError) as err:
            raise DataInvalid(f"{FEATURES_DIR} is not complete: {err}. `dvc repro featurize` makes it.") from err

    def features(self, lookups: Lookups, p: Params) -> Floats:
        """Return the features by a bundle's own lookups: from build/tables when these are not the present ones."""
        if lookups == self.lookups:
            return matrix(self.frame)
        parts = compute.compute_within(partitions.written(p.problem), p.test_period, lookups, p.problem)
        frame = pd.concat([self.frame.iloc[:0], *parts], ignore_index=True)
        if not frame[[KEY, TARGET, DAY]].equals(self.frame[[KEY, TARGET, DAY]]):
            raise DataInvalid(f"{FEATURES_DIR}/test has other rows than {TABLES_DIR}: `dvc repro` rebuilds it.")
        return matrix(frame)


def check_outputs(*stages: str) -> None:
    """Raise DataInvalid unless the outputs of these stages are what dvc.lock, if there is one, names."""
    if not Path("dvc.lock").exists():
        return
    command = [sys.executable, "-m", "dvc", "status", "--json", *stages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DataInvalid(f"`dvc status {' '.join(stages)}` failed: {done.stderr.strip()[-300:]}")
    for stage, changes in json.loads(done.stdout).items():
        changed = [path for change in changes if "changed outs" in change for path in change["changed outs"]]
        if changed:
            raise DataInvalid(
                f"{', '.join(changed)} is not what dvc.lock names. `dvc checkout {stage}` restores it, "
                "`make repro` makes it."
            )


@contextmanager
def candidate(version: ModelVersion) -> Iterator[Candidate]:
    """Download a version for the block; raise BundleInvalid if its digest is not the registered one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        download.export(version, "", mlflow_runs.tracking_uri(), path)
        size = sum((path / name).stat().st_size for name in (bundles.MODEL_FILE, bundles.MANIFEST_FILE))
        yield Candidate(version, registered.load(path, "registry").bundle, size)


def score_rows(bundle: Bundle, rows: TestRows, p: Params) -> Scored:
    """Return a bundle's predictions of the test rows."""
    probability = bundles.predict(bundle.booster, rows.features(bundle.lookups, p)).round(9)
    return scores.score(rows.frame, probability)


def resampled(
    scored: Scored, slices: dict[str, npt.NDArray[np.bool_]], p: PromotionParams, settings: MetricSettings
) -> Resampled:
    """Measure a model on the rows as they are and on each resample of the groups, the same for every model.

    A slice with too few rows to be measured, or one outcome only, is left out: the gate misses it. In a slice, a
    resample that has drawn one outcome only does not count.
    """
    counts = metrics.resample_groups(scored.group, p.bootstrap, p.seed)
    counts = np.concatenate([np.ones((1, counts.shape[1]), dtype=np.int64), counts])
    whole = metrics.measure_weighted(scored, counts, settings)
    groups, parts, sizes = np.unique(scored.group), {}, {}
    for name, rows in slices.items():
        part = scored.where(rows)
        if rows.sum() >= metrics.MIN_ROWS and 0 < part.target.mean() < 1:
            drawn = counts[:, np.isin(groups, part.group)]
            areas = metrics.roc_auc(part, drawn)
            found = metrics.group_means(part, drawn[~np.isnan(areas)]) | {"roc_auc": areas[~np.isnan(areas)]}
            parts[name] = {str(metric): found[metric] for metric in p.slice_margins}
            sizes[name] = len(np.unique(part.group))
    return Resampled({str(metric): whole[metric] for metric in p.margins}, parts, sizes)


def compare_models(
    challenger: Resampled, champion: Resampled, p: PromotionParams
) -> tuple[dict[str, Comparison], dict[str, dict[str, Comparison]], Resampled]:
    """Return the guarded metrics of both models, whole and by slice, by one paired bootstrap over groups.

    The bound of the whole is the lower one. That of a slice is the upper one, by its standard error, at a confidence
    that holds for all slices and metrics at once (Bonferroni, and Student's t with the slice's groups, of
    which it may have few): a slice alone has too few rows to prove that nothing is lost. A slice of a single group has
    no bound: it is infinite.
    """

    def advantages(new: dict[str, Floats], old: dict[str, Floats]) -> dict[str, Floats]:
        return {m: (new[m][1:] - old[m][1:]) * (1 if HIGHER_IS_BETTER[m] else -1) for m in new}

    def pairs(new: dict[str, Floats], old: dict[str, Floats], bounds: dict[str, float]) -> dict[str, Comparison]:
        return {m: Comparison(float(new[m][0]), float(old[m][0]), bounds[m]) for m in new}

    def highest(name: str, metric: str, gain: Floats) -> float:
        size = challenger.groups.get(name, np.inf)
        if size < 2:  # no resample differs from another
            return math.inf
        width = stats.t.ppf(1 - (1 - p.confidence) / count, size - 1)
        new, old = (float(side.slices[name][metric][0]) for side in (challenger, champion))
        return advantage(metric, new, old) + float(width * gain.std())

    whole = advantages(challenger.metrics, champion.metrics)
    parts = {name: advantages(part, champion.slices[name]) for name, part in challenger.slices.items()}
    count = max(1, sum(map(len, parts.values())))
    lower = {m: float(np.quantile(gain, 1 - p.confidence)) for m, gain in whole.items()}
    upper = {name: {m: highest(name, m, gain) for m, gain in gains.items()} for name, gains in parts.items()}
    return (
        pairs(challenger.metrics, champion.metrics, lower),
        {name: pairs(part, champion.slices[name], upper[name]) for name, part in challenger.slices.items()},
        Resampled(whole, parts),
    )


def last_training_day(manifest: dict[str, Any]) -> date | None:
    """Return the last day that a bundle was trained on; None if its manifest does not name it."""
    try:
        return date.fromisoformat(manifest["rows"]["train"]["last"])
    except (KeyError, TypeError, ValueError):
        return None


def unseen(known: Candidate, rows: dict[str, Any]) -> Bound:
    """Check that a version was trained on days before the test rows only."""
    name = f"days from the training of version {known.version.version} to the test rows"
    last, first = last_training_day(known.bundle.manifest), rows["first"]
    if last is None:
        why = f"its manifest does not name its last day of training. For a champion, {WITHOUT_IT}"
        return Bound.at_least(name, math.nan, 1, message=why)
    why = f"it was trained until {last}, the test rows begin on {first}; `on-time data add` adds newer ones"
    return Bound.at_least(name, (date.fromisoformat(first) - last).days, 1, message=why)


def decided_before(client: MlflowClient, rows: dict[str, Any], challenger: ModelVersion, most: int) -> Bound:
    """Check that these test rows have decided on fewer other challengers than `most`: each wears them out a little."""
    runs = mlflow_runs.find_runs(
        client, {mlflow_runs.STAGE_TAG: "decision", "action": "promote", ROWS_TAG: rows["sha256"]}
    )
    others = {run.data.tags["challenger"] for run in runs} - {str(challenger.version)}
    why = "`on-time data add` adds newer rows, or raise gate.promotion.max_decisions, by which chance is promoted"
    return Bound.at_most("challengers decided on these test rows before", len(others), most - 1, message=why)


def latencies(compared: list[Bundle], calls: int) -> list[float]:
    """Return the median seconds of each bundle's single-row prediction, timed in turns: noise hits all alike."""
    request = Request.model_validate(compared[0].manifest["golden"][0]["request"])
    times = np.empty((calls, len(compared)))
    for call in range(-WARM_UP_CALLS, calls):
        for i, bundle in enumerate(compared):
            started = time.perf_counter()
            bundle.probabilities([request])
            if call >= 0:
                times[call, i] = time.perf_counter() - started
    return [float(median) for median in np.median(times, axis=0)]


def baselines(client: MlflowClient, version: ModelVersion) -> dict[str, dict[str, Any]]:
    """Return the metrics kept with a version's training run; raise BundleInvalid if they are gone."""
    lost = versions.lost_run(client, version)
    if lost:
        raise BundleInvalid(f"{lost}. `make repro` at its commit registers the model again.")
    return dict(mlflow.artifacts.load_dict(f"runs:/{version.run_id}/{METRICS_FILE.name}"))


def collect_evidence(
    client: MlflowClient, challenger: ModelVersion, champion: ModelVersion | None, p: Params
) -> Evidence:
    """Score both versions from the registry on the test rows; one that cannot be loaded is evidence too."""
    settings = MetricSettings(p.evaluate.ece_bins, p.evaluate.riskiest_share)
    rows = TestRows.load()
    with ExitStack() as downloads:
        try:
            new = downloads.enter_context(candidate(challenger))
            known = baselines(client, challenger)
        except BundleInvalid as err:
            return Evidence({}, str(err))
        scored = score_rows(new.bundle, rows, p)
        known |= {"test": metrics.measure(scored, settings)}
        spent = decided_before(client, rows.described, challenger, p.gate.promotion.max_decisions)
        found = Evidence(known, rows=rows.described, conditions=(unseen(new, rows.described), spent))
        if champion is None:
            return found
        try:
            old = downloads.enter_context(candidate(champion))
        except BundleInvalid as err:
            raise ModelUnavailable(f"nothing to compare with: {err} {WITHOUT_IT}.") from err
        guarded = scores.slices(rows.frame, rows.lookups)
        guarded = {name: guarded[name] for name in p.gate.slices if name in guarded}
        both = [
            resampled(one, guarded, p.gate.promotion, settings) for one in (scored, score_rows(old.bundle, rows, p))
        ]
        whole, parts, _ = compare_models(both[0], both[1], p.gate.promotion)
        times = latencies([new.bundle, old.bundle], p.gate.promotion.latency_calls)
        return replace(
            found,
            has_champion=True,
            metrics=whole,
            slices=parts,
            latency=(times[0], times[1]),
            size=(new.size, old.size),
            conditions=(*found.conditions, unseen(old, rows.described)),
        )
