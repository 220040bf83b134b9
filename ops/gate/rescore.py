"""Models of another commit on the candidate's test rows, and the paired difference of their metrics."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from app.errors import BundleInvalid, Refused
from app.interface import NAME
from app.model import bundles
from app.registry import download
from ops.gate import evidence
from ops.gate.merge_base import Base, Side
from stages import params
from stages.base.errors import DataInvalid
from stages.base.paths import BUNDLE_DIR, EVALUATION_FILE, PREDICTIONS_FILE, rounded
from stages.evaluation import metrics, scores
from stages.evaluation.floors import number
from stages.evaluation.metrics import MetricSettings, Scored
from stages.features.feature_files import KEY
from stages.tracking import mlflow_runs

TOLERANCE = 2e-6  # reports are rounded to six decimals


def scored_again(base: Base, now: Side) -> Base:
    """Return a base with its bundle scored on the candidate's rows; raise Refused if that cannot be done."""
    p, rows = params.load(), evidence.TestRows.load()
    if rows.described != now.rows:
        raise DataInvalid(f"{EVALUATION_FILE} was measured on other rows than build/features has: `dvc repro`.")
    settings = MetricSettings(p.evaluate.ece_bins, p.evaluate.riskiest_share)
    with tempfile.TemporaryDirectory() as folder:
        try:
            bundle = _bundle(base, Path(folder) / "bundle")
        except BundleInvalid as err:
            raise Refused(
                f"the model of {base.commit[:9]} cannot be scored on the new test rows: {err} Change the data first, "
                "and the features in another pull request."
            ) from err
        last = evidence.last_training_day(bundle.manifest)
        if last is None or str(last) >= now.rows["first"]:
            raise Refused(
                f"the model of {base.commit[:9]} was trained until {last or 'an unknown day'}, and the new test rows "
                f"begin on {now.rows['first']}: it may know some of them. `on-time data add` adds newer ones; or "
                "choose later days for featurize.test in params.yaml."
            )
        scored = evidence.score_rows(bundle, rows, p)
    slices = scores.by_slice(scored, scores.slices(rows.frame, rows.lookups), settings)
    share = float((scored.probability >= bundle.threshold).mean())
    threshold = {"value": bundle.threshold, "alert_share": share}
    measured = Side({"test": metrics.measure(scored, settings)}, {"slices": slices, "threshold": threshold})
    return Base(base.commit, measured, base.moved_from, scored)


def _bundle(base: Base, folder: Path) -> bundles.Bundle:
    """Return the bundle that the base's dvc.lock names: from DVC's cache or remote, or from the registry."""
    commit, days = base.commit, f"{base.moved_from['first']} to {base.moved_from['last']}"
    why = missing(commit, BUNDLE_DIR, folder)
    if why:
        client = mlflow_runs.connect()
        digest = mlflow_runs.dvc_digests(commit).get(str(BUNDLE_DIR), "none")
        found = client.search_model_versions(f"name = '{NAME}' and tags.`dvc.md5.{BUNDLE_DIR}` = '{digest}'")
        whole = [version for version in found if not download.missing(version, mlflow_runs.tracking_uri())]
        if not whole:
            raise Refused(
                f"{commit[:9]} was measured on other test rows ({days}), and its model, {BUNDLE_DIR} {digest[:9]}, is "
                f"neither in DVC's cache or remote nor in the registry ({why}). With all committed, `git switch "
                f"--detach {commit[:9]} && make repro && git switch -` trains it here."
            )
        download.export(whole[0], "", mlflow_runs.tracking_uri(), folder)
    return bundles.load(folder / bundles.MODEL_FILE, folder / bundles.MANIFEST_FILE)


def missing(commit: str, path: Path, to: Path) -> str:
    """Fetch an output of a commit from DVC's cache or remote; return why it cannot be had, empty if it can."""
    command = [sys.executable, "-m", "dvc", "get", "--rev", commit, "--out", str(to), ".", str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    told = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    return (told or ["no reason given"])[0][:200] if done.returncode else ""


def differences(base: Base, now: Side) -> dict[str, tuple[float, float]]:
    """Return the 95 % interval of each metric's change from base to candidate, by a paired bootstrap over groups.

    Empty where the predictions of either are not at hand, or are not those that the reports measure.
    """
    p = params.load()
    settings = MetricSettings(p.evaluate.ece_bins, p.evaluate.riskiest_share)
    try:
        frame = pd.read_parquet(PREDICTIONS_FILE)
        after, before = scores.score(frame, frame["probability"]), base.scored or _predictions(base.commit, frame)
    except (OSError, KeyError):
        return {}
    for scored, side in ((after, now), (before, base.side)):
        if scored is None or side is None or not _measured(scored, side, settings):
            return {}
    assert before is not None
    counts = metrics.resample_groups(after.group, p.evaluate.bootstrap, p.evaluate.seed)
    pair = [metrics.measure_weighted(one, counts, settings) for one in (before, after)]
    return {name: metrics.interval(pair[1][name] - pair[0][name]) for name in pair[0]}


def _measured(scored: Scored, side: Side, settings: MetricSettings) -> bool:
    """Return whether these are the predictions that a side's reports measure."""
    if not np.isfinite(scored.probability).all():
        return False
    found, test = rounded(metrics.measure(scored, settings)), side.metrics.get("test", {})
    return all(abs(value - number(test.get(name))) < TOLERANCE for name, value in found.items())


def _predictions(commit: str, frame: pd.DataFrame) -> Scored | None:
    """Return a commit's own predictions of the same rows, in the order of the candidate's."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / PREDICTIONS_FILE.name
        if missing(commit, PREDICTIONS_FILE, path):
            return None
        before = pd.read_parquet(path)
    return scores.score(frame, before.set_index(KEY)["probability"].reindex(frame[KEY]))
