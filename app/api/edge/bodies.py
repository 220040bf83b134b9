"""Request bodies: media type, JSON, schema. The cost of an invalid body is bounded for any size."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from email.message import Message
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import HTTPException, Request
from pydantic import BaseModel, TypeAdapter, ValidationError, create_model
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from app import interface
from app.api.schemas import MAX_BATCH, FieldError, Outcomes
from app.batches.read import MAX_ROWS
from app.interface import Outcome

LARGE = 1 << 14
"""Size in bytes above which a body is parsed in a worker thread."""
MAX_ERRORS, MAX_ERROR_BYTES, MAX_TEXT = 100, 50_000, 200
"""Limits of one response: the listed errors, their JSON in bytes, and the characters of a field's name or a message."""

MAX_KEYS = 1000
"""Keys of an object that is validated: Pydantic creates an error of about 1 kB for each unknown key."""

Location = tuple[int | str, ...]
Place = Location | Callable[[Location], Location]
_one_at_a_time = CapacityLimiter(1)  # so that many large bodies take the memory of one, besides their bytes


class Invalid(Exception):
    """A body or query that violates its schema: the first errors, and the number of those that are not listed."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[FieldError] = []
        self.omitted = self._bytes = 0

    @property
    def full(self) -> bool:
        """Whether further errors are counted only."""
        return len(self.errors) == MAX_ERRORS or self._bytes > MAX_ERROR_BYTES

    def add(self, found: Iterable[Any], at: Place) -> None:
        """Add errors of Pydantic, each below a location or at the location that a function returns for it."""
        for error in found:
            if self.full:
                self.omitted += 1
                continue
            place = at(error["loc"]) if callable(at) else (*at, *error["loc"])
            field = ".".join(map(str, place)) or "body"
            item = FieldError(field=_clip(field), message=_clip(error["msg"].removeprefix("Value error, ")))
            self.errors.append(item)
            self._bytes += len(item.model_dump_json()) + 1


def invalid(field: str, message: str) -> Invalid:
    """Return the error for one field."""
    error = Invalid()
    error.add([{"loc": (field,), "msg": message}], ())
    return error


class Body:
    """The body of a route: an object, or a list of rows under one key."""

    def __init__(
        self, schema: type[BaseModel], rows: str = "", row: type[BaseModel] | None = None, most: int = MAX_BATCH
    ) -> None:
        """Set the schema, and for a batch the key of its rows, their schema and their greatest number."""
        self.validate_json: Callable[[bytes], Any] = TypeAdapter(schema).validate_json
        self._schema, self._rows, self._row, self._most = schema, rows, row, most
        self._field, field = next(iter(schema.model_fields.items()))
        outer: dict[str, Any] = {self._field: (list[Any], field)}
        self._outer = create_model("Outer", __base__=schema, **outer) if row else schema
        definitions = schema.model_json_schema()
        parts = (definitions, *definitions.get("$defs", {}).values())
        self._known = {name for part in parts for name in part.get("properties", ())}

    def ordinary(self, body: bytes) -> bool:
        """Check that a body has no more values than its size and schema suggest, so that Pydantic may read it at once.

        Pydantic needs 0.1 to 1 kB for each JSON value, and as much for each error.
        """
        objects, commas = body.count(b"{"), body.count(b",")
        values = commas + 4 * objects + 2 * body.count(b"[")
        return len(body) <= LARGE or (commas <= len(self._known) * objects and 12 * values <= len(body))

    async def read(self, request: Request) -> Any:
        """Return the validated body of a request; a large one is parsed in a worker thread.

        Raises `Invalid`, and HTTPException for a body that is not JSON of the right media type.
        """
        parse = self.parser(request.headers)
        try:
            body = await request.body()
        except ClientDisconnect:
            raise HTTPException(400, "The client closed the connection before the end of the body.") from None
        try:
            if len(body) <= LARGE:
                return parse(body)
            return await to_thread.run_sync(parse, body, limiter=_one_at_a_time)
        except (HTTPException, Invalid):
            coding = request.headers.get("content-encoding", "identity")
            if coding.lower() != "identity":
                raise HTTPException(
                    415, f"Content-Encoding {_clip(coding)!r} is not supported.", {"Accept-Encoding": "identity"}
                ) from None
            raise

    def parser(self, headers: Headers) -> Callable[[bytes], Any]:
        """Return the function that parses a body with these headers; raise 415 if there is none."""
        check_type(headers.get("content-type", ""))
        return self.parse

    def parse(self, body: bytes) -> Any:
        """Parse and validate a body, row by row; raise as `read` does."""
        try:
            return self.validated(load(body))
        except RecursionError:
            raise HTTPException(400, "The JSON is nested too deeply.") from None

    def validated(self, value: Any) -> Any:
        """Return a validated value; the rows of a batch are replaced in it."""
        error = Invalid()
        rows = value.get(self._rows) if self._row and isinstance(value, dict) else None
        if self._row and isinstance(rows, list) and len(rows) <= self._most:
            rows[:] = [self.checked(self._row, row, error, (self._rows, i)) for i, row in enumerate(rows)]
        parsed = self.checked(self._outer, value, error, ())
        if error.errors:
            raise error
        return self._schema.model_construct(**{self._field: rows}) if self._row else parsed

    def checked(self, schema: type[BaseModel], value: Any, error: Invalid, at: Place) -> Any:
        """Return a validated value, or None after its errors, below or by a place, were added."""
        keys = _most_keys(value)
        if keys > MAX_KEYS:
            error.add([{"loc": (), "msg": f"An object has {keys} keys, more than {MAX_KEYS}"}], at)
            return None
        try:
            return schema.model_validate(value)
        except ValidationError as err:
            if error.full:
                error.omitted += err.error_count()
            else:
                error.add(err.errors(include_url=False, include_context=False, include_input=False), at)
            return None


def check_type(given: str, other: str = "") -> bool:
    """Return True for JSON, False for the media type `other`; raise 415 for any other Content-Type.

    Its parameters are ignored.
    """
    message = Message()
    message["content-type"] = given or "none"
    kind, subtype = message.get_content_maintype(), message.get_content_subtype()
    if given and other and f"{kind}/{subtype}" == other:
        return False
    if not given or kind != "application" or not (subtype == "json" or subtype.endswith("+json")):
        known = ["application/json"]
        if other:
            known.append(other)
        what = f"not {_clip(given)!r}" if given else "which is missing"
        text = f"The Content-Type must be {' or '.join(known)}, {what}."
        raise HTTPException(415, text, {"Accept": ", ".join(known)})
    return True


def load(body: bytes) -> Any:
    """Parse JSON; raise `Invalid` with the position of a syntax error, HTTPException for what no parser can read."""
    if not body.strip():
        raise invalid("body", "Field required")
    try:
        return json.loads(body)
    except json.JSONDecodeError as err:
        byte = len(err.doc[: err.pos].encode("utf-8", "surrogatepass"))
        where = f"at byte {byte} (line {err.lineno}, column {err.colno})"
        raise invalid("body", f"not JSON: {where}: {err.msg}") from None
    except UnicodeDecodeError as err:
        raise HTTPException(400, f"The body is not {err.encoding.upper()}: {err.reason} at byte {err.start}.") from None
    except ValueError:  # Python's limit on digits
        raise HTTPException(400, "The body has a number with too many digits.") from None


def _most_keys(value: Any) -> int:
    """Return the number of keys of the largest object in a value; longer lists than `MAX_ROWS` are not valid anyway."""
    if not isinstance(value, dict | list):
        return 0
    keys, parts = (len(value), value.values()) if isinstance(value, dict) else (0, value[:MAX_ROWS])
    return max(keys, max((_most_keys(part) for part in parts if isinstance(part, dict | list)), default=0))


def _clip(text: str) -> str:
    """Return a text of bounded length that UTF-8 can encode."""
    short = text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"
    return short.encode("utf-8", "backslashreplace").decode()


REQUEST = Body(interface.Request)
OUTCOME, OUTCOMES = Body(Outcome), Body(Outcomes, "outcomes", Outcome)
