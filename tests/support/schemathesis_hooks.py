"""What the contract says in words: the format and period of local times, and what the fields of a flight exclude."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import schemathesis
from hypothesis import strategies as st

TIMES = st.datetimes(datetime(1987, 10, 1), datetime.now() + timedelta(days=365))
schemathesis.openapi.format("date-time-local", TIMES.map(datetime.isoformat))


@schemathesis.hook
def before_call(_: schemathesis.HookContext, case: schemathesis.Case, __: dict[str, Any]) -> None:
    """Let flights arrive two hours after they left, at another airport, where these values are valid."""
    flights = case.body.get("flights", [case.body]) if isinstance(case.body, dict) else []
    for flight in flights if isinstance(flights, list) else []:
        try:
            datetime.fromisoformat(flight["scheduled_arrival"])
            left = datetime.fromisoformat(flight["scheduled_departure"])
            if left.tzinfo is None:
                flight["scheduled_arrival"] = (left + timedelta(hours=2)).isoformat()
            if flight["dest"] == flight["origin"]:
                flight["dest"] = "SFO"
        except (KeyError, TypeError, ValueError, OverflowError):
            pass
