"""The journal on SQLite and on PostgreSQL: what is written, what waits, what is dropped, and what ages."""

from __future__ import annotations

import asyncio
import json
import math
import sqlite3
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from fastapi import HTTPException
from pydantic import ValidationError
from pydantic_core import from_json, to_json
from sqlalchemy import insert, select, text

from app.api import outcomes as api_outcomes
from app.api.outcomes import record
from app.interface import EXAMPLE, FEATURE_NAMES, Outcome, Request
from app.journal import writer
from app.journal.blocks import block, features_of, holding, requests_of
from app.journal.database import JournalInvalid, connect, expire, prepare
from app.journal.tables import blocks, layouts, outcomes, schema
from app.journal.writer import Journal
from app.metrics import Metrics
from app.model.prediction import Predictions
from app.settings import Settings
from tests.support.journal import CAPACITY, Running, count, keep, predicted, value
from tests.support.processes import wait_for


def test_a_prediction_is_written_as_the_model_saw_it(
    journal: Journal, answer: Callable[..., Predictions], metrics: Metrics
) -> None:
    given = answer(at=1_800_000_000.25)
    journal.record(given)
    journal.start()
    journal.close()
    with journal.engine.connect() as connection:
        row = connection.execute(text("SELECT * FROM predictions")).one()
        stored = connection.execute(select(blocks)).one()
        names = connection.execute(select(layouts.c.features).where(layouts.c.digest == stored.layout)).scalar_one()
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


def test_what_finds_the_queue_full_is_dropped_and_counted(
    journal: Journal, answer: Callable[..., Predictions], metrics: Metrics
) -> None:
    for _ in range(CAPACITY - 5):
        journal.record(answer())
    journal.record(answer(6))  # has no room as a whole
    journal.record(answer(5))
    journal.record(answer())
    assert value(metrics, "journal_dropped_total") == 7
    journal.start()
    journal.close()
    assert predicted(journal) == CAPACITY == value(metrics, "journal_written_total")


def test_a_block_that_is_written_twice_is_there_once(
    run_journal: Callable[[str], Running], url: str, answer: Callable[..., Predictions]
) -> None:
    running, given = run_journal(url), answer(3)
    for times in (1, 2):
        running.journal.record(given)
        wait_for("it is written", lambda times=times: running.metric("written_total") == 3 * times)
    assert predicted(running.journal) == 3


def test_several_writers_share_a_database(url: str, metrics: Metrics, answer: Callable[..., Predictions]) -> None:
    several = [keep(url, metrics) for _ in range(4)]
    for each in several:
        each.start()
    threads = [threading.Thread(target=lambda j=j: [j.record(answer()) for _ in range(200)]) for j in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in several:
        each.close()
    assert predicted(several[0]) == 800 and value(metrics, "journal_dropped_total") == 0


def test_a_journal_that_cannot_be_written_at_the_end_counts_what_is_lost(
    answer: Callable[..., Predictions], metrics: Metrics, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "CLOSE_SECONDS", 0.5)
    journal = keep(f"sqlite:///{tmp_path}/missing/journal.db", metrics)
    journal.start()
    journal.record(answer(7))
    journal.close()
    assert value(metrics, "journal_dropped_total") == 7 and value(metrics, "journal_up") == 0


def test_a_journal_of_another_schema_is_refused(journal: Journal) -> None:
    prepare(journal.engine)
    prepare(journal.engine)  # a second time is no harm
    with journal.engine.begin() as connection:
        connection.execute(schema.update().values(version=1))
    with pytest.raises(JournalInvalid, match=r"schema version 1, this service needs 4.*ONTIME_JOURNAL_URL"):
        prepare(journal.engine)


def test_a_batch_of_ten_thousand_rows_is_recorded_as_received(
    url: str, metrics: Metrics, answer: Callable[..., Predictions]
) -> None:
    journal = Journal(Settings(journal_url=url), metrics.journal)
    journal.start()
    body = to_json(EXAMPLE)
    for _ in range(2):
        batch = answer(10_000)
        matrix = np.asarray(batch.rows)
        journal.record(batch._replace(rows=matrix, requests=(), received=b",".join([body] * 10_000)))
    journal.close()
    assert predicted(journal) == 20_000 and value(metrics, "journal_dropped_total") == 0
    with journal.engine.connect() as connection:
        row = connection.execute(select(blocks).limit(1)).one()
        viewed = connection.execute(text("SELECT count(*), min(probability) FROM predictions")).one()
    np.testing.assert_array_equal(features_of(row.features, row.rows), matrix)
    assert requests_of(row.requests, row.requests_format) == [from_json(body)] * 10_000
    assert tuple(viewed) == (20_000, 0.25)
    journal.engine.dispose()


def test_a_password_is_not_in_a_message() -> None:
    assert "secret" not in repr(connect("postgresql://user:secret@localhost/db").url)


def test_old_predictions_go_with_their_outcomes(journal: Journal, answer: Callable[..., Predictions]) -> None:
    prepare(journal.engine)
    now = time.time()
    old, young = answer(700, now - 91 * 86400), answer(3, now - 89 * 86400)
    for given in (old, young):
        journal.record(given)
    journal.start()  # its first turn removes what is too old
    journal.close()
    assert predicted(journal) == 3
    reported = [Outcome(prediction_id=name, delay_minutes=0) for name in young.ids]
    assert asyncio.run(record(journal, reported)).unknown == set()
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
    ],
)
def test_an_outcome_is_judged_as_the_target_is(fields: dict[str, Any], positive: bool) -> None:
    assert Outcome.model_validate({"prediction_id": "0" * 32} | fields).positive is positive


@pytest.mark.parametrize(
    "fields", [{}, {"status": "diverted", "delay_minutes": 3}, {"delay_minutes": 2.5}, {"status": "lost"}]
)
def test_an_outcome_that_is_none_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Outcome.model_validate({"prediction_id": "0" * 32} | fields)


def test_outcomes_are_recorded_once_corrected_and_refused(
    journal: Journal, answer: Callable[..., Predictions], metrics: Metrics
) -> None:
    given = answer(2)
    prepare(journal.engine)
    journal.start()
    journal.record(given)  # still in the queue when the outcome arrives

    def report(name: str, **fields: Any) -> set[str]:
        return asyncio.run(record(journal, [Outcome(prediction_id=name, **fields)])).unknown

    assert report(given.ids[0], delay_minutes=3) == set()
    first = rows(journal)
    assert report(given.ids[0], delay_minutes=3) == set() and rows(journal) == first
    assert report(given.ids[0], status="cancelled") == set()
    row = rows(journal)[0]
    assert (row.details, row.positive) == ({"status": "cancelled", "delay_minutes": None}, True)
    assert report("f" * 32, delay_minutes=3) == {"f" * 32}
    assert report(given.ids[1], delay_minutes=300) == set() and len(rows(journal)) == 2
    assert value(metrics, "model_outcomes_total", outcome="negative") == 1  # the correction is not counted again
    assert value(metrics, "model_outcomes_total", outcome="positive") == 1


def test_a_prediction_that_is_written_while_a_slow_database_is_asked_is_found(
    journal: Journal, answer: Callable[..., Predictions], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = answer()
    prepare(journal.engine)
    journal.record(given)
    asked = api_outcomes._write  # pylint: disable=protected-access

    def slowly(*args: Any) -> api_outcomes.Result:
        result = asked(*args)
        if result.unknown:
            journal.start()
            wait_for("it is written", lambda: predicted(journal))
            time.sleep(3 * writer.FLUSH_SECONDS)
        return result

    monkeypatch.setattr(api_outcomes, "_write", slowly)
    outcome = Outcome(prediction_id=given.ids[0], delay_minutes=3)
    assert asyncio.run(record(journal, [outcome])).recorded == set(given.ids)
    journal.close()


def rows(journal: Journal) -> list[Any]:
    """Return the outcomes in the journal."""
    with journal.engine.connect() as connection:
        return list(connection.execute(select(outcomes).order_by(outcomes.c.prediction_id)).all())


def test_an_outcome_of_a_prediction_that_waits_too_long_is_to_be_reported_again(
    answer: Callable[..., Predictions], metrics: Metrics, tmp_path: Any
) -> None:
    journal = keep(f"sqlite:///{tmp_path}/journal.db", metrics)
    prepare(journal.engine)  # and no writer runs
    given = answer()
    journal.record(given)
    with pytest.raises(HTTPException) as refusal:
        asyncio.run(record(journal, [Outcome(prediction_id=given.ids[0], delay_minutes=3)]))
    assert refusal.value.status_code == 503 and refusal.value.headers == {"Retry-After": "1"}
    journal.engine.dispose()


def test_a_locked_database_is_waited_for(answer: Callable[..., Predictions], metrics: Metrics, tmp_path: Any) -> None:
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
    journal.close()
    assert predicted(journal) == 100 and value(metrics, "journal_dropped_total") == 0
    other.close()


def test_an_error_that_nobody_thought_of_does_not_end_the_writing(
    journal: Journal, answer: Callable[..., Predictions], metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "RETRY_SECONDS", 0.1)
    journal.start()
    with monkeypatch.context() as patch:
        patch.setattr(writer, "block", lambda _: 1 / 0)
        journal.record(answer())
        wait_for("the error is noticed", lambda: not value(metrics, "journal_up"))
    journal.close()
    assert predicted(journal) == 1


def test_outcomes_are_counted_as_what_was_stored(run_journal: Callable[[str], Running], url: str) -> None:
    running = run_journal(url)
    first, second, third = sorted(running.write(3))

    def report(*pairs: tuple[str, int]) -> tuple[set[str], set[str], set[str]]:
        told = [Outcome(prediction_id=name, delay_minutes=minutes) for name, minutes in pairs]
        result = asyncio.run(record(running.journal, told))
        return result.recorded, result.unchanged, result.unknown

    assert report((first, 3), (first, 3), (first, 3)) == ({first}, set(), set())
    assert report((first, 3), (second, 3), ("f" * 32, 3)) == ({second}, {first}, {"f" * 32})
    assert report((second, 9), (second, 3)) == (set(), {second}, set())  # the last one counts
    assert report((third, 3), (third, 9), (first, 4)) == ({third, first}, set(), set())


def test_the_same_outcome_at_the_same_time_is_counted_once(run_journal: Callable[[str], Running], url: str) -> None:
    running = run_journal(url)
    name = running.write(1).pop()

    async def report() -> list[int]:
        outcome = Outcome(prediction_id=name, delay_minutes=3)
        return [
            len(each.recorded) for each in await asyncio.gather(*(record(running.journal, [outcome]) for _ in range(8)))
        ]

    assert sorted(asyncio.run(report())) == [0] * 7 + [1]
    assert running.metrics.registry.get_sample_value("model_outcomes_total", {"outcome": "negative"}) == 1
    assert count(running.journal, outcomes) == 1


def test_each_block_that_holds_some_ids_is_found_once(journal: Journal, answer: Callable[..., Predictions]) -> None:
    prepare(journal.engine)
    made = [answer(250, 1_800_000_000 + i) for i in range(3)]
    with journal.engine.begin() as connection:
        connection.execute(insert(blocks), [block([each]) for each in made])
        wanted = sorted([*made[0].ids, *made[2].ids[:7], "f" * 32])
        found = [positions for _, positions in holding(connection, wanted)]
    assert [len(positions) for positions in found] == [250, 7]
    assert found[1] == {name: i for i, name in enumerate(made[2].ids[:7])}


def test_predictions_that_arrive_one_by_one_share_blocks(run_journal: Callable[[str], Running], url: str) -> None:
    running, started = run_journal(url), time.monotonic()
    for _ in range(500):
        running.record(1)
        time.sleep(0.002)
    wait_for("all are written", lambda: running.metric("written_total") == 500)
    turns = (time.monotonic() - started) / writer.FLUSH_SECONDS
    assert count(running.journal, blocks) < turns + 2
