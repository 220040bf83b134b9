"""The log: one line of JSON an event, with the request's id."""

from __future__ import annotations

import json
import logging
import sys

from app.logs import JsonFormatter, request_id


def line(**changes: object) -> dict[str, object]:
    """Return a formatted record, parsed."""
    record = logging.makeLogRecord({"name": "app", "levelname": "INFO", "msg": "hello %s", "args": ("you",), **changes})
    text = JsonFormatter().format(record)
    assert "\n" not in text
    return dict(json.loads(text))


def test_a_record_is_one_line_of_json_with_its_fields() -> None:
    written = line(status=422)
    assert written["message"] == "hello you" and written["level"] == "info" and written["status"] == 422
    assert str(written["time"]).endswith("+00:00") and "request_id" not in written


def test_the_id_of_the_request_is_in_every_line() -> None:
    token = request_id.set("abc")
    try:
        assert line()["request_id"] == "abc"
    finally:
        request_id.reset(token)


def test_a_traceback_stays_in_its_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        assert "ValueError: two" in str(line(exc_info=sys.exc_info())["traceback"])
