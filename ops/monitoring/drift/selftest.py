"""`on-time monitor drift-selftest`: the thresholds on samples, ordinary weeks, faults and the test months."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from app.model import bundle as model
from ops.monitoring.drift.compare import alarms, compare
from ops.monitoring.drift.reference import SCORE, WEEK_DAYS, Reference, load, words
from stages import params, progress
from stages.featurize import DAY, OUT_DIR, TARGET
from stages.fetch import sha256
from stages.train import BUNDLE_DIR, ROLLING_FILE, matrix, month_of

RESAMPLES = 100
WINDOW_ROWS = 2000


def reference_of(folder: Path = BUNDLE_DIR) -> tuple[Reference, model.Bundle]:
    """Return the reference and the model of a bundle that the pipeline has made."""
    bundle = model.load(folder / model.MODEL_FILE, folder / model.MANIFEST_FILE)
    digest = sha256(folder / model.MANIFEST_FILE)
    return load(folder, "of this working tree", digest, params.load().monitor.drift), bundle


def beyond(reference: Reference, window: pd.DataFrame) -> list[str]:
    """Return the alarms of a window whose outcomes are all known."""
    return alarms(reference, compare(reference, window, window))


def resampled(reference: Reference, windows: int, rows: int, seed: int = 0) -> Iterator[pd.DataFrame]:
    """Yield windows drawn from the part of the reference that has out-of-fold scores."""
    scored = reference.frame.dropna(subset=[SCORE])
    for i in range(windows):
        yield scored.sample(rows, replace=True, random_state=seed + i)


def faults(reference: Reference) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield windows of the reference into which a fault was put."""
    (window,) = resampled(reference, 1, WINDOW_ROWS)
    late = window.assign(departure_minute=(window["departure_minute"] + 300) % 1440)
    yield "departures in UTC instead of local time", late
    celsius = (window["dew_point_f"] - 32) / 1.8
    spread = window["temperature_f"] - celsius
    yield "dew point in degrees Celsius", window.assign(dew_point_f=celsius, dew_point_spread_f=spread)
    unknown = np.arange(len(window)) % 50 == 0
    yield "an unknown airline in 2 % of the flights", window.assign(carrier=window["carrier"].mask(unknown))
    yield "half of the flights without pressure", window.assign(
        pressure_mb=window["pressure_mb"].mask(np.arange(len(window)) % 2 == 0)
    )
    yield "all scores halved", window.assign(**{SCORE: window[SCORE] * 0.5})


def weeks(frame: pd.DataFrame, stride: int = WEEK_DAYS) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield whole weeks, `stride` days apart, with the date that they begin on."""
    first, last = int(frame[DAY].min()), int(frame[DAY].max())
    for day in range(first, last - WEEK_DAYS + 2, stride):
        rows = frame[(frame[DAY] >= day) & (frame[DAY] < day + WEEK_DAYS)]
        yield str(np.datetime64(day, "D")), rows


def training_weeks(vocabularies: dict[str, list[str]]) -> pd.DataFrame:
    """Return the training rows of the rolling-origin months with their out-of-fold scores."""
    known, train = pd.read_parquet(ROLLING_FILE), pd.read_parquet(OUT_DIR / "train.parquet")
    month = month_of(train[DAY].to_numpy())
    rows = pd.concat([train[month == fold] for fold in params.load().train.fold_months], ignore_index=True)
    assert rows[DAY].equals(known[DAY]) and rows[TARGET].equals(known[TARGET])
    return words(rows, vocabularies).assign(**{SCORE: known[SCORE]})


def test_weeks(bundle: model.Bundle) -> pd.DataFrame:
    """Return the rows of the test months with the model's scores; they choose nothing here."""
    test = pd.read_parquet(OUT_DIR / "test.parquet")
    return words(test, bundle.tables.vocabularies).assign(**{SCORE: model.predict(bundle.booster, matrix(test))})


def kinds(alarm_lists: list[list[str]]) -> str:
    """Return how many windows alarm, and by what."""
    counts = Counter(name for names in alarm_lists for name in {alarm.split()[0] for alarm in names})
    return f"{sum(map(bool, alarm_lists))} of {len(alarm_lists)} alarm " + str(dict(counts))


def line(reference: Reference, name: str, window: pd.DataFrame) -> str:
    """Return a window as a row of a Markdown table."""
    found = compare(reference, window, window)
    q = found.quality
    assert q is not None
    numbers = [q.mean_probability, q.observed_rate, q.gap, q.log_loss, found.score_psi]
    cells = [name, *(f"{n:.3f}" for n in numbers), "; ".join(alarms(reference, found)) or "none"]
    return "| " + " | ".join(cells) + " |"


def show() -> None:
    """Print how often samples and ordinary weeks alarm, and one line per fault and week of the test months."""
    reference, bundle = reference_of()
    drawn = progress.track(resampled(reference, RESAMPLES, WINDOW_ROWS), "samples", RESAMPLES, lines=False)
    samples = [beyond(reference, window) for window in drawn]
    print(f"windows of {WINDOW_ROWS} rows drawn from the reference: {kinds(samples)}")
    training = training_weeks(bundle.tables.vocabularies)
    days = list(weeks(training, stride=1))
    ordinary = [beyond(reference, window) for _, window in progress.track(days, "weeks", lines=False)]
    print(f"weeks of May to October, starting on each day: {kinds(ordinary)}\n")
    print(
        "| window | mean probability | observed | gap | log loss | score PSI | alarms |\n|---|---|---|---|---|---|---|"
    )
    for name, window in itertools.chain(faults(reference), weeks(test_weeks(bundle))):
        print(line(reference, name, window), flush=True)
