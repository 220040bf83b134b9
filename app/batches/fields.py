"""The fields of a request schema as columns, and their validation by Pydantic, many values at once.

A description accepts no more than the schema. What it cannot express is `Unknown`, and is left to Pydantic, row by row.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import pyarrow as pa
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel, ConfigDict, NaiveDatetime, Strict, TypeAdapter, WithJsonSchema

from app.problem_kit.models import LocalTime

REQUIRED = object()
_HAS_TIME = get_args(LocalTime)[1]
_SCALARS = {str: "text", bool: "flag", int: "integer", float: "number", NaiveDatetime: "time"}
_ARROW = {"text": pa.string(), "flag": pa.bool_(), "integer": pa.int64(), "number": pa.float64()}


class Unknown(Exception):
    """A part of a schema that only Pydantic can validate."""


class ArrowField(NamedTuple):
    """A field of a model, or the items of a list."""

    kind: str
    """text, flag, integer, number, time, record or list."""
    validate: Callable[[list[Any]], list[Any]] | None = None
    """Validates a list of values; for a list, of lists with any items; None for a record."""
    interval: bool = True
    """Whether all numbers between two valid ones are valid."""
    item: ArrowField | Record | None = None
    """The items of a list, or the fields of a record."""
    nullable: bool = False
    default: Any = REQUIRED

    def arrow(self) -> pa.DataType:
        """Return the Arrow type of the field."""
        if isinstance(self.item, Record):
            return pa.struct({name: field.arrow() for name, field in self.item.fields.items()})
        if self.item is not None:
            return pa.list_(self.item.arrow())
        return _ARROW.get(self.kind, pa.timestamp("us"))


class Record(NamedTuple):
    """The fields of a model, and whether the model has validators of its own."""

    fields: dict[str, ArrowField]
    validators: bool


def describe(model: type[BaseModel]) -> Record:
    """Return the description of a model; raise Unknown if it has what arrays cannot express."""
    config, decorators = model.model_config, model.__pydantic_decorators__
    if config.get("extra") != "forbid" or config.get("allow_inf_nan", True):
        raise Unknown(f"{model.__name__} allows unknown fields, NaN or infinities")
    validators: list[Any] = [*decorators.field_validators.values(), *decorators.model_validators.values()]
    after = all(decorator.info.mode == "after" for decorator in validators)
    if not after or decorators.validators or decorators.root_validators or model.__pydantic_post_init__:
        raise Unknown(f"{model.__name__} has validators that may change a value")
    fields = {}
    for name, info in model.model_fields.items():
        if info.alias or info.validation_alias or info.default_factory:
            raise Unknown(f"alias or default of {name}")
        default = REQUIRED if info.is_required() else info.default
        fields[name] = _field(info.annotation, info.metadata, config)._replace(default=default)
    return Record(fields, bool(validators))


def _field(annotation: Any, constraints: Sequence[Any], config: ConfigDict) -> ArrowField:
    """Return the field of a type with its constraints."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _field(arguments[0], [*arguments[1:], *constraints], config)
    if origin in (Union, types.UnionType):
        options = [option for option in arguments if option is not types.NoneType]
        if len(options) > 1:
            raise Unknown(f"the union {annotation}")
        return _field(options[0], constraints, config)._replace(nullable=True)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and not constraints:
        return ArrowField("record", item=describe(annotation))
    if origin is list and all(isinstance(one, MinLen | MaxLen) for one in constraints):
        return ArrowField("list", _validator(list[Any], constraints, config), item=_field(arguments[0], [], config))
    interval = all(isinstance(one, Ge | Gt | Le | Lt | Strict) for one in constraints)
    kind = _SCALARS.get(annotation)
    if origin is Literal and all(isinstance(choice, str) for choice in arguments):
        kind = "text"
    timed = kind == "time" and not all(one is _HAS_TIME or isinstance(one, WithJsonSchema) for one in constraints)
    if kind is None or timed:
        raise Unknown(f"the type {annotation} with {constraints}")
    return ArrowField(kind, _validator(annotation, constraints, config), interval)


def _validator(annotation: Any, constraints: Sequence[Any], config: ConfigDict) -> Callable[[list[Any]], list[Any]]:
    value: Any = Annotated[(annotation, *constraints)] if constraints else annotation
    adapter: TypeAdapter[list[Any]] = TypeAdapter(list[value], config=config)
    return adapter.validate_python
