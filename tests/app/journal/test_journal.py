"""The journal on SQLite and on PostgreSQL: what is written, what waits, what is dropped, and what expires."""

from __future__ import annotations

import asyncio
import json
import math
import sqlite3
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import HTTPException
from pydantic import ValidationError
from pydantic_core import to_json
from sqlalchemy import insert, select, text

from app.api import routes
from app.api.routes.outcomes import Result, record
from app.interface import EXAMPLE, FEATURE_NAMES, Outcome, Request
from app.journal import writer
from app.journal.blocks import block, features_of, holding, requests_of
from app.journal.database import JournalInvalid, expire, prepare
from app.journal.tables import SCHEMA, blocks, layouts, outcomes, schema
from app.journal.writer import Journal
from app.metrics import Metrics
from app.model.prediction import Predictions
from app.settings import Settings
from tests.support.clients.batches import stream, table
from tests.support.journal import CAPACITY, Run, count, keep, predicted, value
from tests.support.processes import wait_for

Answer = Callable[..., Predictions]


def report(journal: Journal, *minutes: tuple[str, int], **fields: Any) -> Result:
    """Report the delays of predictions, or another outcome of all of them."""
    told = [Outcome.model_validate({"prediction_id": name} | (fields or {"delay_minutes": m})) for name, m in minutes]
    return asyncio.run(record(journal, told))


def test_a_prediction_as_the_model_saw_it(journal: Journal, answer: Answer, metrics: Metrics) -> None:
    given = answer(at=1_800_000_000.25)
    journal.record(given)
    journal.start()
    journal.close()
    with journal.engine.connect() as connection:
        row = connection.execute(text("SELECT * FROM predictions")).one()
        stored = connection.execute(select(blocks)).one()
        names = connection.scalars(select(layouts.c.features).where(layouts.c.digest == stored.layout)).one()
    assert (row.id, row.model_version, row.probability) == (given.ids[0], "7", 0.25)
    assert stored.created_at == datetime.fromtimestamp(1_800_000_000.25, UTC)
    assert [each["name"] for each in names] == list(FEATURE_NAMES)
    (values,) = features_of(stored.features, 1).tolist()
    known = [None if math.isnan(v) else v for v in values]
    named = [each["categories"][int(v)] if v is not None and each["categories"] else v for v, each in zip(known, names)]
    assert named == ["B6", "LGA", None, *given.rows[0][3:]]
    request = json.loads(row.request) if isinstance(row.request, str) else row.request
    assert request == given.requests[0].model_dump(mode="json", exclude_none=True)
    assert Request.model_validate(request) == given.requests[0]
    assert value(metrics, "journal_written_total") == 1 and value(metrics, "journal_up") == 1
    assert value(metrics, "journal_queue_capacity") == CAPACITY and value(metrics, "journal_queue_depth") == 0


def test_a_full_queue_drops_and_counts(journal: Journal, answer: Answer, metrics: Metrics) -> None:
    for _ in range(CAPACITY - 5):
        journal.record(answer())
    journal.record(answer(6))  # has no room as a whole
    journal.record(answer(5))
    journal.record(answer())
    assert value(metrics, "journal_dropped_total") == 7
    journal.start()
    journal.close()
    assert predicted(journal) == CAPACITY == value(metrics, "journal_written_total")


def test_a_block_written_twice_is_there_once(run_journal: Run, url: str, answer: Answer) -> None:
    running, given = run_journal(url), answer(3)
    for times in (1, 2):
        running.journal.record(given)
        wait_for("it is written", lambda times=times: running.metric("written_total") == 3 * times)
    assert predicted(running.journal) == 3


def test_several_writers_share_a_database(url: str, metrics: Metrics, answer: Answer) -> None:
    journals = [keep(url, metrics) for _ in range(4)]
    for each in journals:
        each.start()
    threads = [threading.Thread(target=lambda j=j: [j.record(answer()) for _ in range(200)]) for j in journals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in journals:
        each.close()
    assert predicted(journals[0]) == 800 and value(metrics, "journal_dropped_total") == 0
    assert value(metrics, "journal_replaced_total") == 0


def test_what_cannot_be_written_at_the_end_is_counted(
    answer: Answer, metrics: Metrics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "CLOSE_SECONDS", 0.5)
    journal = keep(f"sqlite:///{tmp_path}/missing/journal.db", metrics)
    journal.start()
    journal.record(answer(7))
    journal.close()
    assert value(metrics, "journal_dropped_total") == 7 and value(metrics, "journal_up") == 0


def test_another_schema_is_refused(journal: Journal) -> None:
    prepare(journal.engine)
    prepare(journal.engine)  # a second call changes nothing
    with journal.engine.begin() as connection:
        connection.execute(schema.update().values(version=1))
    for statement in ("SELECT 1", "DROP TABLE layouts"):  # also if that schema has other tables
        with journal.engine.begin() as connection:
            connection.execute(text(statement))
        with pytest.raises(JournalInvalid, match=rf"schema version 1, this service needs {SCHEMA}.*ONTIME_JOURNAL_URL"):
            prepare(journal.engine)


@pytest.mark.parametrize("form", ["rows", "arrow", "requests"])
def test_a_batch_of_ten_thousand_rows(form: Any, url: str, metrics: Metrics, answer: Answer) -> None:
    """A batch is one block, as received; requests are serialised if the journal did not get them as received."""
    journal = Journal(Settings(journal_url=url), metrics.journal)
    journal.start()
    batch, body = answer(10_000), to_json(EXAMPLE)
    rows = np.asarray(batch.rows)
    if form == "rows":
        batch = batch._replace(rows=rows, requests=(), received=b",".join([body] * 10_000))
    elif form == "arrow":
        batch = batch._replace(rows=rows, requests=(), received=stream(table([EXAMPLE] * 10_000)), format="arrow")
    for one in (answer(), batch, answer()):
        journal.record(one)
    journal.close()
    assert predicted(journal) == 10_002 and value(metrics, "journal_dropped_total") == 0
    with journal.engine.connect() as connection:
        row = connection.execute(select(blocks).where(blocks.c.rows >= 10_000)).one()
        viewed = connection.execute(text("SELECT count(*), min(probability) FROM predictions")).one()
    assert row.requests_format == ("arrow" if form == "arrow" else "rows")
    np.testing.assert_array_equal(features_of(row.features, row.rows)[-10_000:], rows)
    requests = requests_of(row.requests, row.requests_format)
    assert len(requests) == row.rows and Request.model_validate(requests[-1]) == Request.model_validate(EXAMPLE)
    assert tuple(viewed) == (10_002, 0.25)
    journal.engine.dispose()


def test_old_predictions_go_with_their_outcomes(journal: Journal, answer: Answer) -> None:
    prepare(journal.engine)
    now = time.time()
    old, young = answer(700, now - 91 * 86400), answer(3, now - 89 * 86400)
    for given in (old, young):
        journal.record(given)
    journal.start()  # its first turn removes what is too old
    journal.close()
    assert predicted(journal) == 3
    assert not report(journal, *((name, 0) for name in young.ids)).unknown
    expire(journal.engine, datetime.now(UTC) - timedelta(days=80))
    assert predicted(journal) == count(journal, outcomes) == 0


@pytest.mark.parametrize(
    ("fields", "positive"),
    [
        ({"delay_minutes": 14}, False),
        ({"delay_minutes": 15}, True),
        ({"delay_minutes": -20}, False),
        ({"status": "cancelled"}, True),
        ({"status": "diverted"}, True),
        ({}, None),
        ({"status": "diverted", "delay_minutes": 3}, None),
        ({"delay_minutes": 2.5}, None),
        ({"delay_minutes": "3"}, None),
        ({"status": "lost"}, None),
    ],
)
def test_an_outcome_is_judged_as_the_target_is(fields: dict[str, Any], positive: bool | None) -> None:
    if positive is None:
        with pytest.raises(ValidationError):
            Outcome.model_validate({"prediction_id": "0" * 32} | fields)
    else:
        assert Outcome.model_validate({"prediction_id": "0" * 32} | fields).positive is positive


def test_outcomes_are_recorded_and_corrected(journal: Journal, answer: Answer, metrics: Metrics) -> None:
    first, second, third = sorted(answer(3).ids)
    prepare(journal.engine)
    journal.start()
    journal.record(answer(3)._replace(ids=[first, second, third]))  # still in the queue when the outcome arrives
    assert report(journal, (first, 3), (first, 3)) == Result({first}, set(), set())
    assert report(journal, (first, 3), (second, 3), ("f" * 32, 3)) == Result({second}, {first}, {"f" * 32})
    assert report(journal, (second, 9), (second, 3)) == Result(set(), {second}, set())  # the last one counts
    assert report(journal, (third, 300), (first, 4)) == Result({third, first}, set(), set())
    assert report(journal, (first, 0), status="cancelled") == Result({first}, set(), set())
    with journal.engine.connect() as connection:
        row = connection.execute(select(outcomes).where(outcomes.c.prediction_id == first)).one()
    assert (row.details, row.positive) == ({"status": "cancelled", "delay_minutes": None}, True)
    assert count(journal, outcomes) == 3
    assert value(metrics, "model_outcomes_total", outcome="negative") == 2  # corrections are not counted again
    assert value(metrics, "model_outcomes_total", outcome="positive") == 1
    journal.close()


def test_the_same_outcome_at_the_same_time(run_journal: Run, url: str) -> None:
    running = run_journal(url)
    outcome = Outcome(prediction_id=running.write(1).pop(), delay_minutes=3)

    async def report_often() -> list[Result]:
        return await asyncio.gather(*(record(running.journal, [outcome]) for _ in range(8)))

    assert sorted(len(result.recorded) for result in asyncio.run(report_often())) == [0] * 7 + [1]
    assert value(running.metrics, "model_outcomes_total", outcome="negative") == count(running.journal, outcomes) == 1


def test_a_prediction_written_while_asked_is_found(
    journal: Journal, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database answers slowly, and the prediction leaves the queue meanwhile."""
    given = answer()
    prepare(journal.engine)
    journal.record(given)
    asked = routes.outcomes._write  # pylint: disable=protected-access

    def slowly(*args: Any) -> Result:
        result = asked(*args)
        if result.unknown:
            journal.start()
            wait_for("it is written", lambda: predicted(journal) and not journal.waiting(given.ids))
        return result

    monkeypatch.setattr(routes.outcomes, "_write", slowly)
    assert report(journal, (given.ids[0], 3)).recorded == set(given.ids)
    journal.close()


def test_a_prediction_that_waits_too_long_is_503(answer: Answer, metrics: Metrics, tmp_path: Path) -> None:
    journal = keep(f"sqlite:///{tmp_path}/journal.db", metrics)
    prepare(journal.engine)  # and no writer runs
    given = answer()
    journal.record(given)
    with pytest.raises(HTTPException) as refusal:
        report(journal, (given.ids[0], 3))
    assert refusal.value.status_code == 503 and refusal.value.headers == {"Retry-After": "1"}
    journal.engine.dispose()


def test_a_locked_database_is_waited_for(answer: Answer, metrics: Metrics, tmp_path: Path) -> None:
    journal = keep(f"sqlite:///{tmp_path}/journal.db", metrics)
    prepare(journal.engine)
    with sqlite3.connect(tmp_path / "journal.db", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        journal.start()
        started = time.perf_counter()
        for _ in range(100):
            journal.record(answer())
        assert time.perf_counter() - started < 1  # nobody waits for the database
        wait_for("the lock is noticed", lambda: not value(metrics, "journal_up"))
        assert value(metrics, "journal_written_total") == 0
        other.execute("ROLLBACK")
    other.close()
    journal.close()
    assert predicted(journal) == 100 and value(metrics, "journal_dropped_total") == 0


def test_an_unforeseen_error_does_not_end_the_writing(
    journal: Journal, answer: Answer, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "RETRY_SECONDS", 0.1)
    journal.start()
    with monkeypatch.context() as patch:
        patch.setattr(writer, "block", None)
        journal.record(answer())
        wait_for("the error is noticed", lambda: not value(metrics, "journal_up"))
    journal.close()
    assert predicted(journal) == 1


def test_each_block_that_holds_ids_is_found_once(journal: Journal, answer: Answer) -> None:
    prepare(journal.engine)
    made = [answer(250, 1_800_000_000 + i) for i in range(3)]
    with journal.engine.begin() as connection:
        connection.execute(insert(blocks), [block([each]) for each in made])
        wanted = sorted([*made[0].ids, *made[2].ids[:7], "f" * 32])
        found = [positions for _, positions in holding(connection, wanted)]
    assert [len(positions) for positions in found] == [250, 7]
    assert found[1] == {name: i for i, name in enumerate(made[2].ids[:7])}


def test_single_predictions_share_blocks(journal: Journal, answer: Answer) -> None:
    now = time.time()
    for i in range(500):
        journal.record(answer(at=now + i / 1000))  # within half a second; a block holds a quarter of one
    journal.start()
    journal.close()
    assert predicted(journal) == 500 and count(journal, blocks) == 2
