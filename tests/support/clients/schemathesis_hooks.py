"""What the contract says in words: the form and period of local times, what a flight excludes, how tensors agree."""

from __future__ import annotations

import copy
from datetime import datetime, timedelta
from typing import Any

import schemathesis
from hypothesis import strategies

from app.api.inference.messages import OUTPUTS, InferenceRequest
from app.interface import NAME

TIMES = strategies.datetimes(datetime(2012, 1, 1), datetime.now() + timedelta(days=365))
schemathesis.openapi.format("date-time-local", TIMES.map(datetime.isoformat))


@schemathesis.hook
def before_call(_: schemathesis.HookContext, case: schemathesis.Case, __: dict[str, Any]) -> None:
    """Let flights arrive two hours after they left, at another airport, where these values are valid."""
    if not isinstance(case.body, dict):
        return
    case.body = body = copy.deepcopy(case.body)  # other cases have the same lists
    columns = body.get("columns")
    flights = body.get("flights", [body])
    for flight in flights if isinstance(flights, list) else []:
        _possible(flight)
    if isinstance(columns, dict) and columns and all(isinstance(v, list) and v for v in columns.values()):
        size = max(map(len, columns.values()))
        for values in columns.values():
            values.extend(values[-1:] * (size - len(values)))  # lists of one length
        for i in range(size):
            flight = {name: values[i] for name, values in columns.items()}
            _possible(flight)
            for name, values in columns.items():
                values[i] = flight[name]


def _possible(flight: Any) -> None:
    try:
        arrived = datetime.fromisoformat(flight["scheduled_arrival"])
        left = datetime.fromisoformat(flight["scheduled_departure"])
        if left.tzinfo is None and arrived.tzinfo is None and "T" in flight["scheduled_arrival"]:
            flight["scheduled_arrival"] = (left + timedelta(hours=2)).isoformat()
        if flight["dest"] == flight["origin"]:
            flight["dest"] = "SFO"
    except (KeyError, TypeError, ValueError, OverflowError):
        pass


@schemathesis.hook("before_call")
def tensors_agree(_: schemathesis.HookContext, case: schemathesis.Case, __: dict[str, Any]) -> None:
    """Let a valid request for an inference have a tensor for each field, all of one length, and outputs that exist."""
    if "/infer" in case.path and case.meta and case.meta.generation.mode.is_positive and isinstance(case.body, dict):
        case.body |= InferenceRequest.model_config["json_schema_extra"]["examples"][0]
        names = zip(OUTPUTS, case.body.get("outputs", []))
        case.body["outputs"] = [output | {"name": name} for name, output in names]
        case.path_parameters |= {"name": NAME} | ({"version": "7"} if "{version}" in case.path else {})
