"""The type of rules on the raw tables, and their registry.

A rule returns one flag per checked row, True for a violation. Flags of a table's rows have the table's index; flags of
other objects (days, keys, hours) have an index that identifies them.

Tables with days are checked month by month (stages/tables/partitions.py). A rule gets the rows of one month, and
parameters whose period is that month. `reach` and `across` give a rule more than that; see `Rules.add`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    across: tuple[str, ...] = ()
    """Columns whose combinations in the whole table the rule checks, with the number of their `rows`."""
    reach: int = 0
    """Days before and after the checked ones that the rule reads."""

    @property
    def table(self) -> str:
        """Return the table that the rule belongs to."""
        return self.name.split(".", maxsplit=1)[0]


class Rules(list[Rule]):
    """Rules in the order of their definition."""

    def add(
        self, table: str, severity: Severity = "error", across: Sequence[str] = (), reach: int = 0
    ) -> Callable[[Broken], Broken]:
        """Return a decorator that adds a function as a rule; its name and docstring become name and description.

        A rule with `across` gets, in place of its table, each combination of these columns with the number of its
        `rows`, the tables without days, and no others. A rule with `reach` also gets the rows of `reach` days before
        and after.
        """

        def decorate(broken: Broken) -> Broken:
            rule = Rule(f"{table}.{broken.__name__}", severity, str(broken.__doc__), broken, tuple(across), reach)
            self.append(rule)
            return broken

        return decorate
