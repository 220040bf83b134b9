"""Tensors of the Open Inference Protocol: one for each field of a schema, one element for each row.

A field of one scalar type is a tensor of that type. Every other field, for example a nested one, is a tensor of BYTES
whose elements are JSON. Null is NaN in a tensor of numbers, `null` in JSON; other types have no null.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel

from app.api.edge.bodies import Invalid, invalid

DATATYPES = {"string": "BYTES", "integer": "INT64", "number": "FP64", "boolean": "BOOL"}
ELEMENTS: dict[str, tuple[type, ...]] = {"BYTES": (str,), "INT64": (int,), "FP64": (float, int), "BOOL": (bool,)}
NUMPY = {"INT64": "<i8", "FP64": "<f8", "BOOL": "?"}
"""Elements of fixed size, as the binary tensor extension encodes them."""
_LENGTH = struct.Struct("<I")


class Tensor(NamedTuple):
    """A tensor that carries one field of a schema."""

    name: str
    datatype: str
    json: bool
    """Whether each element is the JSON of a value."""
    required: bool
    nullable: bool

    def metadata(self) -> dict[str, Any]:
        """Return the entry of the model's metadata; `parameters` names what differs from a plain, required tensor."""
        parameters: dict[str, Any] = {}
        if self.json:
            parameters["content_type"] = "json"
        elif self.nullable:
            parameters["null"] = "NaN"
        if not self.required:
            parameters["optional"] = True
        entry = {"name": self.name, "datatype": self.datatype, "shape": [-1]}
        return entry | {"parameters": parameters} if parameters else entry

    def invalid(self, message: str) -> Invalid:
        """Return the error of this tensor."""
        return invalid(self.name, message)

    def values(self, data: Sequence[Any]) -> list[Any]:
        """Return the values of the field, as in the schema's JSON; raise `Invalid` for another type or broken JSON."""
        for i, element in enumerate(data):
            if element is not None and type(element) not in ELEMENTS[self.datatype]:
                raise self.invalid(f"element {i} is not of type {self.datatype}")
        if self.json:
            return [None if element is None else self._parsed(i, element) for i, element in enumerate(data)]
        return [None if element != element else element for element in data]  # pylint: disable=R0124 # NaN

    def _parsed(self, i: int, element: str) -> Any:
        try:
            return json.loads(element)
        except json.JSONDecodeError as err:
            raise self.invalid(f"element {i} is not JSON: at character {err.pos}: {err.msg}") from None
        except (ValueError, RecursionError):  # Python's limits on digits and depth
            raise self.invalid(f"element {i} is not JSON that can be read") from None

    def decode(self, content: bytes, count: int) -> list[Any]:
        """Return the elements of a binary tensor; raise `Invalid` if it does not have exactly `count`."""
        if self.datatype in NUMPY:
            dtype = np.dtype(NUMPY[self.datatype])
            if len(content) != count * dtype.itemsize:
                raise self.invalid(f"{count} elements of type {self.datatype} do not have {len(content)} bytes")
            return list(np.frombuffer(content, dtype).tolist())
        texts, end = [], 0
        for i in range(count):
            start = end + _LENGTH.size
            end = start + _LENGTH.unpack_from(content, end)[0] if start <= len(content) else start
            if end > len(content):
                raise self.invalid(f"element {i} exceeds the tensor's {len(content)} bytes")
            try:
                texts.append(content[start:end].decode())
            except UnicodeDecodeError as err:
                raise self.invalid(f"element {i} is not UTF-8: {err.reason} at byte {err.start}") from None
        if end != len(content):
            raise self.invalid(f"{len(content) - end} bytes follow the last of {count} elements")
        return texts

    def encode(self, values: Sequence[Any]) -> bytes:
        """Return values as a binary tensor."""
        if self.datatype in NUMPY:
            return np.array(values, NUMPY[self.datatype]).tobytes()
        return b"".join(_LENGTH.pack(len(text)) + text for text in map(str.encode, values))


def tensors_of(schema: type[BaseModel]) -> dict[str, Tensor]:
    """Return the tensors of a schema by name, in the order of its fields."""
    document = schema.model_json_schema()
    found = {}
    for name, field in document["properties"].items():
        types = _types(field)
        nullable = "null" in types
        kinds = types - {"null"}
        kind = kinds.pop() if len(kinds) == 1 else ""
        plain = kind == "number" or kind in DATATYPES and not nullable
        required = name in document.get("required", ())
        found[name] = Tensor(name, DATATYPES[kind] if plain else "BYTES", not plain, required, nullable)
    return found


def _types(part: Mapping[str, Any]) -> set[str]:
    """Return the names of the JSON types that a part of a schema allows; `any` if it does not name them itself."""
    if "anyOf" in part:
        return {name for option in part["anyOf"] for name in _types(option)}
    return {part.get("type", "any")}


def example(tensors: Mapping[str, Tensor], row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the inputs of a request for one row."""
    inputs = []
    for name, value in row.items():
        data = [json.dumps(value) if tensors[name].json else value]
        inputs.append({"name": name, "shape": [1], "datatype": tensors[name].datatype, "data": data})
    return inputs
