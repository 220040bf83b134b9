"""Check the raw tables against the rules, partition by partition; report violations and repairs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pandas as pd
from pandera.errors import SchemaError, SchemaErrors

from stages.columns import schema, spare, types
from stages.errors import DataInvalid, ParamsInvalid
from stages.interface import COLUMNS, KEYS, REPAIRS, RULES
from stages.params import Params
from stages.partitions import Partition, Store, split
from stages.rules import Flags, Rule, Severity, Tables

SAMPLE = 5
STATUS: dict[Severity, Literal["fail", "warn"]] = {"error": "fail", "warning": "warn"}


@dataclass(frozen=True)
class Outcome:
    """The result of a rule on some tables: one flag per checked row, True for a violation."""

    name: str
    severity: Severity
    description: str
    broken: Flags
    most: float
    """The tolerance: a number of violations, or with `share` a share of the rows: no single row is a violation."""
    share: bool = False

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
        return Tally(self, len(self.broken), self.violating).status

    @property
    def of_rows(self) -> bool:
        """Return whether the flags are of the table's rows, rather than of days, columns or other objects."""
        return None in self.broken.index.names

    def keys(self, tables: Tables, most: int | None = None) -> list[dict[str, str]]:
        """Return the keys of violations, at most `most`, as text, as `repair` matches them."""
        where = self.broken.index[self.broken.to_numpy(dtype=bool)][:most]
        if self.of_rows:  # rows of the table, which may lack a column of its key
            rows = tables[self.table].loc[where].reindex(columns=KEYS[self.table])
        else:
            rows = where.to_frame(index=False)
        return [{str(name): str(value) for name, value in row.items()} for row in rows.astype(str).to_dict("records")]


@dataclass
class Tally:
    """The results of a rule on all partitions."""

    rule: Outcome
    checked: int = 0
    violating: int = 0
    keys: list[dict[str, str]] = field(default_factory=list)
    """Of the first violations: those of the report, and as many as can be repaired."""

    @property
    def tolerance(self) -> int:
        """Return the number of violations that are tolerated."""
        return int(self.rule.most * self.checked) if self.rule.share else int(self.rule.most)

    @property
    def status(self) -> Literal["pass", "warn", "fail"]:
        """Return `pass` if the violations are within the tolerance, else `warn` or `fail` by severity."""
        return STATUS[self.rule.severity] if self.violating > self.tolerance else "pass"

    def add(self, outcome: Outcome, tables: Tables) -> None:
        """Add the result on a partition, whose tables have the keys."""
        self.checked += len(outcome.broken)
        self.violating += outcome.violating
        wanted = SAMPLE if outcome.share else max(SAMPLE, int(outcome.most))
        if outcome.violating and len(self.keys) < wanted:
            self.keys += outcome.keys(tables, wanted - len(self.keys))

    def to_json(self) -> dict[str, Any]:
        """Return the rule's part of the report."""
        return {
            "name": self.rule.name,
            "table": self.rule.table,
            "severity": self.rule.severity,
            "description": self.rule.description,
            "checked": self.checked,
            "violating": self.violating,
            "tolerance": self.tolerance,
            "status": self.status,
            "sample": [" ".join(f"{k}={v}" for k, v in key.items()) for key in self.keys[:SAMPLE]],
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


def row_count(rows: int, table: str, p: Params) -> Outcome:
    """Check the number of rows."""
    low, high = p.validate_.rows[table]
    flags = pd.Series([not low <= rows <= high], index=pd.Index([rows], name="rows"), dtype=bool)
    return Outcome(f"{table}.rows", "error", f"There are {low} to {high} rows.", flags, 0)


def column_set(found: Iterable[object], table: str) -> Outcome:
    """Check that the table has the described columns and no others."""
    present = set(map(str, found))
    names = sorted({*COLUMNS[table], *present})
    flags = [(name in COLUMNS[table]) != (name in present) for name in names]
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
            shares[column],
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


def contents(frame: pd.DataFrame, table: str, p: Params) -> list[Outcome]:
    """Check the values of a table, column by column."""
    return [*column_values(frame, table, p), *missing_values(frame, table, p)]


def structure(tables: Tables, p: Params) -> list[Outcome]:
    """Check the rows and columns of each table."""
    outcomes = []
    for table, frame in ((table, tables[table]) for table in COLUMNS):
        outcomes += [row_count(len(frame), table, p), column_set(frame, table), *contents(frame, table, p)]
    return outcomes


def is_sound(tables: Tables) -> bool:
    """Return whether every column exists with its type, which the rules between columns require."""
    try:
        for table, described in COLUMNS.items():
            types(table, described).validate(tables[table])
    except SchemaError:
        return False
    return True


def apply_rule(rule: Rule, tables: Tables, p: Params) -> Outcome:
    """Return the result of a rule between columns, rows and tables, which must be sound."""
    broken = rule.broken(tables, p.problem)
    return Outcome(rule.name, rule.severity, rule.description, broken, p.validate_.tolerance.get(rule.name, 0))


def apply_rules(tables: Tables, p: Params) -> list[Outcome]:
    """Return the results of all rules on whole tables."""
    return [apply_rule(rule, tables_for(rule, tables), p) for rule in RULES]


def tables_for(rule: Rule, tables: Tables) -> Tables:
    """Return what a rule gets of whole tables."""
    return tables | {rule.table: combinations(rule, [tables[rule.table]])} if rule.across else tables


def combinations(rule: Rule, parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Return each combination of the columns of a rule, with the number of its `rows`."""
    columns = [*rule.across]
    counted = [part if "rows" in part else part[columns].assign(rows=1) for part in parts]
    return pd.concat(counted).groupby(columns, dropna=False, as_index=False)["rows"].sum()


class Check:
    """The check of tables by partition."""

    def __init__(self, store: Store, p: Params) -> None:
        self.store, self.p = store, p
        self.sound = True
        self.tallies: dict[str, Tally] = {}
        self.rows = dict.fromkeys(COLUMNS, 0)
        self._columns: dict[str, set[str]] = {table: set() for table in COLUMNS}
        self._combinations: dict[str, pd.DataFrame] = {}

    def run(self) -> list[Tally]:
        """Return the results in the order of tables and rules; without those of the rules if a column is not sound."""
        for partition in self.store.partitions:
            self._partition(partition)
        for table in COLUMNS:
            self._add(row_count(self.rows[table], table, self.p), {})
            self._add(column_set(self._columns[table], table), {})
        for rule in RULES if self.sound else ():
            if rule.across or rule.table in self.store.undated:
                tables = self.store.undated | ({rule.table: self._combinations[rule.name]} if rule.across else {})
                self._add(apply_rule(rule, tables, self.p), tables)
        names = [name for table in COLUMNS for name in _names(table)]
        names += [rule.name for rule in RULES if self.sound]
        return [self.tallies[name] for name in names if name in self.tallies]

    def _add(self, outcome: Outcome, tables: Tables) -> None:
        self.tallies.setdefault(outcome.name, Tally(outcome)).add(outcome, tables)

    def _partition(self, partition: Partition) -> None:
        own = self.store.own(partition)
        for table in COLUMNS if partition == self.store.partitions[0] else self.store.dated:
            self.rows[table] += len(own[table])
            self._columns[table] |= set(own[table].columns)
            for outcome in contents(own[table], table, self.p):
                self._add(outcome, own)
        self.sound = self.sound and is_sound(own)
        local = self.p.model_copy(update={"problem": partition.only(self.p.problem)})
        for rule in RULES if self.sound else ():
            if rule.across:
                known = self._combinations.get(rule.name, own[rule.table].iloc[:0])
                self._combinations[rule.name] = combinations(rule, [known, own[rule.table]])
            elif rule.reach and len(self.store.partitions) > 1:
                outcome = apply_rule(rule, self.store.around(partition, rule.reach), local)
                inside = outcome.broken.index.isin(own[rule.table].index)
                self._add(replace(outcome, broken=outcome.broken[inside]), own)
            elif rule.table in self.store.dated:
                self._add(apply_rule(rule, own, local), own)


def _names(table: str) -> list[str]:
    values = [f"{table}.{column}{kind}" for kind in ("", ".missing") for column in COLUMNS[table]]
    return [f"{table}.rows", f"{table}.columns", *values]


def repairs(tallies: Iterable[Tally]) -> list[dict[str, Any]]:
    """Return the distinct repairs of rows that violate a rule within its tolerance."""
    found: list[dict[str, Any]] = []
    for tally in tallies:
        if tally.rule.name in REPAIRS and tally.status == "pass":
            for key in tally.keys[: tally.violating]:
                repair = {"table": tally.rule.table, "key": key, **REPAIRS[tally.rule.name]}
                if not any(repair.items() <= earlier.items() for earlier in found):
                    found.append({"rule": tally.rule.name, **repair})
    return found


def check(tables: Store | Tables, p: Params) -> dict[str, Any]:
    """Return the validation report of tables, whole or by partition; the index of each table must be unique.

    If a column is absent or has another type, the rules between columns and tables are not run, and the report lists
    them. Raises ParamsInvalid if `validate` in params.yaml names an unknown table, column or rule.
    """
    verify_names(p)
    run = Check(tables if isinstance(tables, Store) else split(tables, p.problem), p)
    tallies = run.run()
    return {
        "failed": sum(tally.status == "fail" for tally in tallies),
        "warnings": sum(tally.status == "warn" for tally in tallies),
        "not_run": [] if run.sound else [rule.name for rule in RULES],
        "repairs": repairs(tallies),
        "rows": run.rows,
        "rules": [tally.to_json() for tally in tallies],
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
