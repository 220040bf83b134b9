"""The model bundle: one directory with LightGBM's text model and a JSON manifest; loaded, verified, and asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from app.api.schemas import Flight
from app.errors import BundleInvalid
from app.model.booster import Booster
from app.problem.features import CATEGORICAL, FEATURES, WEATHER, WEATHER_HOURS, Flights, SingleFlight, compute
from app.problem.lookups import Floats, Tables

MODEL_FILE = "model.lgb"
MANIFEST_FILE = "manifest.json"
REFERENCE_FILE = "reference.parquet"
GOLDEN_TOLERANCE = 1e-9

_EPOCH = datetime(1970, 1, 1)
_weather_of = attrgetter(*WEATHER)
_NO_WEATHER = (np.nan,) * len(WEATHER)


@dataclass(frozen=True)
class Bundle:
    """A verified model with all that it takes to answer a request."""

    booster: Booster
    tables: Tables
    threshold: float
    digest: str
    manifest: dict[str, Any]

    def probabilities(self, flights: Flights) -> Floats:
        """Return the probability of not arriving on time of each flight, shape (n,)."""
        return predict(self.booster, compute(flights, self.tables))

    def values(self, row: Sequence[float]) -> dict[str, float | str | None]:
        """Return what a row of features says: categories by name, None where a value is missing."""
        # pylint: disable-next=comparison-with-itself # only a missing value differs from itself
        decoded: dict[str, Any] = {name: value if value == value else None for name, value in zip(FEATURES, row)}
        for name in CATEGORICAL:
            if decoded[name] is not None:
                decoded[name] = self.tables.vocabularies[name][int(decoded[name])]
        return decoded


def predict(booster: Any, features: Floats) -> Floats:
    """Return the probability of not arriving on time for each row of features, by our booster or LightGBM's own."""
    threads = 1 if len(features) < 100 else 0  # more threads only cost time on few rows
    return np.asarray(booster.predict(features, num_threads=threads), dtype=np.float64)


def to_flights(requests: Sequence[Flight]) -> Flights:
    """Return requests as the columns that the feature function takes."""
    hours = [_weather_of(hour) for flight in requests for hour in flight.weather or ()]
    counts = np.array([len(flight.weather or ()) for flight in requests], dtype=np.int64)
    weather = np.full((len(requests), WEATHER_HOURS, len(WEATHER)), np.nan)
    weather[np.arange(WEATHER_HOURS) >= WEATHER_HOURS - counts[:, None]] = np.array(hours, dtype=np.float64).reshape(
        -1, len(WEATHER)
    )  # None becomes NaN
    return Flights(
        carrier=[flight.carrier for flight in requests],
        origin=[flight.origin for flight in requests],
        dest=[flight.dest for flight in requests],
        departure=np.array([_minutes(flight.scheduled_departure) for flight in requests], dtype=np.int64),
        arrival=np.array([_minutes(flight.scheduled_arrival) for flight in requests], dtype=np.int64),
        weather=weather.transpose(2, 1, 0),
    )


def to_single(flight: Flight) -> SingleFlight:
    """Return one request as the numbers that the feature function takes."""
    hours = [tuple(np.nan if value is None else value for value in _weather_of(hour)) for hour in flight.weather or ()]
    return SingleFlight(
        carrier=flight.carrier,
        origin=flight.origin,
        dest=flight.dest,
        departure=_minutes(flight.scheduled_departure),
        arrival=_minutes(flight.scheduled_arrival),
        weather=[*zip(*hours or [_NO_WEATHER], strict=True)],
    )


def _minutes(local: datetime) -> int:
    since = local - _EPOCH
    return since.days * 1440 + since.seconds // 60


def load(model: Path, manifest: Path) -> Bundle:
    """Load a bundle; raise BundleInvalid unless its hash, its features and its golden answers are right."""
    try:
        text, content = model.read_bytes(), manifest.read_bytes()
        facts = json.loads(content)
        expected, features, threshold = facts["model_sha256"], facts["features"], float(facts["threshold"])
        tables = Tables.from_json(facts["tables"])
        golden = [(Flight.model_validate(item["request"]), float(item["probability"])) for item in facts["golden"]]
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise BundleInvalid(f"{model.parent} is not a model bundle: {err!r}. `dvc repro train` makes one.") from err
    found = hashlib.sha256(text).hexdigest()
    if found != expected:
        raise BundleInvalid(
            f"{model} is not the model of its manifest: SHA-256 {found[:12]}…, expected {str(expected)[:12]}…. "
            "`dvc checkout build/bundle` restores it."
        )
    if features != list(FEATURES):
        odd = sorted(set(features) ^ set(FEATURES)) or ["another order"]
        raise BundleInvalid(
            f"{manifest} asks for other features than app/problem/features.py computes: {', '.join(odd)}."
        )
    bundle = Bundle(Booster(text), tables, threshold, hashlib.sha256(content).hexdigest(), facts)
    _replay(bundle, golden, manifest)
    return bundle


def _replay(bundle: Bundle, golden: list[tuple[Flight, float]], manifest: Path) -> None:
    """Ask the golden requests; the answers must be those that were given when the model was made."""
    if not golden:
        raise BundleInvalid(f"{manifest} has no golden requests to try the model with.")
    answers = bundle.probabilities(to_flights([request for request, _ in golden]))
    apart = np.abs(answers - np.array([probability for _, probability in golden]))
    if not np.all(apart <= GOLDEN_TOLERANCE):
        raise BundleInvalid(
            f"{manifest}: golden request {int(np.argmax(apart))} is answered {apart.max():.3g} off. It is not served."
        )
