"""Additions to the OpenAPI document that FastAPI generates; the committed openapi.json is the contract."""

from __future__ import annotations

import json
from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.api.edge.middleware import HEALTH
from app.api.inference.messages import InferenceRequest
from app.api.schemas import Batch, ColumnarBatch, Outcomes, Problem
from app.batches.stream import MEDIA_TYPE
from app.interface import Outcome, Request

REF = "#/components/schemas/{model}"
REQUEST_ID = {
    "description": "The request id: the client's, if it has at most 64 letters, digits and hyphens; else a new one.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9-]{1,64}$"},
}
MODEL_VERSION = {"description": "The version that made the prediction.", "schema": {"type": "string"}}
KEY = {
    "ApiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "Required if the service has API keys.",
    }
}


def body(schema: type[BaseModel]) -> dict[str, Any]:
    """Return the OpenAPI entry of a request body, which app/api/edge/bodies.py reads instead of FastAPI."""
    content = {"application/json": {"schema": {"$ref": REF.format(model=schema.__name__)}}}
    return {"requestBody": {"required": True, "content": content}}


def batch() -> dict[str, Any]:
    """Return the OpenAPI entry of the body of a batch."""
    json_ = {"schema": {"oneOf": [{"$ref": REF.format(model=model.__name__)} for model in (Batch, ColumnarBatch)]}}
    names = ", ".join(Request.model_fields)
    text = f"An Arrow IPC stream with a column for each field of {Request.__name__}: {names}."
    arrow = {"schema": {"type": "string", "format": "binary", "description": text}}
    return {"requestBody": {"required": True, "content": {"application/json": json_, MEDIA_TYPE: arrow}}}


def install(app: FastAPI, keys: bool) -> None:
    """Complete the OpenAPI document; `keys` is whether the service requires an API key."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            document = make()
            document["components"]["schemas"] = _schemas(document["components"]["schemas"])
            document["components"]["securitySchemes"] = KEY
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    _operation(operation, keys=keys, open_to_all=path.startswith(HEALTH))
        return make()

    app.openapi = openapi  # type: ignore[method-assign]


def _schemas(schemas: dict[str, Any]) -> dict[str, Any]:
    """Add the schemas of the bodies; replace FastAPI's error schemas by the problem details that the service sends."""
    bodies: list[tuple[type[BaseModel], Literal["validation", "serialization"]]] = [
        (model, "validation") for model in (Request, Batch, ColumnarBatch, Outcome, Outcomes, InferenceRequest)
    ]
    _, extra = models_json_schema([*bodies, (Problem, "serialization")], ref_template=REF)
    unused = ("HTTPValidationError", "ValidationError")
    return {name: schema for name, schema in sorted((schemas | extra["$defs"]).items()) if name not in unused}


def _operation(operation: dict[str, Any], keys: bool, open_to_all: bool) -> None:
    if open_to_all:
        operation["security"] = []
        operation["responses"].pop("401", None)
    else:
        operation["security"] = [{"ApiKey": []}] if keys else [{}, {"ApiKey": []}]
    operation["responses"] = operation.pop("responses")  # after the body
    for status, response in operation["responses"].items():
        headers = response.setdefault("headers", {})
        headers["X-Request-ID"] = REQUEST_ID
        if status == "200" and "predictions" in operation["tags"]:
            headers["X-Model-Version"] = MODEL_VERSION


def render_contract(app: FastAPI) -> str:
    """Return the document as the text of openapi.json."""
    return json.dumps(app.openapi(), indent=1, ensure_ascii=False) + "\n"
