"""`on-time monitor drift-selftest`: the alarms on samples, ordinary weeks, injected faults and the test period."""

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
from tabulate import tabulate

from app.interface import CATEGORIES, NUMBERS
from app.model import bundles
from ops.gate.evidence import check_outputs
from ops.monitoring.drift.compare import Alarm, alarms, compare_window
from ops.monitoring.drift.reference import SCORE, WEEK_DAYS, Reference, load_reference, words
from stages import params
from stages.base import progress
from stages.base.paths import BUNDLE_DIR, ROLLING_FILE, sha256
from stages.features import feature_files
from stages.features.feature_files import DAY, TARGET, matrix
from stages.problem_kit.rows import months_of

RESAMPLES = 100
WINDOW_ROWS = 2000


def reference_of(folder: Path = BUNDLE_DIR) -> tuple[Reference, bundles.Bundle]:
    """Return the reference and the model of a bundle that the pipeline has made."""
    bundle = bundles.load(folder / bundles.MODEL_FILE, folder / bundles.MANIFEST_FILE)
    digest = sha256(folder / bundles.MANIFEST_FILE)
    return load_reference(folder, "of this working tree", digest, params.load().monitor.drift), bundle


def beyond(reference: Reference, window: pd.DataFrame) -> list[Alarm]:
    """Return the alarms of a window whose outcomes are all known."""
    return alarms(reference, compare_window(reference, window, window))


def resampled(reference: Reference, windows: int, rows: int, seed: int = 0) -> Iterator[pd.DataFrame]:
    """Yield windows drawn from the part of the reference that has out-of-fold scores."""
    scored = reference.frame.dropna(subset=[SCORE])
    for i in range(windows):
        yield scored.sample(rows, replace=True, random_state=seed + i)


def most_important_number(folder: Path = BUNDLE_DIR) -> str:
    """Return the number that reduces the model's loss most."""
    booster = lightgbm.Booster(model_file=folder / bundles.MODEL_FILE)
    gain = dict(zip(booster.feature_name(), booster.feature_importance("gain"), strict=True))
    return max(NUMBERS, key=lambda name: gain[name])


def faults(reference: Reference, number: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield windows of the reference with a fault: in a number, in the first category, in all scores."""
    (window,) = resampled(reference, 1, WINDOW_ROWS)
    values, order = window[number], np.arange(len(window))
    yield "shifted", window.assign(**{number: values + 3 * values.std()})
    yield "half missing", window.assign(**{number: values.mask(order % 2 == 0)})
    yield "unknown in 2 %", window.assign(**{name: window[name].mask(order % 50 == 0) for name in CATEGORIES[:1]})
    yield "scores halved", window.assign(**{SCORE: window[SCORE] * 0.5})


def weeks(frame: pd.DataFrame, stride: int = WEEK_DAYS) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield whole weeks, `stride` days apart, with the date that they begin on."""
    first, last = int(frame[DAY].min()), int(frame[DAY].max())
    for day in range(first, last - WEEK_DAYS + 2, stride):
        rows = frame[(frame[DAY] >= day) & (frame[DAY] < day + WEEK_DAYS)]
        yield str(np.datetime64(day, "D")), rows


def training_weeks(vocabularies: dict[str, list[str]]) -> pd.DataFrame:
    """Return the training rows of the rolling-origin months with their out-of-fold scores."""
    known = pd.read_parquet(ROLLING_FILE)
    folds = months_of(known[DAY].to_numpy())
    parts = [frame[np.isin(months_of(frame[DAY].to_numpy()), folds)] for frame in feature_files.each("train")]
    rows = pd.concat(parts, ignore_index=True)
    month = months_of(rows[DAY].to_numpy())
    rows = pd.concat([rows[month == fold] for fold in pd.unique(folds)], ignore_index=True)
    assert rows[DAY].equals(known[DAY]) and rows[TARGET].equals(known[TARGET])
    return words(rows, vocabularies).assign(**{SCORE: known[SCORE]})


def test_weeks(bundle: bundles.Bundle) -> pd.DataFrame:
    """Return the test rows with the model's scores."""
    test = feature_files.read("test")
    return words(test, bundle.lookups.vocabularies).assign(**{SCORE: bundles.predict(bundle.booster, matrix(test))})


def kinds(alarm_lists: list[list[Alarm]]) -> str:
    """Return how many windows alarm, and by what."""
    counts = Counter(kind for found in alarm_lists for kind in {alarm.kind.value for alarm in found})
    return f"{sum(map(bool, alarm_lists))} of {len(alarm_lists)} alarm " + str(dict(counts))


def row(reference: Reference, name: str, window: pd.DataFrame) -> list[str]:
    """Return a window as a row of a table."""
    found = compare_window(reference, window, window)
    q = found.quality
    if q is None:
        return [name, *"–––––", f"{found.rows} rows are fewer than monitor.drift.min_rows"]
    numbers = [q.mean_probability, q.observed_rate, q.gap, q.log_loss, found.score_psi]
    return [name, *(f"{n:.3f}" for n in numbers), "; ".join(map(str, alarms(reference, found))) or "none"]


def show_drift() -> None:
    """Print how often samples and ordinary weeks alarm, and a row for each fault and each week of the test period."""
    check_outputs("featurize", "train")
    reference, bundle = reference_of()
    drawn = progress.track(resampled(reference, RESAMPLES, WINDOW_ROWS), "samples", RESAMPLES, lines=False)
    samples = [beyond(reference, window) for window in drawn]
    print(f"windows of {WINDOW_ROWS} rows drawn from the reference: {kinds(samples)}")
    training = training_weeks(bundle.lookups.vocabularies)
    days = list(weeks(training, stride=1))
    ordinary = [beyond(reference, window) for _, window in progress.track(days, "weeks", lines=False)]
    print(f"weeks of the rolling-origin months, starting on each day: {kinds(ordinary)}\n")
    windows = itertools.chain(faults(reference, most_important_number()), weeks(test_weeks(bundle)))
    head = ["window", "mean probability", "observed", "gap", "log loss", "score PSI", "alarms"]
    rows = [row(reference, name, window) for name, window in windows]
    print(tabulate(rows, head, tablefmt="pipe", disable_numparse=True))
