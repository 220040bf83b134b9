"""The Open Inference Protocol, called by Triton's own client, and as bytes where it sends no such thing."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException

from app.api import tensors
from app.api.inference_messages import INPUTS
from app.interface import EXAMPLE, ROWS
from tests.adapt.app_problem import Request as SecondRequest
from tests.conftest import bake, free_port
from tests.support.journal import written
from tests.support.processes import wait_for
from tests.support.registry import Registry
from tests.support.service import NAME, Service, Start, started

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


@pytest.fixture(scope="module")
def service(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on the small bundle, with a journal."""
    folder = tmp_path_factory.mktemp("service")
    with started(folder, ONTIME_BAKED_MODEL=str(bake(bundle_dir, "7", folder / "baked"))) as running:
        running.journal = f"sqlite:///{folder}/journal.db"
        yield running


@pytest.fixture(scope="module")
def triton(service: Service) -> Iterator[InferenceServerClient]:
    """Triton's client."""
    with client_of(service) as client:
        yield client


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


def predicted(service: Service, flights: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the responses of /predict."""
    return [httpx.post(f"{service.base}/predict", json=flight).raise_for_status().json() for flight in flights]


def columns(result: InferResult) -> dict[str, list[Any]]:
    """Return the outputs of a response."""
    return {output["name"]: result.as_numpy(output["name"]).tolist() for output in result.get_response()["outputs"]}


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("column", [True, False])
def test_triton_s_client_gets_the_predictions_of_predict_to_the_bit(
    service: Service, triton: InferenceServerClient, binary: bool, column: bool
) -> None:
    single = predicted(service, FLIGHTS)
    outputs = (
        None if binary else [InferRequestedOutput(name, binary_data=False) for name in single[0] if name != "model"]
    )
    result = triton.infer(NAME, inputs(FLIGHTS, binary, column), outputs=outputs)
    found = columns(result)
    assert list(found) == ["prediction_id", "probability", "alert", "threshold"]
    for name in ("probability", "alert", "threshold"):
        assert found[name] == [one[name] for one in single]
    assert len({one["probability"] for one in single}) > 2
    ids = {name.decode() if isinstance(name, bytes) else name for name in found["prediction_id"]}
    assert len(ids) == len(FLIGHTS) and all(re.fullmatch("[0-9a-f]{32}", name) for name in ids)
    wait_for("the journal has the predictions", lambda: ids <= written(service.journal), 20)


def test_predictions_are_identified_and_counted(service: Service, triton: InferenceServerClient) -> None:
    made = [f'model_predictions_total{{model_version="7",outcome="{name}"}}' for name in ("alert", "no_alert")]
    before = sum(map(service.metric, made)), service.metric(ROUTE % "2xx")
    result = triton.infer(NAME, inputs(FLIGHTS), model_version="7", request_id="a b/ä")
    answer = result.get_response()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == (NAME, "7", "a b/ä")
    assert answer["parameters"] == {"bundle_digest": service.version()["bundle_digest"]}
    plain = httpx.post(service.base + INFER, json=body())
    assert "id" not in plain.json() and plain.headers["X-Model-Version"] == "7"
    assert plain.headers["Content-Type"] == "application/json"
    assert sum(map(service.metric, made)) == before[0] + len(FLIGHTS) + 2
    assert service.metric(ROUTE % "2xx") == before[1] + 1
    assert service.metric((ROUTE % "2xx").replace("{name}", "{name}/versions/{version}")) >= 1


def test_the_requested_outputs_are_returned_in_their_order_and_form(triton: InferenceServerClient) -> None:
    chosen = [InferRequestedOutput("alert"), InferRequestedOutput("probability", binary_data=False)]
    alert, probability = triton.infer(NAME, inputs(FLIGHTS), outputs=chosen).get_response()["outputs"]
    assert (alert["name"], alert["parameters"], "data" in alert) == ("alert", {"binary_data_size": 4}, False)
    assert (probability["name"], probability["shape"], len(probability["data"])) == ("probability", [4], 4)


def test_a_thousand_rows_in_one_request(service: Service, triton: InferenceServerClient) -> None:
    flights = [EXAMPLE | {"weather": [HOUR | {"humidity_pct": i / 10}] * 7} for i in range(1000)]
    batch = httpx.post(f"{service.base}/predict/batch", json={ROWS: flights}, timeout=30).json()["predictions"]
    for binary in (True, False):
        found = columns(triton.infer(NAME, inputs(flights, binary)))["probability"]
        assert found == [one["probability"] for one in batch]


def test_metadata_describes_the_tensors(triton: InferenceServerClient) -> None:
    server = triton.get_server_metadata()
    assert server == {"name": "On-time", "version": "1", "extensions": ["binary_tensor_data"]}
    model = triton.get_model_metadata(NAME)
    assert model == triton.get_model_metadata(NAME, "7")
    assert (model["name"], model["versions"], model["platform"]) == (NAME, ["7"], "lightgbm")
    known = {tensor["name"]: tensor for tensor in model["inputs"]}
    assert known["carrier"] == {"name": "carrier", "datatype": "BYTES", "shape": [-1]}
    assert known["flight_number"]["datatype"] == "FP64"
    assert known["flight_number"]["parameters"] == {"null": "NaN", "optional": True}
    assert known["weather"]["parameters"] == {"content_type": "json", "optional": True}
    assert [(tensor["name"], tensor["datatype"]) for tensor in model["outputs"]] == [
        ("prediction_id", "BYTES"),
        ("probability", "FP64"),
        ("alert", "BOOL"),
        ("threshold", "FP64"),
    ]


def test_the_tensors_of_another_schema() -> None:
    found = {name: tensor[1:] for name, tensor in tensors.of(SecondRequest).items()}
    assert found["time"] == ("BYTES", False, True, False) and found["holiday"] == ("BOOL", False, False, False)
    assert found["sky"] == ("BYTES", True, False, True) and found["wind_kmh"] == ("FP64", False, False, True)


def test_the_example_of_the_contract_is_answered(service: Service) -> None:
    schema = httpx.get(f"{service.base}/openapi.json").json()["components"]["schemas"]["InferenceRequest"]
    assert post(service, schema["examples"][0]).status_code == 200


def test_while_no_model_is_loaded_the_server_is_live_and_not_ready(start: Start) -> None:
    service = start("livez", mlflow_uri=f"http://127.0.0.1:{free_port()}", journal_url="none")
    with client_of(service) as client:
        assert client.is_server_live() and not client.is_server_ready() and not client.is_model_ready(NAME)
        assert client.get_server_metadata()["name"] == "On-time"
        with pytest.raises(InferenceServerException) as caught:
            client.infer(NAME, inputs([EXAMPLE]))
    assert caught.value.status() == "503" and "model" in str(caught.value)


def test_with_a_model_the_server_and_this_version_are_ready(triton: InferenceServerClient) -> None:
    assert triton.is_server_live() and triton.is_server_ready()
    assert triton.is_model_ready(NAME) and triton.is_model_ready(NAME, "7")
    assert not triton.is_model_ready(NAME, "8") and not triton.is_model_ready("other")


@pytest.mark.long
def test_the_model_is_ready_once_its_alias_exists(start: Start, mlflow_registry: Registry) -> None:
    settings = {"mlflow_uri": mlflow_registry.uri, "model_alias": "later", "refresh_seconds": 0.1}
    service = start("livez", journal_url="none", **settings)
    with client_of(service) as client:
        assert not client.is_server_ready()
        mlflow_registry.client.set_registered_model_alias(NAME, "later", "2")
        wait_for("the model is ready", lambda: client.is_model_ready(NAME, "2"), 60)
        assert client.is_server_ready()
        assert columns(client.infer(NAME, inputs([EXAMPLE])))["probability"] == [mlflow_registry.versions["2"]]


@pytest.mark.parametrize("path", ["other", f"{NAME}/versions/8", f"{NAME}/versions/07", "x" * 20_000])
@pytest.mark.parametrize("verb", ["", "/ready", "/infer"])
def test_another_model_or_version_is_404_with_what_is_served(service: Service, path: str, verb: str) -> None:
    method = "POST" if verb == "/infer" else "GET"
    answer = httpx.request(method, f"{service.base}/v2/models/{path}{verb}")
    assert refused(answer, 404) == f"This service serves version 7 of {NAME}, and no other model."


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
def test_what_violates_the_protocol_or_the_schema_is_422_with_the_field(service: Service, name: str) -> None:
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
def test_a_binary_tensor_that_is_not_what_it_claims_is_refused(
    service: Service, content: bytes, size: float, status: int, message: str
) -> None:
    request = body(dest={"data": None, "parameters": {"binary_data_size": size}})
    head = json.dumps(request).encode()
    answer = post(service, head + content, Inference_Header_Content_Length=str(len(head)))
    assert message in refused(answer, status)


def test_numbers_of_another_size_are_refused_and_nan_is_null(service: Service) -> None:
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


def test_compressed_bodies_and_other_media_types_are_415(service: Service, triton: InferenceServerClient) -> None:
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


def test_a_body_that_is_too_long_is_413_and_one_that_stops_is_400(service: Service) -> None:
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
    process = psutil.Process(service.pid)
    before = process.memory_info().rss
    answer = post(service, content)
    assert refused(answer, 422) and len(answer.content) <= 64 << 10
    assert process.memory_info().rss - before < 100 << 20


def test_the_methods_of_a_route_are_named(service: Service) -> None:
    for path, method, allowed in ((INFER, "GET", "POST"), ("/v2", "POST", "GET, HEAD"), (INFER, "PURGE", "POST")):
        answer = httpx.request(method, service.base + path)
        assert refused(answer, 405) and answer.headers["Allow"] == allowed
    assert httpx.head(f"{service.base}/v2/health/ready").status_code == 200
    refused(httpx.get(f"{service.base}/v2/repository/index"), 404)


def test_keys_are_required_for_all_but_health(start: Start, baked: Path) -> None:
    digest = hashlib.sha256(b"secret").hexdigest()
    service = start(baked_model=baked, journal_url="none", api_keys=digest, root_path="/risk")
    with client_of(service) as client:
        assert client.is_server_live() and client.is_server_ready() and not client.is_model_ready(NAME)
        with pytest.raises(InferenceServerException, match="X-API-Key is missing or invalid") as caught:
            client.infer(NAME, inputs([EXAMPLE]))
        assert caught.value.status() == "401"
        assert client.infer(NAME, inputs([EXAMPLE]), headers={"X-API-Key": "secret"}).as_numpy("alert").shape == (1,)
    with InferenceServerClient(f"127.0.0.1:{service.port}/risk") as client:  # under its prefix
        assert client.infer(NAME, inputs([EXAMPLE]), headers={"X-API-Key": "secret"}).as_numpy("alert").shape == (1,)
        with pytest.raises(InferenceServerException, match="no such input"):
            client.infer(NAME, [InferInput("x", [0], "FP64").set_data_from_numpy(np.zeros(0))],
                         headers={"X-API-Key": "secret"})  # fmt: skip
    assert 'handler="/v2/health' not in httpx.get(f"{service.base}/metrics").text
