"""The fields of a request schema, described once for all readers that are faster than Pydantic.

A description accepts no more than the schema. Whatever it cannot express is `Unknown`, and is left to Pydantic.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen, MultipleOf
from pydantic import BaseModel, NaiveDatetime, Strict, WithJsonSchema
from pydantic.fields import FieldInfo

from app.strict import LocalTime

REQUIRED = object()
_HAS_TIME = get_args(LocalTime)[1]
_BOUNDS = {
    Ge: "ge",
    Gt: "gt",
    Le: "le",
    Lt: "lt",
    MultipleOf: "multiple_of",
    MinLen: "min_length",
    MaxLen: "max_length",
}
_SCALARS: dict[Any, str] = {str: "text", bool: "flag", int: "integer", float: "number", NaiveDatetime: "time"}


class Unknown(Exception):
    """A part of a schema that only Pydantic can judge."""


class Field(NamedTuple):
    """A field: its kind, its bounds, whether it may be null, and its default."""

    kind: Literal["text", "flag", "integer", "number", "time", "record", "list"]
    bounds: dict[str, Any]
    nullable: bool = False
    default: Any = REQUIRED
    choices: tuple[str, ...] = ()
    item: Field | Record | None = None
    """The items of a list, or the fields of a record."""


class Record(NamedTuple):
    """The fields of a model, and the checks of its values and of the whole, which raise ValueError."""

    model: type[BaseModel]
    fields: dict[str, Field]
    checks: dict[str, list[Callable[[Any], Any]]]
    whole: list[Callable[[Any], Any]]


def describe(model: type[BaseModel]) -> Record:
    """Return the description of a model; raise Unknown if it has what the other readers cannot do."""
    config, decorators = model.model_config, model.__pydantic_decorators__
    if config.get("extra") != "forbid" or config.get("allow_inf_nan", True):
        raise Unknown(f"{model.__name__} allows unknown fields, NaN or infinities")
    if set(config) - {"extra", "frozen", "allow_inf_nan", "json_schema_extra", "title"}:
        raise Unknown(f"the configuration of {model.__name__}")
    if decorators.validators or decorators.root_validators or model.__pydantic_post_init__:
        raise Unknown(f"validators of {model.__name__}")
    used = {*decorators.field_validators, *decorators.model_validators, *model.model_fields}
    if public := {name for name in vars(model) if not name.startswith(("_", "model_"))} - used:
        raise Unknown(f"{', '.join(sorted(public))} of {model.__name__}")  # the rows of other readers lack them
    checks: dict[str, list[Callable[[Any], Any]]] = {}
    for decorator in decorators.field_validators.values():
        _after(decorator)
        for name in decorator.info.fields:
            checks.setdefault(name, []).append(getattr(model, decorator.cls_var_name))
    whole = [_after(decorator).func for decorator in decorators.model_validators.values()]
    fields = {name: _field(name, info) for name, info in model.model_fields.items()}
    return Record(model, fields, checks, whole)


def _after(decorator: Any) -> Any:
    if decorator.info.mode != "after":
        raise Unknown(f"{decorator.cls_var_name} does not validate after the types")
    return decorator


def _field(name: str, info: FieldInfo) -> Field:
    if info.alias or info.validation_alias or info.default_factory:
        raise Unknown(f"alias or default of {name}")
    default = REQUIRED if info.is_required() else info.default
    return _kind(info.annotation, info.metadata)._replace(default=default)


def _kind(annotation: Any, metadata: Iterable[Any] = ()) -> Field:
    """Return the field for a type with its bounds."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return _kind(inner, [*more, *metadata])
    if get_origin(annotation) in (Union, types.UnionType):
        inner, *others = [part for part in get_args(annotation) if part is not types.NoneType]
        if others:
            raise Unknown(f"the union {annotation}")
        return _kind(inner, metadata)._replace(nullable=True)
    metadata, local = list(metadata), annotation is NaiveDatetime
    if local and _HAS_TIME not in metadata:
        raise Unknown(f"{annotation} without {LocalTime}")
    bounds = _bounds([item for item in metadata if not local or item is not _HAS_TIME])
    if annotation in _SCALARS:
        return Field(_SCALARS[annotation], bounds)  # type: ignore[arg-type]
    if get_origin(annotation) is Literal and all(isinstance(choice, str) for choice in get_args(annotation)):
        return Field("text", bounds, choices=get_args(annotation))
    if get_origin(annotation) is list:
        return Field("list", bounds, item=_kind(*get_args(annotation)))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and not bounds:
        return Field("record", bounds, item=describe(annotation))
    raise Unknown(f"the type {annotation}")


def _bounds(metadata: Iterable[Any]) -> dict[str, Any]:
    bounds: dict[str, Any] = {}
    for item in metadata:
        if name := _BOUNDS.get(type(item)):
            bounds[name] = getattr(item, name)
        elif pattern := getattr(item, "pattern", None):
            bounds["pattern"] = _pattern(pattern)
        elif not isinstance(item, Strict | WithJsonSchema):
            raise Unknown(f"the constraint {item}")
    return bounds


def _pattern(pattern: str) -> str:
    r"""Return a pattern for `re` that matches what Pydantic's does.

    Rust's `$` is Python's `\Z`, and its classes are of Unicode: only anchored patterns of ASCII classes are known.
    """
    body = pattern.removeprefix("^").removesuffix("$")
    known = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789[]{},-_ ")
    if pattern != f"^{body}$" or set(body) - known:
        raise Unknown(f"the pattern {pattern}")
    return rf"^{body}\Z"
