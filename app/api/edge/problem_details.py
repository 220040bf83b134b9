"""Error responses as application/problem+json (RFC 9457), without internal details."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from app.api.edge.bodies import Invalid
from app.api.schemas import Problem
from app.interface import EXAMPLE

MEDIA_TYPE = "application/problem+json"
FAILED = "Internal error; the log has the cause."
_FIELD = next(iter(EXAMPLE))
EXAMPLES = {
    status: {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail} | errors
    for status, detail, errors in (
        (
            422,
            f"{_FIELD}: Field required",
            {"errors": [{"field": _FIELD, "message": "Field required"}]},
        ),
        (400, "The JSON is nested too deeply.", {}),
        (401, "X-API-Key is missing or invalid.", {}),
        (404, "The journal has no prediction with this id; it may have expired.", {}),
        (413, "The body has more than 1048576 bytes.", {}),
        (415, "The Content-Type must be application/json, not 'text/plain'.", {}),
        (500, FAILED, {}),
        (503, "No model is loaded (ModelUnavailable); the log has the cause.", {}),
        (504, "The request took more than 2 seconds.", {}),
    )
}


def response(status: int, detail: str, headers: Any = None, **more: Any) -> Response:
    """Return a problem response; `more` has further fields of `Problem`."""
    problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, **more)
    return Response(problem.model_dump_json(exclude_none=True), status, media_type=MEDIA_TYPE, headers=headers)


def inference_error(scope: Scope, detail: str) -> dict[str, str]:
    """Return the `error` field of the Open Inference Protocol for a path of the protocol; otherwise nothing."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return {"error": detail} if re.match("/v2(/|$)", path) else {}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI entries of these error statuses."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": EXAMPLES[status]}},
        }
        for status in statuses
    }


def install(app: FastAPI) -> None:
    """Install the exception handlers that return problem details."""

    @app.exception_handler(RequestValidationError)
    async def invalid_query(request: Request, err: RequestValidationError) -> Response:
        error = Invalid()
        error.add([{**e, "loc": e["loc"][1:]} for e in err.errors()], ())
        return await invalid(request, error)

    @app.exception_handler(Invalid)
    async def invalid(request: Request, err: Invalid) -> Response:
        detail = "; ".join(f"{e.field}: {e.message}" for e in err.errors[:3])
        if len(err.errors) > 3 or err.omitted:
            detail += "; …"
        more = inference_error(request.scope, detail)
        return response(422, detail, errors=err.errors, errors_omitted=err.omitted or None, **more)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, err: HTTPException) -> Response:
        more = inference_error(request.scope, str(err.detail))
        return response(err.status_code, str(err.detail), err.headers, **more)
