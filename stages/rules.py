"""Rules over the raw tables: their type, and the decorator that collects them.

A rule returns one flag per row that it checked, True where it is broken. The flags of a table's rows keep the table's
index; those of anything else (a day, a key, an hour) have an index that names it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import pandas as pd

Flags: TypeAlias = "pd.Series[bool]"
Tables: TypeAlias = "dict[str, pd.DataFrame]"
Broken: TypeAlias = Callable[[Tables, Any], Flags]
Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Rule:
    """A named rule over the tables; `broken` takes them and the problem's parameters."""

    name: str
    severity: Severity
    description: str
    broken: Broken

    @property
    def table(self) -> str:
        """Return the table that the rule belongs to."""
        return self.name.split(".", maxsplit=1)[0]


class Rules(list[Rule]):
    """Rules in the order of their definition."""

    def add(self, table: str, severity: Severity = "error") -> Callable[[Broken], Broken]:
        """Return a decorator that adds a function as a rule: named after it, described by its docstring."""

        def decorate(broken: Broken) -> Broken:
            self.append(Rule(f"{table}.{broken.__name__}", severity, str(broken.__doc__), broken))
            return broken

        return decorate
