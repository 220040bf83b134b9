"""Requests of the Open Inference Protocol, and Triton's client."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx
import numpy as np
from tritonclient.http import InferenceServerClient, InferInput

from app.api.inference import tensors
from app.api.inference.messages import INPUTS
from app.interface import EXAMPLE
from tests.support.servers.service import NAME, Service

DTYPES = {"BYTES": np.object_, "FP64": np.float64}
INFER = f"/v2/models/{NAME}/infer"
ROUTE = 'http_requests_total{handler="/v2/models/{name}/infer",method="POST",status="%s"}'
HOUR = EXAMPLE["weather"][0]
FLIGHTS = [
    EXAMPLE,
    EXAMPLE | {"weather": None, "carrier": "ZZ"},
    EXAMPLE | {"weather": [{}, HOUR | {"precipitation_in": None}], "flight_number": 12.0},
    EXAMPLE | {"scheduled_departure": "2013-07-01 06:00", "flight_number": None},
]


def client_of(service: Service) -> InferenceServerClient:
    """Return Triton's client for a service."""
    return InferenceServerClient(f"127.0.0.1:{service.port}")


def element(name: str, value: Any) -> Any:
    """Return a value of a flight as the documentation describes its tensor."""
    if INPUTS[name].json:
        return json.dumps(value)
    return math.nan if value is None else value


def inputs(flights: list[dict[str, Any]], binary: bool = True, column: bool = False) -> list[InferInput]:
    """Return flights as tensors of shape [n], or [n, 1]."""
    found = []
    for name in dict.fromkeys(name for flight in flights for name in flight):
        values = [element(name, flight.get(name)) for flight in flights]
        array = np.array(values, DTYPES[INPUTS[name].datatype]).reshape((-1, 1) if column else (-1,))
        found.append(InferInput(name, list(array.shape), INPUTS[name].datatype))
        found[-1].set_data_from_numpy(array, binary_data=binary)
    return found


def body(**changes: Any) -> dict[str, Any]:
    """Return a request in JSON for two flights, with changes of its tensors; None leaves one out."""
    found = []
    for item in tensors.example(INPUTS, EXAMPLE):
        change = changes.get(item["name"], {})
        if change is not None:
            found.append(item | {"shape": [2], "data": item["data"] * 2} | change)
    return {"inputs": found}


def post(service: Service, content: Any, path: str = INFER, **headers: str) -> httpx.Response:
    """Post a request, as JSON unless it is bytes; assert that the same connection answers the next one."""
    sent = content if isinstance(content, bytes) else json.dumps(content).encode()
    with httpx.Client(base_url=service.base, timeout=30) as client:
        answer = client.post(path, content=sent, headers={k.replace("_", "-"): v for k, v in headers.items()})
        assert client.post(INFER, json=body()).status_code == 200
    return answer


def refused(answer: httpx.Response, status: int) -> str:
    """Assert that a response is a problem that the protocol's clients can read too; return its detail."""
    problem = answer.json()
    assert (answer.status_code, problem["status"]) == (status, status), answer.text
    assert answer.headers["Content-Type"] == "application/problem+json" and problem["error"] == problem["detail"]
    return str(problem["detail"])
