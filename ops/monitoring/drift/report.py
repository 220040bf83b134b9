"""The results of a drift run: an HTML page of evidently, and a run in MLflow when something has changed."""

import math
from datetime import UTC, datetime
from pathlib import Path

import mlflow
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.metrics import ValueDrift

from app.interface import CATEGORIES, FEATURE_NAMES, NAME
from ops.monitoring.drift.compare import Alarm, Findings
from ops.monitoring.drift.reference import SCORE, Reference

EXPERIMENT = f"{NAME}-monitoring"


def write_html(reference: Reference, window: pd.DataFrame, folder: Path, keep: int) -> Path:
    """Write evidently's page on a window, by the same method and limits; keep the newest `keep` pages."""
    limits = reference.psi_limits | {SCORE: reference.score_limit}
    there = [c for c in (*FEATURE_NAMES, SCORE) if window[c].notna().any() and reference.frame[c].notna().any()]
    definition = DataDefinition(
        categorical_columns=[c for c in there if c in CATEGORIES],
        numerical_columns=[c for c in there if c not in CATEGORIES],
    )
    report = Report([ValueDrift(column=name, method="psi", threshold=limits[name]) for name in there])
    frames = [Dataset.from_pandas(frame[there], data_definition=definition) for frame in (window, reference.frame)]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"drift-{datetime.now(UTC):%Y%m%dT%H%M%S}.html"
    report.run(*frames).save_html(str(path))
    for old in sorted(folder.glob("drift-*.html"))[:-keep]:
        old.unlink(missing_ok=True)
    return path


def log_run(reference: Reference, found: Findings, alarms: list[Alarm], html: Path) -> None:
    """Log a drift run to MLflow, its page attached."""
    mlflow.set_experiment(EXPERIMENT)
    numbers = {"rows": float(found.rows), "score_psi": found.score_psi}
    numbers |= {f"psi.{name}": value for name, value in found.feature_psi.items()}
    numbers |= {f"missing.{name}": value for name, value in found.missing.items()}
    numbers |= {f"unseen.{name}": value for name, value in found.unseen.items()}
    if found.quality:
        numbers |= vars(found.quality) | {"calibration_gap": found.quality.gap}
    tags = {"model_version": reference.version, "alarms": "; ".join(map(str, alarms))[:4000] or "none"}
    with mlflow.start_run(run_name=f"drift of version {reference.version}", tags=tags):
        mlflow.log_metrics({name: value for name, value in numbers.items() if math.isfinite(value)})
        mlflow.log_artifact(str(html))
