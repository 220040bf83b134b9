"""Column descriptions (type, range or pattern), and the schemas of tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import pandas as pd
from pandera.pandas import Check, Column, DataFrameSchema

Kind = Literal["integer", "real", "time", "text"]
UTC = pd.DatetimeTZDtype(unit="us", tz="UTC")


def number(kind: str, low: float, high: float, *more: Check) -> Column:
    """Describe a column of numbers; the range includes both ends."""
    return Column(kind, [Check.in_range(low, high), *more], description=f"{kind}, {low:g} to {high:g}")


def integer(low: int, high: int) -> Column:
    """Describe a column of integers; the range includes both ends."""
    return number("int64", low, high)


def real(low: float, high: float, step: float = 0, spare: bool = False) -> Column:
    """Describe a column of floats; with `step`, they must be multiples of it.

    A model can do without a `spare` column: too many missing values are a warning.
    """
    column = number("float64", low, high, *([Check(lambda values: values % step == 0)] if step else []))
    column.metadata = {"spare": spare}
    return column


def spare(column: Column) -> bool:
    """Return whether a model can do without a column."""
    return bool((column.metadata or {}).get("spare"))


def text(pattern: str = r"\S", unique: bool = False, spare: bool = False) -> Column:
    """Describe a column of text that matches a pattern; if unique, without duplicates; `spare` as for `real`."""
    description = f"text like {pattern}" + (", each once" if unique else "")
    check, metadata = Check.str_contains(pattern), {"spare": spare}
    return Column(str, check, unique=unique, description=description, metadata=metadata)


def kind(column: Column) -> Kind:
    """Return the kind of a column's values."""
    kinds: dict[str, Kind] = {"datetime": "time", "int": "integer", "float": "real"}
    return next((found for name, found in kinds.items() if name in str(column.dtype)), "text")


def schema(table: str, described: Mapping[str, Column], nullable: Iterable[str]) -> DataFrameSchema:
    """Return the schema of a table; `nullable` lists columns as `table.column`."""
    may_lack = set(nullable)
    columns = {
        name: Column(
            column.dtype,
            column.checks,
            nullable=f"{table}.{name}" in may_lack or spare(column),
            unique=column.unique,
            description=column.description,
        )
        for name, column in described.items()
    }
    return DataFrameSchema(columns, strict=True, name=table)
