"""The type of rules on the raw tables, and their registry.

A rule returns one flag per checked row, True for a violation. Flags of a table's rows have the table's index; flags of
other objects (days, keys, hours) have an index that identifies them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import pandas as pd

Flags: TypeAlias = "pd.Series[bool]"  # no type of its own at run time
Tables: TypeAlias = dict[str, pd.DataFrame]
Broken: TypeAlias = Callable[[Tables, Any], Flags]
Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Rule:
    """A named rule; `broken` takes the tables and the problem's parameters."""

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
        """Return a decorator that adds a function as a rule; its name and docstring become name and description."""

        def decorate(broken: Broken) -> Broken:
            self.append(Rule(f"{table}.{broken.__name__}", severity, str(broken.__doc__), broken))
            return broken

        return decorate
