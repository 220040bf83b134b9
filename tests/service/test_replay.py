"""The replay: outcomes as they were, in their order, to a real service, ended by what the service does not take."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from datetime import date
from typing import Any

import httpx
import pandas as pd
import pytest

from app.interface import EXAMPLE
from ops.monitoring import replay
from ops.monitoring.replay import BATCH, Day, ReplayFailed, predict, send_outcomes
from stages import interface, params
from tests.conftest import ROOT, free_port
from tests.support.servers.service import Service

CARRIERS = ("AA", "B6", "UA")
LATE, PUNCTUAL = {"status": "arrived", "delay_minutes": 40}, {"status": "arrived", "delay_minutes": -3}


def day(number: int, flights: int) -> Day:
    """Return a day of flights of three airlines in turn; each second one is late, the last one cancelled."""
    requests = [dict(EXAMPLE) | {"carrier": CARRIERS[i % 3], "weather": None} for i in range(flights)]
    outcomes: list[dict[str, Any]] = [LATE if i % 2 else PUNCTUAL for i in range(flights - 1)]
    return Day(date(2013, 11, number), requests, [*outcomes, {"status": "cancelled"}])


def test_the_outcomes_of_flights() -> None:
    p, nan = params.load(ROOT / "params.yaml").problem, float("nan")
    flights = pd.DataFrame({"arr_delay": [-3.0, nan, nan], "dep_time": [900.0, nan, 900.0]})
    assert interface.outcomes(flights, p) == [PUNCTUAL, {"status": "cancelled"}, {"status": "diverted"}]


def test_days_are_replayed_with_their_outcomes(journalled: Service, capsys: pytest.CaptureFixture[str]) -> None:
    replayed = [day(number, 2 * BATCH) for number in range(1, 8)]
    series = 'http_requests_total{handler="/predict/batch",method="POST",status="2xx"}'
    before = journalled.metric(series)
    sent = asyncio.run(replay.replay(journalled.base, replayed, 0.5, {}))
    assert journalled.metric(series) == before + 14
    assert list(sent["day"]) == [d.day for d in replayed for _ in d.requests]
    assert sent["positive"].sum() == 7 * BATCH, "23 late ones and a cancelled one a day"
    by_airline = sent.groupby([CARRIERS[i % 3] for _ in replayed for i in range(2 * BATCH)])["probability"].nunique()
    assert list(by_airline) == [1, 1, 1], "each prediction belongs to its own flight"
    assert "week of 2013-11-01: 336 flights" in capsys.readouterr().out
    with sqlite3.connect(journalled.journal.removeprefix("sqlite:///")) as connection:
        known = connection.execute(
            "SELECT details, positive, probability FROM outcomes JOIN predictions ON id = prediction_id"
        ).fetchall()
    assert Counter(json.loads(row[0])["status"] for row in known) == {"arrived": 7 * (2 * BATCH - 1), "cancelled": 7}
    assert sum(row[1] for row in known) == sent["positive"].sum()


def client(answer: Any) -> httpx.AsyncClient:
    """Return a client to a service that answers like this."""
    return httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://service")


def test_a_busy_service_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay.asyncio, "sleep", lambda _, wait=asyncio.sleep: wait(0))
    answers = [503, 503, 200]

    def busy(_: httpx.Request) -> httpx.Response:
        return httpx.Response(answers.pop(0), json={"prediction_id": "a", "probability": 0.5})

    assert asyncio.run(predict(client(busy), [dict(EXAMPLE)], 0.0)) == [{"prediction_id": "a", "probability": 0.5}]
    for status in (422, 500, 503):
        with pytest.raises(ReplayFailed, match=f"/predict answered {status}"):
            asyncio.run(predict(client(lambda _, s=status: httpx.Response(s)), [dict(EXAMPLE)], 0.0))


def test_unknown_outcomes_end_the_replay() -> None:
    sizes = []

    def forgetful(request: httpx.Request) -> httpx.Response:
        sizes.append(len(json.loads(request.content)["outcomes"]))
        return httpx.Response(200, json={"unknown": ["x"] if len(sizes) == 3 else []})

    with pytest.raises(ReplayFailed, match="lacks 1 of the predictions"):
        asyncio.run(send_outcomes(client(forgetful), [{"prediction_id": f"{i}"} | LATE for i in range(2500)]))
    assert sizes == [1000, 1000, 500]


def test_without_a_service_the_commands_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "days", lambda *_: [day(1, 2)])
    monkeypatch.chdir(ROOT)
    with pytest.raises(ReplayFailed, match="`make serve` come first"):
        replay.replay_period(f"http://127.0.0.1:{free_port()}", None, None, 0.0)
