"""The replay: outcomes as they were, in their order, to a real service, ended by what the service does not take."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from app.interface import EXAMPLE
from ops.monitoring import replay
from ops.monitoring.replay import BATCH, Day, ReplayFailed, days, predict, report
from stages import frames, interface, params
from stages.frames import TARGET
from tests.conftest import ROOT, Clone, free_port, running

CARRIERS = ("AA", "B6", "UA")
LATE, PUNCTUAL = {"status": "arrived", "delay_minutes": 40}, {"status": "arrived", "delay_minutes": -3}


def day(number: int, flights: int) -> Day:
    """Return a day of flights of three airlines in turn; each second one is late, the last one cancelled."""
    requests = [dict(EXAMPLE) | {"carrier": CARRIERS[i % 3], "weather": None} for i in range(flights)]
    outcomes: list[dict[str, Any]] = [LATE if i % 2 else PUNCTUAL for i in range(flights - 1)]
    return Day(date(2013, 11, number), requests, [*outcomes, {"status": "cancelled"}])


def test_an_outcome_is_what_became_of_the_flight() -> None:
    p, nan = params.load(ROOT / "params.yaml").problem, float("nan")
    flights = pd.DataFrame({"arr_delay": [-3.0, nan, nan], "dep_time": [900.0, nan, 900.0]})
    assert interface.outcomes(flights, p) == [PUNCTUAL, {"status": "cancelled"}, {"status": "diverted"}]


def test_days_are_sent_to_a_real_service_and_their_outcomes_a_day_later(
    baked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port, journal = free_port(), tmp_path / "journal.db"
    settings = {
        "ONTIME_PORT": f"{port}",
        "ONTIME_BAKED_MODEL": f"{baked}",
        "ONTIME_JOURNAL_URL": f"sqlite:///{journal}",
    }
    replayed = [day(number, 2 * BATCH) for number in range(1, 8)]
    with running([sys.executable, "-m", "app"], f"http://127.0.0.1:{port}/readyz", ROOT, **settings):
        sent = asyncio.run(replay.replay(f"http://127.0.0.1:{port}", replayed, 2.0, {}))
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    assert list(sent["day"]) == [d.day for d in replayed for _ in d.requests]
    assert sent["positive"].sum() == 7 * BATCH, "23 late ones and a cancelled one a day"
    by_airline = sent.groupby([CARRIERS[i % 3] for _ in replayed for i in range(2 * BATCH)])["probability"].nunique()
    assert list(by_airline) == [1, 1, 1], "each prediction belongs to its own flight"
    assert "week of 2013-11-01: 336 flights" in capsys.readouterr().out
    assert 'handler="/predict/batch",method="POST",status="2xx"} 14.0' in metrics
    with sqlite3.connect(journal) as connection:
        known = connection.execute(
            "SELECT details, positive, probability FROM outcomes JOIN predictions ON id = prediction_id"
        ).fetchall()
    assert Counter(json.loads(row[0])["status"] for row in known) == {"arrived": 7 * (2 * BATCH - 1), "cancelled": 7}
    assert sum(row[1] for row in known) == sent["positive"].sum()


def client(answer: Any) -> httpx.AsyncClient:
    """Return a client to a service that answers like this."""
    return httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://service")


def test_a_busy_service_is_asked_again_and_an_error_ends_the_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay.asyncio, "sleep", lambda _, wait=asyncio.sleep: wait(0))
    answers = [503, 503, 200]

    def busy(_: httpx.Request) -> httpx.Response:
        return httpx.Response(answers.pop(0), json={"prediction_id": "a", "probability": 0.5})

    assert asyncio.run(predict(client(busy), [dict(EXAMPLE)], 0.0)) == [{"prediction_id": "a", "probability": 0.5}]
    for status in (422, 500, 503):
        with pytest.raises(ReplayFailed, match=f"/predict answered {status}"):
            asyncio.run(predict(client(lambda _, s=status: httpx.Response(s)), [dict(EXAMPLE)], 0.0))


def test_outcomes_that_the_journal_does_not_know_end_the_replay() -> None:
    sizes = []

    def forgetful(request: httpx.Request) -> httpx.Response:
        sizes.append(len(json.loads(request.content)["outcomes"]))
        return httpx.Response(200, json={"unknown": ["x"] if len(sizes) == 3 else []})

    with pytest.raises(ReplayFailed, match="lacks 1 of the predictions"):
        asyncio.run(report(client(forgetful), [{"prediction_id": f"{i}"} | LATE for i in range(2500)]))
    assert sizes == [1000, 1000, 500]


def test_without_a_service_the_verbs_to_run_are_named(small: Clone) -> None:
    command = [
        "python",
        "-m",
        "ops.cli",
        "monitor",
        "replay",
        "--service",
        f"http://127.0.0.1:{free_port()}",
        "--last",
        "2013-03-01",
    ]
    done = small.run(*command, check=False)
    assert done.returncode != 0 and "`make serve`" in done.stderr


def test_the_days_of_the_test_months_are_those_that_were_featurized(
    small: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small.path)
    made = days(date(2013, 3, 11), date(2013, 3, 13))
    test = frames.read("test")
    first = test["day"].min() + 10  # 11 March
    assert [d.day.isoformat() for d in made] == ["2013-03-11", "2013-03-12", "2013-03-13"]
    for i, one in enumerate(made):
        rows = test[test["day"] == first + i]
        late = sum(known.get("delay_minutes", 9999) >= 15 for known in one.outcomes)
        assert (len(one.requests), late) == (len(rows), rows[TARGET].sum())
    with pytest.raises(ReplayFailed, match="no flights from 2014-03-11 to 2014-03-13: .* --first and --last"):
        days(date(2014, 3, 11), date(2014, 3, 13))
