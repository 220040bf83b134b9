"""The Open Inference Protocol, version 2, with binary tensors: KServe's and Triton's clients work unchanged."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from app.api import contract
from app.api.dependencies import ReadyModel, Served
from app.api.edge import problem_details
from app.api.edge.bodies import LARGE
from app.api.inference.messages import INPUTS, OUTPUTS, InferenceRequest, InferenceResponse, answer, read
from app.api.predictor import Predictor
from app.batches.received import Received
from app.interface import NAME, TITLE, arrays_of_requests
from app.model.served import ServedModel

MEDIA_TYPES = ("", "application/json", "application/octet-stream")
"""Accepted Content-Types; Triton's client sends none."""
JSON_LENGTH = "Inference-Header-Content-Length"
_one_at_a_time = CapacityLimiter(1)  # as for the JSON of /predict/batch: many large bodies take the memory of one


class ServerLive(BaseModel):
    """The process is running."""

    live: Literal[True] = True


class ServerReady(BaseModel):
    """A verified model is loaded."""

    ready: Literal[True] = True


class ModelReady(ServerReady):
    """The model is loaded."""

    name: str


class ServerMetadata(BaseModel):
    """The server and its extensions of the protocol."""

    name: str = TITLE
    version: str
    extensions: list[str] = ["binary_tensor_data"]


class ModelMetadata(BaseModel):
    """The served version, its inputs and its outputs; docs/inference-protocol.md describes a tensor's `parameters`."""

    name: str
    versions: list[str]
    platform: str = "lightgbm"
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]


def named_model(request: Request, served: Served) -> ServedModel:
    """Return the model; raise 404 if the path names another model or version."""
    names = request.path_params
    if names["name"] != served.name or names.get("version", served.version) != served.version:
        raise HTTPException(404, f"This service serves version {served.version} of {served.name}, and no other model.")
    return served


NamedModel = Annotated[ServedModel, Depends(named_model)]


def install(app: FastAPI) -> None:
    """Add the routes; each model route exists with and without a version in its path."""

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

    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}, "example": NAME}
    version = {"name": "version", "in": "path", "required": True, "schema": {"type": "string"}}
    _model(app, "/v2/models/{name}", [name])
    _model(app, "/v2/models/{name}/versions/{version}", [name, version])


def _model(app: FastAPI, path: str, parameters: list[dict[str, Any]]) -> None:
    predictor: Predictor = app.state.predictor
    extra = {"parameters": parameters}  # `named_model` reads them
    missing = problem_details.documented(404)
    binary = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}

    @app.get(path, tags=["health"], responses=missing, openapi_extra=extra)
    async def model(served: NamedModel) -> ModelMetadata:
        """Get the model's inputs and outputs."""
        inputs, outputs = ([tensor.metadata() for tensor in tensors.values()] for tensors in (INPUTS, OUTPUTS))
        return ModelMetadata(name=served.name, versions=[served.version], inputs=inputs, outputs=outputs)

    @app.get(f"{path}/ready", tags=["health"], responses=missing, openapi_extra=extra)
    async def model_ready(served: NamedModel, _: ReadyModel) -> ModelReady:
        """Check that the model is loaded and that the service is not shutting down."""
        return ModelReady(name=served.name)

    @app.post(
        f"{path}/infer",
        tags=["predictions"],
        response_model=InferenceResponse,
        responses=missing | {200: {"content": binary}} | problem_details.documented(400, 413, 415, 422),
        openapi_extra=extra | contract.body(InferenceRequest),
    )
    async def infer(served: NamedModel, request: Request) -> Response:
        """Predict 1 to 1,000 requests that are tensors, in JSON or in binary form after it."""
        head, tail = await _parts(request)
        limiter = _one_at_a_time if len(head) + len(tail) > LARGE else None
        inference, rows = await to_thread.run_sync(read, head, tail, limiter=limiter)

        def work() -> tuple[bytes, bytes]:
            return answer(inference, predictor.batch(served, Received([arrays_of_requests(rows)], rows)))

        head, tail = await to_thread.run_sync(work)
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
