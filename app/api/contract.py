"""Additions to the OpenAPI document that FastAPI generates; the committed openapi.json is the contract."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from app.api.edge import HEALTH
from app.api.schemas import Problem

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


def install(app: FastAPI, keys: bool) -> None:
    """Complete the OpenAPI document; `keys` is whether the service requires an API key."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            document = make()
            _problems(document["components"]["schemas"])
            document["components"]["securitySchemes"] = KEY
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    _operation(operation, keys=keys, open_to_all=path.startswith(HEALTH))
        return make()

    app.openapi = openapi  # type: ignore[method-assign]


def _problems(schemas: dict[str, Any]) -> None:
    """Replace FastAPI's error schemas by the problem details that the service sends."""
    _, extra = models_json_schema([(Problem, "serialization")], ref_template="#/components/schemas/{model}")
    schemas |= extra["$defs"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)


def _operation(operation: dict[str, Any], keys: bool, open_to_all: bool) -> None:
    if open_to_all:
        operation["security"] = []
        operation["responses"].pop("401", None)
    else:
        operation["security"] = [{"ApiKey": []}] if keys else [{}, {"ApiKey": []}]
    for status, response in operation["responses"].items():
        headers = response.setdefault("headers", {})
        headers["X-Request-ID"] = REQUEST_ID
        if status == "200" and "predictions" in operation["tags"]:
            headers["X-Model-Version"] = MODEL_VERSION


def text(app: FastAPI) -> str:
    """Return the document as the text of openapi.json."""
    return json.dumps(app.openapi(), indent=1, ensure_ascii=False) + "\n"
