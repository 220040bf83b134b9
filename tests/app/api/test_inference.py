"""The Open Inference Protocol, called by Triton's own client."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException

from app.api.inference import tensors
from app.interface import EXAMPLE, ROWS_NOUN
from tests.adapt import app_problem
from tests.conftest import free_port
from tests.support.clients.inference import FLIGHTS, HOUR, INFER, ROUTE, body, client_of, inputs, post, refused
from tests.support.journal import written
from tests.support.processes import wait_for
from tests.support.servers.registry import Registry
from tests.support.servers.service import NAME, Service, Start


@pytest.fixture(scope="module", name="service")
def with_a_journal(journalled: Service) -> Service:
    """The service that Triton's client calls."""
    return journalled


def predicted(service: Service, flights: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the responses of /predict."""
    return [httpx.post(f"{service.base}/predict", json=flight).raise_for_status().json() for flight in flights]


def columns(result: InferResult) -> dict[str, list[Any]]:
    """Return the outputs of a response."""
    return {output["name"]: result.as_numpy(output["name"]).tolist() for output in result.get_response()["outputs"]}


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("column", [True, False])
def test_triton_client_gets_the_same_bits(
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


def test_outputs_have_the_requested_order_and_form(triton: InferenceServerClient) -> None:
    chosen = [InferRequestedOutput("alert"), InferRequestedOutput("probability", binary_data=False)]
    alert, probability = triton.infer(NAME, inputs(FLIGHTS), outputs=chosen).get_response()["outputs"]
    assert (alert["name"], alert["parameters"], "data" in alert) == ("alert", {"binary_data_size": 4}, False)
    assert (probability["name"], probability["shape"], len(probability["data"])) == ("probability", [4], 4)


def test_a_thousand_rows_in_one_request(service: Service, triton: InferenceServerClient) -> None:
    flights = [EXAMPLE | {"weather": [HOUR | {"humidity_pct": i / 10}] * 7} for i in range(1000)]
    batch = httpx.post(f"{service.base}/predict/batch", json={ROWS_NOUN: flights}, timeout=30).json()["predictions"]
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
    found = {name: tensor[1:] for name, tensor in tensors.tensors_of(app_problem.Request).items()}
    assert found["time"] == ("BYTES", False, True, False) and found["holiday"] == ("BOOL", False, False, False)
    assert found["sky"] == ("BYTES", True, False, True) and found["wind_kmh"] == ("FP64", False, False, True)


def test_the_example_of_the_contract_is_answered(service: Service) -> None:
    schema = httpx.get(f"{service.base}/openapi.json").json()["components"]["schemas"]["InferenceRequest"]
    assert post(service, schema["examples"][0]).status_code == 200


def test_server_without_a_model_is_live_not_ready(start: Start) -> None:
    service = start("livez", mlflow_uri=f"http://127.0.0.1:{free_port()}", journal_url="none")
    with client_of(service) as client:
        assert client.is_server_live() and not client.is_server_ready() and not client.is_model_ready(NAME)
        assert client.get_server_metadata()["name"] == "On-time"
        with pytest.raises(InferenceServerException) as caught:
            client.infer(NAME, inputs([EXAMPLE]))
    assert caught.value.status() == "503" and "model" in str(caught.value)


def test_server_and_version_with_a_model_are_ready(triton: InferenceServerClient) -> None:
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
def test_other_model_or_version_is_404(service: Service, path: str, verb: str) -> None:
    method = "POST" if verb == "/infer" else "GET"
    answer = httpx.request(method, f"{service.base}/v2/models/{path}{verb}")
    assert refused(answer, 404) == f"This service serves version 7 of {NAME}, and no other model."


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
