"""The Open Inference Protocol, version 2, with binary tensors: KServe's and Triton's clients work unchanged."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from app.api import contract, problem_details
from app.api.bodies import LARGE
from app.api.dependencies import ReadyModel, Served
from app.api.inference_messages import INPUTS, OUTPUTS, InferenceRequest, InferenceResponse, answer, read
from app.api.tensors import Tensor
from app.interface import NAME, TITLE, columns
from app.model.prediction import Predictor, Received
from app.model.served import ServedModel

MODELS = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
MEDIA_TYPES = ("", "application/json", "application/octet-stream")
"""Accepted Content-Types; Triton's client sends none."""
JSON_LENGTH = "Inference-Header-Content-Length"
_one_at_a_time = CapacityLimiter(1)  # as for the JSON of /predict/batch: many large bodies take the memory of one

_Route = TypeVar("_Route", bound=Callable[..., Any])


class ServerLive(BaseModel):
    """The process is running."""

    live: bool = True


class ServerReady(BaseModel):
    """A verified model is loaded."""

    ready: bool = True


class ServerMetadata(BaseModel):
    """The server and its extensions of the protocol."""

    name: str = TITLE
    version: str
    extensions: list[str] = ["binary_tensor_data"]


class ModelReady(BaseModel):
    """The model is loaded."""

    name: str
    ready: bool = True


class ModelMetadata(BaseModel):
    """The served version, its inputs and its outputs; docs/inference-protocol.md describes a tensor's `parameters`."""

    name: str
    versions: list[str]
    platform: str = "lightgbm"
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]


def named_model(request: Request, served: Served) -> ServedModel:
    """Return the model; raise 404 if the path names another model or version."""
    asked = request.path_params
    if asked["name"] != served.name or asked.get("version", served.version) != served.version:
        raise HTTPException(404, f"This service serves version {served.version} of {served.name}, and no other model.")
    return served


NamedModel = Annotated[ServedModel, Depends(named_model)]


def install(app: FastAPI) -> None:
    """Add the routes."""
    _server(app)
    _model(app)
    _infer(app)


def _server(app: FastAPI) -> None:
    @app.get("/v2/health/live", tags=["health"])
    async def live() -> ServerLive:
        """Check that the process runs, with or without a model."""
        return ServerLive()

    @app.get("/v2/health/ready", tags=["health"])
    async def ready(_: ReadyModel) -> ServerReady:
        """Check that a verified model is loaded and that the service is not shutting down."""
        return ServerReady()

    @app.get("/v2", tags=["health"])
    async def metadata() -> ServerMetadata:
        """Get the server's name and extensions."""
        return ServerMetadata(version=app.version)


def _both(app: FastAPI, method: str, suffix: str, *errors: int, **options: Any) -> Callable[[_Route], _Route]:
    """Return a decorator that adds a route for the served version, and one for a version in the path."""

    def add(route: _Route) -> _Route:
        for path in MODELS:
            parameters = [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                for name in re.findall(r"{(\w+)}", path)
            ]
            parameters[0]["example"] = NAME
            extra = options.get("openapi_extra", {}) | {"parameters": parameters}
            responses = problem_details.documented(404, *errors) | options.get("responses", {})
            app.api_route(
                path + suffix, methods=[method], **options | {"openapi_extra": extra, "responses": responses}
            )(route)
        return route

    return add


def _model(app: FastAPI) -> None:
    @_both(app, "GET", "", tags=["health"])
    async def model(served: NamedModel) -> ModelMetadata:
        """Get the model's inputs and outputs."""

        def described(tensors: dict[str, Tensor]) -> list[dict[str, Any]]:
            return [tensor.metadata() for tensor in tensors.values()]

        return ModelMetadata(
            name=served.name, versions=[served.version], inputs=described(INPUTS), outputs=described(OUTPUTS)
        )

    @_both(app, "GET", "/ready", tags=["health"])
    async def model_ready(served: NamedModel, _: ReadyModel) -> ModelReady:
        """Check that the model is loaded and that the service is not shutting down."""
        return ModelReady(name=served.name)


def _infer(app: FastAPI) -> None:
    predictor: Predictor = app.state.predictor
    binary = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}

    @_both(
        app,
        "POST",
        "/infer",
        *(400, 413, 415, 422),
        tags=["predictions"],
        response_model=InferenceResponse,
        responses={200: {"content": binary}},
        openapi_extra=contract.body(InferenceRequest),
    )
    async def infer(served: NamedModel, request: Request) -> Response:
        """Predict 1 to 1,000 requests that are tensors, in JSON or in binary form after it."""
        head, tail = await _parts(request)
        limiter = _one_at_a_time if len(head) + len(tail) > LARGE else None
        inference, batch = await to_thread.run_sync(read, head, tail, limiter=limiter)

        def work() -> tuple[bytes, bytes]:
            return answer(inference, predictor.batch(served, Received([columns(batch.rows)], batch.rows)))

        head, tail = await run_in_threadpool(work)
        headers = {"X-Model-Version": served.version} | ({JSON_LENGTH: str(len(head))} if tail else {})
        media_type = "application/octet-stream" if tail else "application/json"
        return Response(head + tail, media_type=media_type, headers=headers)


async def _parts(request: Request) -> tuple[bytes, bytes]:
    """Return the JSON of a body, and the tensors after it."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in MEDIA_TYPES:
        accepted = " or ".join(MEDIA_TYPES[1:])
        raise HTTPException(415, f"The Content-Type must be {accepted}.", {"Accept": ", ".join(MEDIA_TYPES[1:])})
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, "A Content-Encoding is not supported.", {"Accept-Encoding": "identity"})
    try:
        body = await request.body()
    except ClientDisconnect:
        raise HTTPException(400, "The client closed the connection before the end of the body.") from None
    length = request.headers.get(JSON_LENGTH, str(len(body)))
    if not re.fullmatch("[0-9]{1,9}", length) or int(length) > len(body):
        raise HTTPException(400, f"{JSON_LENGTH} must be a number of bytes, at most the body's {len(body)}.")
    return body[: int(length)], body[int(length) :]
