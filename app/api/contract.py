"""What OpenAPI says beyond what FastAPI finds out by itself; openapi.json in the repository is the contract."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from app.api.edge import HEALTH
from app.api.schemas import Problem

REQUEST_ID = {
    "description": "The id of the request: the client's own, if it sent one of up to 64 letters, digits and hyphens.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9-]{1,64}$"},
}
MODEL_VERSION = {"description": "The version that answered.", "schema": {"type": "string"}}
KEY = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "Where the service asks for one."}
}


def install(app: FastAPI, keys: bool) -> None:
    """Complete the OpenAPI document; `keys` says whether this service asks for a key."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            document = make()
            _problems(document["components"]["schemas"])
            document["components"]["securitySchemes"] = KEY
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    _operation(operation, asks=keys, open_to_all=path.startswith(HEALTH))
        return make()

    app.openapi = openapi  # type: ignore[method-assign]


def _problems(schemas: dict[str, Any]) -> None:
    """Put in the error body that is sent for the one that FastAPI would describe."""
    _, extra = models_json_schema([(Problem, "serialization")], ref_template="#/components/schemas/{model}")
    schemas |= extra["$defs"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)


def _operation(operation: dict[str, Any], asks: bool, open_to_all: bool) -> None:
    if open_to_all:
        operation["security"] = []
        operation["responses"].pop("401", None)
    else:
        operation["security"] = [{"ApiKey": []}] if asks else [{}, {"ApiKey": []}]
    for status, response in operation["responses"].items():
        headers = response.setdefault("headers", {})
        headers["X-Request-ID"] = REQUEST_ID
        if status == "200" and "predictions" in operation["tags"]:
            headers["X-Model-Version"] = MODEL_VERSION


def text(app: FastAPI) -> str:
    """Return the document as openapi.json has it."""
    return json.dumps(app.openapi(), indent=1, ensure_ascii=False) + "\n"
