"""PromQL as a tree: which series a query reads, and through what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import promql_parser

RATES = {"rate", "irate", "increase"}
RATE_INTERVAL = 59  # seconds that stand for $__rate_interval while a query is parsed


@dataclass(frozen=True)
class Read:
    """One selector: the metric, its matchers, and the function and range (seconds) right around it, if any."""

    metric: str
    labels: frozenset[str]
    function: str | None
    seconds: float | None


def fill(query: str, rate_interval: str = f"{RATE_INTERVAL}s") -> str:
    """Return a panel's query with Grafana's variables filled in: every job, every container."""
    filled = re.sub(r"\$(job|container)\b", ".+", query.replace("$__rate_interval", rate_interval))
    assert not re.search(r"\$[^1]", filled), filled  # $1 belongs to label_replace
    return filled


def reads(query: str) -> list[Read]:
    """Parse a query and return what it reads; raise ValueError if it is not PromQL."""
    return list(_walk(promql_parser.parse(query), None, None))


def _walk(node: Any, function: str | None, span: timedelta | None) -> Iterator[Read]:
    kind = type(node).__name__
    if kind == "VectorSelector":
        labels = frozenset(matcher.name for matcher in node.matchers.matchers)
        yield Read(node.name, labels, function, span.total_seconds() if span else None)
    elif kind == "MatrixSelector":
        yield from _walk(node.vector_selector, function, node.range)
    elif kind == "Call":
        for argument in node.args:
            yield from _walk(argument, node.func.name, None)
    elif kind == "SubqueryExpr":
        yield from _walk(node.expr, None, None)
    else:
        inner = function if kind == "ParenExpr" else None
        for part in (getattr(node, name, None) for name in ("lhs", "rhs", "expr", "param")):
            if part is not None and type(part).__module__ != "builtins":
                yield from _walk(part, inner, None)
