"""`on-time monitor replay`: the test period to a running service, in fast motion, outcomes following."""

import asyncio
import json
import os
import time
from dataclasses import dataclass
from datetime import date
from typing import Any

import httpx
import numpy as np
import pandas as pd

from app.errors import OnTimeError
from app.interface import ROWS_NOUN, Lookups, Outcome
from stages import interface, params
from stages.base import progress
from stages.features import compute
from stages.features.feature_files import LOOKUPS_FILE
from stages.problem_kit.rows import day_of
from stages.tables import partitions
from stages.tables.partitions import TABLES_DIR

BATCH = 24
"""Rows in a batch; each batch is followed by a single request, as clients send both."""

CONNECTIONS = 4
WEEK_DAYS = 7


Body = dict[str, Any]


class ReplayFailed(OnTimeError):
    """The service rejects a replayed request, or is unreachable."""


@dataclass(frozen=True)
class Day:
    """The rows of a day: bodies of /predict, and their outcomes."""

    day: date
    requests: list[Body]
    outcomes: list[Body]


def days(first: date, last: date) -> list[Day]:
    """Return the days of a period, rows in the order of the data; raise ReplayFailed if there are none."""
    p = params.load().problem
    store = partitions.written(p)
    lookups = Lookups.from_json(json.loads(LOOKUPS_FILE.read_text(encoding="utf-8")))
    made: dict[int, Day] = {}
    for partition in (one for one in store.partitions if one.first <= last and first <= one.last):
        tables = store.around(partition, interface.reach_days(p))
        rows = compute.rows_of(tables, partition, p)
        rows = rows.where(rows.within((first, last)))
        if not rows:
            continue
        bodies = interface.requests(interface.arrays_of_rows(rows.frame, tables, lookups, p))
        for number, body, outcome in zip(rows.day, bodies, interface.outcomes(rows.frame, p), strict=True):
            day = made.setdefault(number, Day(day_of(number), [], []))
            day.requests.append(body)
            day.outcomes.append(outcome)
    if not made:
        raise ReplayFailed(
            f"{TABLES_DIR} has no {ROWS_NOUN} from {first} to {last}: name other days by --first and --last."
        )
    return [made[number] for number in sorted(made)]


async def _post(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> Any:
    """Return the response; retry while the service is overloaded (503), and raise ReplayFailed on any other error."""
    for _ in range(20):
        answer = await client.post(path, json=body)
        if answer.status_code != 503:
            break
        await asyncio.sleep(0.5)
    if answer.status_code != 200:
        raise ReplayFailed(f"{path} answered {answer.status_code}: {answer.text[:200]}")
    return answer.json()


async def predict(client: httpx.AsyncClient, requests: list[Body], seconds: float) -> list[Body]:
    """Send a day's requests within about this time, and return the predictions in their order."""
    starts = range(0, len(requests), BATCH + 1)
    pause = seconds / max(len(starts), 1)
    room = asyncio.Semaphore(CONNECTIONS)

    async def send(start: int) -> list[Body]:
        await asyncio.sleep(pause * (start // (BATCH + 1)))
        async with room:
            *many, one = requests[start : start + BATCH + 1]
            made = (await _post(client, "/predict/batch", {ROWS_NOUN: many}))["predictions"] if many else []
            return [*made, await _post(client, "/predict", one)]

    return [prediction for part in await asyncio.gather(*map(send, starts)) for prediction in part]


async def send_outcomes(client: httpx.AsyncClient, known: list[dict[str, Any]]) -> None:
    """Send the outcomes of a day."""
    for start in range(0, len(known), 1000):
        answer = await _post(client, "/outcomes/batch", {"outcomes": known[start : start + 1000]})
        lost = len(answer["unknown"])
        if lost:
            raise ReplayFailed(f"the journal lacks {lost} of the predictions; /metrics has the reason.")


async def replay(base: str, replayed: list[Day], week_seconds: float, headers: dict[str, str]) -> pd.DataFrame:
    """Send the days, each with the outcomes of the day before; return probability and target of each row."""
    rows: list[tuple[date, float, bool]] = []
    waiting: list[dict[str, Any]] = []
    async with httpx.AsyncClient(base_url=base, timeout=30, headers=headers) as client:
        for number, day in enumerate(progress.track(replayed, "days", lines=False)):
            started = time.monotonic()
            predictions = await predict(client, day.requests, week_seconds / WEEK_DAYS * 0.8)
            await send_outcomes(client, waiting)
            waiting = []
            for prediction, outcome in zip(predictions, day.outcomes, strict=True):
                waiting.append({"prediction_id": prediction["prediction_id"]} | outcome)
                rows.append((day.day, prediction["probability"], Outcome.model_validate(waiting[-1]).positive))
            if (number + 1) % WEEK_DAYS == 0:
                _print_week(rows, replayed[number + 1 - WEEK_DAYS].day)
            await asyncio.sleep(max(0.0, week_seconds / WEEK_DAYS - (time.monotonic() - started)))
        await send_outcomes(client, waiting)
    return pd.DataFrame(rows, columns=["day", "probability", "positive"])


def _print_week(rows: list[tuple[date, float, bool]], first: date) -> None:
    week = [(p, positive) for day, p, positive in rows if day >= first]
    mean, observed = np.mean([p for p, _ in week]), np.mean([positive for _, positive in week])
    rates = f"predicted {mean:.3f}, observed {observed:.3f}, gap {mean - observed:+.3f}"
    print(f"week of {first}: {len(week)} {ROWS_NOUN}, {rates}", flush=True)


def replay_period(base: str, first: date | None, last: date | None, week_seconds: float) -> None:
    """Replay the test period of params.yaml, or another one."""
    period, key = params.load().test_period, os.environ.get("ONTIME_API_KEY")
    wanted = days(first or period[0], last or period[1])
    try:
        asyncio.run(replay(base, wanted, week_seconds, {"X-API-Key": key} if key else {}))
    except (httpx.HTTPError, FileNotFoundError) as err:
        raise ReplayFailed(f"{err!r} at {base}: `make repro`, `make promote` and `make serve` come first.") from err
