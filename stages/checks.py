"""Check the raw tables against the rules; report violations and repairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
from pandera.errors import SchemaError, SchemaErrors

from stages.columns import schema, spare, types
from stages.errors import DataInvalid, ParamsInvalid
from stages.interface import COLUMNS, KEYS, REPAIRS, RULES
from stages.params import Params
from stages.rules import Flags, Severity, Tables

SAMPLE = 5
STATUS: dict[Severity, Literal["fail", "warn"]] = {"error": "fail", "warning": "warn"}


@dataclass(frozen=True)
class Outcome:
    """The result of a rule: one flag per checked row, True for a violation."""

    name: str
    severity: Severity
    description: str
    broken: Flags
    tolerance: int
    share: bool = False
    """Whether the tolerance is a share of the rows: no single row is a violation."""

    @property
    def table(self) -> str:
        """Return the table that the rule belongs to."""
        return self.name.split(".", maxsplit=1)[0]

    @property
    def violating(self) -> int:
        """Return the number of violations."""
        return int(self.broken.sum())

    @property
    def status(self) -> Literal["pass", "warn", "fail"]:
        """Return `pass` if the violations are within the tolerance, else `warn` or `fail` by severity."""
        return STATUS[self.severity] if self.violating > self.tolerance else "pass"

    @property
    def of_rows(self) -> bool:
        """Return whether the flags are of the table's rows, rather than of days, columns or other objects."""
        return None in self.broken.index.names

    def keys(self, tables: Tables, most: int | None = None) -> list[dict[str, str]]:
        """Return the keys of violations, at most `most`, as text, as `featurize.repair` matches them."""
        where = self.broken.index[self.broken.to_numpy(dtype=bool)][:most]
        if self.of_rows:  # rows of the table, which may lack a column of its key
            rows = tables[self.table].loc[where].reindex(columns=KEYS[self.table])
        else:
            rows = where.to_frame(index=False)
        return [{str(name): str(value) for name, value in row.items()} for row in rows.astype(str).to_dict("records")]

    def to_json(self, tables: Tables) -> dict[str, Any]:
        """Return the rule's part of the report."""
        return {
            "name": self.name,
            "table": self.table,
            "severity": self.severity,
            "description": self.description,
            "checked": len(self.broken),
            "violating": self.violating,
            "tolerance": self.tolerance,
            "status": self.status,
            "sample": [" ".join(f"{k}={v}" for k, v in key.items()) for key in self.keys(tables, SAMPLE)],
        }


def verify_names(p: Params) -> None:
    """Raise ParamsInvalid if `validate` in params.yaml names an unknown table, column or rule."""
    columns = {f"{table}.{column}" for table, names in COLUMNS.items() for column in names}
    rules = columns | {f"{table}.{kind}" for table in COLUMNS for kind in ("columns", "rows")} | {r.name for r in RULES}
    for key, names, known in (
        ("tolerance", p.validate_.tolerance, rules),
        ("missing_share", p.validate_.missing_share, columns),
        ("rows", p.validate_.rows, set(COLUMNS)),
    ):
        if unknown := sorted(set(names) - known):
            raise ParamsInvalid(
                f"params.yaml: unknown names under validate.{key}: {', '.join(unknown)}. "
                "stages/problem defines the tables, columns and rules."
            )
    if absent := sorted(set(COLUMNS) - set(p.validate_.rows)):
        raise ParamsInvalid(
            f"params.yaml: validate.rows lacks {', '.join(absent)}: add the minimum and maximum number of rows."
        )


def row_count(tables: Tables, table: str, p: Params) -> Outcome:
    """Check the number of rows."""
    rows, (low, high) = len(tables[table]), p.validate_.rows[table]
    flags = pd.Series([not low <= rows <= high], index=pd.Index([rows], name="rows"), dtype=bool)
    return Outcome(f"{table}.rows", "error", f"There are {low} to {high} rows.", flags, 0)


def column_set(frame: pd.DataFrame, table: str) -> Outcome:
    """Check that the table has the described columns and no others."""
    names = sorted({*COLUMNS[table], *map(str, frame.columns)})
    flags = [(name in COLUMNS[table]) != (name in frame) for name in names]
    index = pd.Index(names, name="column")
    return Outcome(f"{table}.columns", "error", "The columns are those described.", pd.Series(flags, index), 0)


def missing_values(frame: pd.DataFrame, table: str, p: Params) -> list[Outcome]:
    """Check the share of missing values in the columns that may have them."""
    shares = {column: 0.0 for column, described in COLUMNS[table].items() if spare(described)}
    shares |= {c: s for c in COLUMNS[table] if (s := p.validate_.missing_share.get(f"{table}.{c}")) is not None}
    return [
        Outcome(
            f"{table}.{column}.missing",
            "warning" if spare(described) else "error",
            f"At most {shares[column]:.1%} of the values are missing.",
            frame[column].isna(),
            int(shares[column] * len(frame)),
            share=True,
        )
        for column, described in COLUMNS[table].items()
        if column in shares and column in frame
    ]


def column_values(frame: pd.DataFrame, table: str, p: Params) -> list[Outcome]:
    """Check each column against its schema; if it is absent or has another type, every row is a violation."""
    cases = pd.DataFrame(columns=["column", "index"])
    try:
        schema(table, COLUMNS[table], p.validate_.missing_share).validate(frame, lazy=True)
    except SchemaErrors as err:
        cases = err.failure_cases
    outcomes = []
    for column, described in COLUMNS[table].items():
        rows = cases.loc[cases["column"] == column, "index"]
        whole = column not in frame or bool(rows.isna().any())
        flags = pd.Series(frame.index.isin(rows) | whole, index=frame.index)
        name = f"{table}.{column}"
        outcomes.append(Outcome(name, "error", str(described.description), flags, p.validate_.tolerance.get(name, 0)))
    return outcomes


def structure(tables: Tables, p: Params) -> list[Outcome]:
    """Check the rows and columns of each table."""
    outcomes = []
    for table in COLUMNS:
        frame = tables[table]
        outcomes += [row_count(tables, table, p), column_set(frame, table)]
        outcomes += [*column_values(frame, table, p), *missing_values(frame, table, p)]
    return outcomes


def is_sound(tables: Tables) -> bool:
    """Return whether every column exists with its type, which the rules between columns require."""
    try:
        for table, described in COLUMNS.items():
            types(table, described).validate(tables[table])
    except SchemaError:
        return False
    return True


def repairs(tables: Tables, outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """Return the distinct repairs of rows that violate a rule within its tolerance."""
    found: list[dict[str, Any]] = []
    for outcome in outcomes:
        if outcome.name in REPAIRS and outcome.status == "pass":
            for key in outcome.keys(tables):
                repair = {"table": outcome.table, "key": key, **REPAIRS[outcome.name]}
                if not any(repair.items() <= earlier.items() for earlier in found):
                    found.append({"rule": outcome.name, **repair})
    return found


def apply_rules(tables: Tables, p: Params) -> list[Outcome]:
    """Return the results of the rules between columns, rows and tables, which must be sound."""
    tolerance = p.validate_.tolerance
    return [
        Outcome(r.name, r.severity, r.description, r.broken(tables, p.problem), tolerance.get(r.name, 0)) for r in RULES
    ]


def check(tables: Tables, p: Params) -> dict[str, Any]:
    """Return the validation report; the index of each table must be unique.

    If a column is absent or has another type, the rules between columns and tables are not run, and the report lists
    them. Raises ParamsInvalid if `validate` in params.yaml names an unknown table, column or rule.
    """
    verify_names(p)
    sound = is_sound(tables)
    outcomes = structure(tables, p) + (apply_rules(tables, p) if sound else [])
    return {
        "failed": sum(outcome.status == "fail" for outcome in outcomes),
        "warnings": sum(outcome.status == "warn" for outcome in outcomes),
        "not_run": [] if sound else [rule.name for rule in RULES],
        "repairs": repairs(tables, outcomes),
        "rows": {table: len(tables[table]) for table in COLUMNS},
        "rules": [outcome.to_json(tables) for outcome in outcomes],
    }


def enforce(report: dict[str, Any]) -> None:
    """Raise DataInvalid if the report has a failed rule."""
    failed = [rule for rule in report["rules"] if rule["status"] == "fail"]
    if failed:
        found = "; ".join(
            f"{rule['name']} ({rule['violating']} of {rule['checked']}, at most {rule['tolerance']} allowed"
            + "".join(f", for example {key}" for key in rule["sample"][:1])
            + ")"
            for rule in failed
        )
        raise DataInvalid(
            f"the raw data violates {len(failed)} rule(s): {found}. See reports/validation.json. Restore the data with "
            "`make data`; if the new data is correct, adjust the bounds under `validate` in params.yaml."
        )
