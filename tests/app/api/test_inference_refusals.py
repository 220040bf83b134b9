"""What the Open Inference Protocol's routes refuse: each with its status and sentence, and at a bounded cost."""

from __future__ import annotations

import gzip
import json
import math
import socket
import struct
from typing import Any

import httpx
import pytest
from tritonclient.http import InferenceServerClient
from tritonclient.utils import InferenceServerException

from tests.support.clients.inference import FLIGHTS, INFER, ROUTE, body, inputs, post, refused
from tests.support.processes import wait_for
from tests.support.servers.service import NAME, Service


@pytest.fixture(scope="module", name="service")
def with_a_journal(journalled: Service) -> Service:
    """The service that Triton's client calls."""
    return journalled


BROKEN = "\ud800"
WRONG: dict[str, tuple[Any, str]] = {
    "datatype": (body(carrier={"datatype": "FP64"}), "carrier: the datatype must be BYTES"),
    "rank": (body(dest={"shape": [2, 1, 1]}), "inputs.2.shape"),
    "width": (body(dest={"shape": [2, 2]}), "dest: the shape must be [2] or [2, 1], as carrier has 2 rows"),
    "rows": (body(dest={"shape": [3], "data": ["SFO"] * 3}), "dest: the shape must be"),
    "negative": (body(dest={"shape": [-1]}), "inputs.2.shape.0: Input should be greater than or equal to 0"),
    "huge": (body(carrier={"shape": [10**300]}), "origin: the shape must be"),
    "length": (body(dest={"data": ["SFO"]}), "dest: data has 1 elements, not 2"),
    "nested": (body(dest={"data": [["SFO", "SFO"]] * 2, "shape": [2, 1]}), "dest: element 0 is not of type BYTES"),
    "type": (body(dest={"data": ["SFO", 5]}), "dest: element 1 is not of type BYTES"),
    "truth": ({"inputs": [*body()["inputs"], {"name": "flight_number", "shape": [2], "datatype": "FP64",
               "data": [True, 1.5]}]}, "flight_number: element 0 is not of type FP64"),
    "missing": (body(origin=None), "origin: Field required"),
    "twice": ({"inputs": body()["inputs"] * 2}, "carrier: the tensor is given more than once"),
    "unknown": ({"inputs": [{"name": "delay", "shape": [1], "datatype": "FP64", "data": [1]}]}, "delay: the model has"),
    "no data": (body(dest={"data": None}), "dest: must have either data or binary_data_size"),
    "no inputs": ({"inputs": []}, "inputs: List should have at least 1 item"),
    "zero rows": ({"inputs": [item | {"shape": [0], "data": []} for item in body()["inputs"]]}, "not 0"),
    "many rows": ({"inputs": [item | {"shape": [1001], "data": item["data"] * 501} for item in body()["inputs"]]},
                  "inputs: the tensors must have 1 to 1000 rows, not 1001"),
    "output": (body() | {"outputs": [{"name": "delay"}]}, "outputs: each must be one of prediction_id, probability"),
    "output twice": (body() | {"outputs": [{"name": "alert"}] * 2}, "outputs: each must be one of"),
    "classes": (body() | {"outputs": [{"name": "alert", "parameters": {"classification": 2}}]},
                "outputs.0.parameters.classification"),
    "memory": (body(dest={"data": None, "parameters": {"shared_memory_region": "x"}}), "shared_memory_region"),
    "flag": (body() | {"parameters": {"binary_data_output": "yes"}}, "parameters.binary_data_output"),
    "id": (body() | {"id": 7}, "id: Input should be a valid string"),
    "value": (body(carrier={"data": ["UA", "ual"]}), "flights.1.carrier: String should match"),
    "null": (body(carrier={"data": ["UA", None]}), "flights.1.carrier: Input should be a valid string"),
    "between fields": (body(dest={"data": ["EWR", "SFO"]}), "flights.0.dest: must be another airport"),
    "infinite": (body() | {"inputs": [*body()["inputs"], {"name": "flight_number", "shape": [2], "datatype": "FP64",
                 "data": [math.inf, 1]}]}, "flights.0.flight_number: Input should be"),
    "text": (body(weather={"data": ["sunny", "[]"]}), "weather: element 0 is not JSON: at character 0"),
    "block": (body(weather={"data": ["null", '[{"humidity_pct": 101}]']}), "flights.1.weather.0.humidity_pct"),
    "digits": (body(weather={"data": ["9" * 5000, "null"]}), "weather: element 0 is not JSON that can be read"),
    "depth": (body(weather={"data": ["[" * 50_000, "null"]}), "weather: element 0 is not JSON that can be read"),
    "surrogate": (body(carrier={"data": ["UA", BROKEN]}), "flights.1.carrier"),
    "no object": ([1], "body: Input should be"),
    "empty": (b"", "body: Field required"),
    "cut": (json.dumps(body()).encode()[:-5], "body: not JSON: at byte"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_violation_is_422_with_the_field(service: Service, name: str) -> None:
    content, message = WRONG[name]
    answer = post(service, content)
    assert message in refused(answer, 422)
    assert answer.json()["errors"] and len(answer.content) < 64 << 10


def packed(*texts: bytes) -> bytes:
    """Return the elements of a binary tensor of BYTES."""
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


TWO = packed(b"SFO", b"SFO")


@pytest.mark.parametrize(
    ("content", "size", "status", "message"),
    [
        (TWO, len(TWO) + 1, 400, "The body has 14 bytes after its JSON, and the tensors' binary_data_size is 15."),
        (TWO[:-1], len(TWO), 400, "The body has 13 bytes"),
        (TWO, -1, 422, "inputs.2.parameters.binary_data_size"),
        (TWO, 14.5, 422, "inputs.2.parameters.binary_data_size"),
        (TWO[:-1], len(TWO) - 1, 422, "dest: element 1 exceeds the tensor's 13 bytes"),
        (TWO[:-5], len(TWO) - 5, 422, "dest: element 1 exceeds the tensor's 9 bytes"),
        (TWO + b"\0", len(TWO) + 1, 422, "dest: 1 bytes follow the last of 2 elements"),
        (packed(b"SFO", b"\xff"), 12, 422, "dest: element 1 is not UTF-8: invalid start byte at byte 0"),
        (b"\xff" * 14, 14, 422, "dest: element 0 exceeds"),
        (b"", 0, 422, "dest: element 0 exceeds the tensor's 0 bytes"),
    ],
)
def test_false_binary_tensor_is_refused(
    service: Service, content: bytes, size: float, status: int, message: str
) -> None:
    request = body(dest={"data": None, "parameters": {"binary_data_size": size}})
    head = json.dumps(request).encode()
    answer = post(service, head + content, Inference_Header_Content_Length=str(len(head)))
    assert message in refused(answer, status)


def test_other_number_sizes_are_refused_nan_is_null(service: Service) -> None:
    number = {"name": "flight_number", "shape": [2], "datatype": "FP64"}
    for values, sent in (([1.0, math.nan], b""), ([1.0], b"\0")):
        tail = struct.pack(f"<{len(values)}d", *values) + sent
        request = {"inputs": [*body()["inputs"], number | {"parameters": {"binary_data_size": len(tail)}}]}
        head = json.dumps(request).encode()
        answer = post(service, head + tail, Inference_Header_Content_Length=str(len(head)))
        if len(values) == 2:
            assert answer.status_code == 200
        else:
            assert refused(answer, 422) == "flight_number: 2 elements of type FP64 do not have 9 bytes"


@pytest.mark.parametrize("length", ["", "x", "-1", "1e3", "99999", "9" * 5000])
def test_a_length_of_the_json_that_cannot_be_is_400(service: Service, length: str) -> None:
    assert "Inference-Header-Content-Length must" in refused(
        post(service, body(), Inference_Header_Content_Length=length), 400
    )


def test_compressed_and_other_media_types_are_415(service: Service, triton: InferenceServerClient) -> None:
    for algorithm in ("gzip", "deflate"):
        with pytest.raises(InferenceServerException, match="Content-Encoding is not supported") as caught:
            triton.infer(NAME, inputs(FLIGHTS), request_compression_algorithm=algorithm)
        assert caught.value.status() == "415"
        assert triton.infer(NAME, inputs(FLIGHTS), response_compression_algorithm=algorithm).as_numpy("alert").size == 4
    bomb = post(service, gzip.compress(bytes(1 << 28)), Content_Encoding="gzip")
    assert refused(bomb, 415) and bomb.headers["Accept-Encoding"] == "identity"
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/vnd.apache.arrow.stream"):
        assert "Content-Type" in refused(post(service, body(), Content_Type=kind), 415)
    for kind in ("application/json; charset=utf-8", "application/octet-stream"):
        assert post(service, body(), Content_Type=kind).status_code == 200


def test_long_body_is_413_cut_body_is_400(service: Service) -> None:
    assert "2097152 bytes" in refused(httpx.post(service.base + INFER, content=b" " * ((2 << 20) + 1)), 413)
    assert refused(post(service, b"{}".ljust(2 << 20)), 422) == "inputs: Field required"
    before = service.metric(ROUTE % "4xx")
    content = json.dumps(body()).encode()
    with socket.create_connection(("127.0.0.1", service.port)) as client:
        client.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n".encode())
        client.sendall(content[:100])
    wait_for("it is counted", lambda: service.metric(ROUTE % "4xx") == before + 1, 20)


HOSTILE: dict[str, Any] = {
    "tensors": {"inputs": [{"name": f"{i}", "shape": [1], "datatype": "b"} for i in range(40_000)]},
    "shape": body(dest={"shape": ["x"] * 300_000}),
    "data": body(dest={"shape": [500_000], "data": [0] * 500_000}),
    "objects": body(dest={"data": [{}] * 500_000}),
    "outputs": body() | {"outputs": [{"name": "alert"}] * 90_000},
    "unknown keys": body(weather={"data": [json.dumps([{f"{i:x}": 0 for i in range(120_000)}]), "null"]}),
    "blocks": {"inputs": [item | {"shape": [1000], "data": item["data"][:1] * 1000}
               for item in body(weather={"data": [json.dumps([{"snow": 1, "humidity_pct": ""}] * 7)]})["inputs"]]},
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_hostile_body_costs_is_bounded(service: Service, name: str) -> None:
    content = json.dumps(HOSTILE[name]).encode()
    assert len(content) < 2 << 20
    with service.peak() as peak:
        answer = post(service, content)
    assert refused(answer, 422) and len(answer.content) <= 64 << 10
    assert peak() < 100 << 20
