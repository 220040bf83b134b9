"""What the contract says in words: the format of local times, and how far apart the two of a flight may be."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import schemathesis
from hypothesis import strategies as st

schemathesis.openapi.format("date-time-local", st.datetimes().map(datetime.isoformat))


@schemathesis.hook
def map_body(_: schemathesis.HookContext, body: Any) -> Any:
    """Let flights arrive two hours after they left, where both times are valid."""
    flights = body.get("flights", [body]) if isinstance(body, dict) else []
    for flight in flights if isinstance(flights, list) else []:
        try:
            datetime.fromisoformat(flight["scheduled_arrival"])
            left = datetime.fromisoformat(flight["scheduled_departure"])
            if left.tzinfo is None:
                flight["scheduled_arrival"] = (left + timedelta(hours=2)).isoformat()
        except (KeyError, TypeError, ValueError, OverflowError):
            pass
    return body
