"""`on-time monitor replay`: the test period to a running service, in fast motion, outcomes following."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd

from app.errors import OnTimeError
from app.model.bundle import MANIFEST_FILE
from app.problem.lookups import Tables
from stages import params, progress
from stages.featurize import as_columns, as_requests, flight_days, repair, within
from stages.problem import raw as data
from stages.train import BUNDLE_DIR

BATCH = 24
"""Flights in one request; after each of them comes a request for one flight alone, as clients do both."""

CONNECTIONS = 4
REPAIRS = Path("build/repairs.json")
WEEK_DAYS = 7


class ReplayFailed(OnTimeError):
    """The service does not take what is replayed."""


@dataclass(frozen=True)
class Day:
    """The flights of a day: bodies of /predict, and what became of them."""

    day: date
    requests: list[dict[str, Any]]
    outcomes: list[dict[str, Any]]


def outcome(flight: Any) -> dict[str, Any]:
    """Return what became of a flight, as POST /outcomes takes it."""
    if np.isnan(flight.arr_delay):
        return {"status": "cancelled" if np.isnan(flight.dep_time) else "diverted"}
    return {"status": "arrived", "delay_minutes": int(flight.arr_delay)}


def days(first: date, last: date) -> list[Day]:
    """Return the days of a period, flights in the order of their scheduled departure."""
    raw = repair(data.load(), json.loads(REPAIRS.read_text(encoding="utf-8")))
    manifest = json.loads((BUNDLE_DIR / MANIFEST_FILE).read_text(encoding="utf-8"))
    flights = raw.flights[within(flight_days(raw.flights), (first, last))]
    flights = flights.sort_values(["time_hour", "sched_dep_time"]).reset_index(drop=True)
    requests = as_requests(as_columns(flights, raw.weather, Tables.from_json(manifest["tables"])))
    outcomes = [outcome(flight) for flight in flights.itertuples()]
    made = []
    for key, rows in flights.groupby(["year", "month", "day"]).groups.items():
        made.append(Day(date(*key), [requests[i] for i in rows], [outcomes[i] for i in rows]))
    return made


async def _post(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> Any:
    """Return the answer; wait and ask again where the service has no room, fail on anything else."""
    for _ in range(20):
        answer = await client.post(path, json=body)
        if answer.status_code != 503:
            break
        await asyncio.sleep(0.5)
    if answer.status_code != 200:
        raise ReplayFailed(f"{path} answered {answer.status_code}: {answer.text[:200]}")
    return answer.json()


async def predict(
    client: httpx.AsyncClient, requests: Sequence[dict[str, Any]], seconds: float
) -> list[dict[str, Any]]:
    """Send a day's flights within about this time, and return the predictions in their order."""
    starts = range(0, len(requests), BATCH + 1)
    pause = seconds / max(len(starts), 1)
    room = asyncio.Semaphore(CONNECTIONS)

    async def send(start: int) -> list[dict[str, Any]]:
        await asyncio.sleep(pause * (start // (BATCH + 1)))
        async with room:
            *many, one = requests[start : start + BATCH + 1]
            made = (await _post(client, "/predict/batch", {"flights": many}))["predictions"] if many else []
            return [*made, await _post(client, "/predict", one)]

    return [prediction for part in await asyncio.gather(*map(send, starts)) for prediction in part]


async def report(client: httpx.AsyncClient, known: list[dict[str, Any]]) -> None:
    """Send the outcomes of a day."""
    for start in range(0, len(known), 1000):
        answer = await _post(client, "/outcomes/batch", {"outcomes": known[start : start + 1000]})
        if answer["unknown"]:
            raise ReplayFailed(
                f"the journal lacks {len(answer['unknown'])} of the predictions; /metrics has the reason."
            )


async def replay(base: str, replayed: list[Day], week_seconds: float, headers: dict[str, str]) -> pd.DataFrame:
    """Send the days, each with the outcomes of the day before; return probability and delay class of each flight."""
    rows: list[tuple[date, float, bool]] = []
    waiting: list[dict[str, Any]] = []
    async with httpx.AsyncClient(base_url=base, timeout=30, headers=headers) as client:
        for number, day in enumerate(progress.track(replayed, "days", lines=False)):
            started = time.monotonic()
            predictions = await predict(client, day.requests, week_seconds / WEEK_DAYS * 0.8)
            await report(client, waiting)
            waiting = [
                {"prediction_id": p["prediction_id"]} | o for p, o in zip(predictions, day.outcomes, strict=True)
            ]
            for prediction, came in zip(predictions, day.outcomes, strict=True):
                rows.append((day.day, prediction["probability"], came.get("delay_minutes", 9999) >= 15))
            if (number + 1) % WEEK_DAYS == 0:
                _say(rows, replayed[number + 1 - WEEK_DAYS].day)
            await asyncio.sleep(max(0.0, week_seconds / WEEK_DAYS - (time.monotonic() - started)))
        await report(client, waiting)
    return pd.DataFrame(rows, columns=["day", "probability", "not_on_time"])


def _say(rows: list[tuple[date, float, bool]], first: date) -> None:
    week = [(p, late) for day, p, late in rows if day >= first]
    mean, observed = np.mean([p for p, _ in week]), np.mean([late for _, late in week])
    print(
        f"week of {first}: {len(week)} flights, "
        f"predicted {mean:.3f}, observed {observed:.3f}, gap {mean - observed:+.3f}",
        flush=True,
    )


def run(base: str, first: date | None, last: date | None, week_seconds: float) -> None:
    """Replay the test period of params.yaml, or another one."""
    period, key = params.load().featurize.test, os.environ.get("ONTIME_API_KEY")
    wanted = days(first or period[0], last or period[1])
    try:
        asyncio.run(replay(base, wanted, week_seconds, {"X-API-Key": key} if key else {}))
    except (httpx.HTTPError, FileNotFoundError) as err:
        raise ReplayFailed(f"{err!r} at {base}: `make repro`, `make promote` and `make serve` come first.") from err
