"""Check the raw tables against the rules, partition by partition; report violations and repairs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pandas as pd
from pandera.errors import SchemaErrors

from stages.base.errors import DataInvalid, ParamsInvalid
from stages.interface import KEYS, REPAIRS, RULES, TABLES
from stages.params import Params
from stages.problem_kit.columns import schema, spare
from stages.problem_kit.rules import Flags, Rule, Severity, Tables
from stages.tables.partitions import Partition, Store, split

SAMPLE = 5
Status = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class RuleResult:
    """The result of a rule on some tables: one flag per checked row, True for a violation."""

    name: str
    severity: Severity
    description: str
    broken: Flags
    most: float
    """The tolerance: a number of violations, or with `share` a share of the rows: no single row is a violation."""
    share: bool = False
    unsound: bool = False
    """Whether a column is absent or has another type: the rules between columns cannot run."""

    @property
    def table(self) -> str:
        """Return the table that the rule belongs to."""
        return self.name.split(".", maxsplit=1)[0]

    @property
    def violating(self) -> int:
        """Return the number of violations."""
        return int(self.broken.sum())

    @property
    def of_rows(self) -> bool:
        """Return whether the flags are of the table's rows, rather than of days, columns or other objects."""
        return None in self.broken.index.names

    def tolerance(self, checked: int) -> int:
        """Return the number of violations that are tolerated among the checked rows."""
        return int(self.most * checked) if self.share else int(self.most)

    @property
    def status(self) -> Status:
        """Return the status of the rule on these tables alone."""
        return self.status_of(self.violating, len(self.broken))

    def status_of(self, violating: int, checked: int) -> Status:
        """Return `pass` for violations within the tolerance, else `warn` or `fail` by severity."""
        if violating <= self.tolerance(checked):
            return "pass"
        return "fail" if self.severity == "error" else "warn"

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

    rule: RuleResult
    checked: int = 0
    violating: int = 0
    keys: list[dict[str, str]] = field(default_factory=list)
    """The first violations: enough for the report and for repairs."""

    @property
    def status(self) -> Status:
        """Return the status of the rule on all partitions."""
        return self.rule.status_of(self.violating, self.checked)

    def add(self, outcome: RuleResult, tables: Tables) -> None:
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
            "tolerance": self.rule.tolerance(self.checked),
            "status": self.status,
            "sample": [" ".join(f"{name}={value}" for name, value in key.items()) for key in self.keys[:SAMPLE]],
        }


def verify_names(p: Params) -> None:
    """Raise ParamsInvalid if `validate` in params.yaml names an unknown table, column or rule."""
    columns = {f"{table}.{column}" for table, names in TABLES.items() for column in names}
    rules = columns | {r.name for r in RULES}  # {table}.rows and {table}.columns tolerate nothing
    for key, names, known in (
        ("tolerance", p.validate_.tolerance, rules),
        ("missing_share", p.validate_.missing_share, columns),
        ("rows", p.validate_.rows, set(TABLES)),
    ):
        unknown = sorted(set(names) - known)
        if unknown:
            raise ParamsInvalid(
                f"params.yaml: unknown names under validate.{key}: {', '.join(unknown)}. "
                "stages/problem defines the tables, columns and rules."
            )
    absent = sorted(set(TABLES) - set(p.validate_.rows))
    if absent:
        raise ParamsInvalid(
            f"params.yaml: validate.rows lacks {', '.join(absent)}: add the minimum and maximum number of rows."
        )


def row_count(rows: int, table: str, p: Params) -> RuleResult:
    """Check the number of rows."""
    low, high = p.validate_.rows[table]
    flags = pd.Series([not low <= rows <= high], index=pd.Index([rows], name="rows"), dtype=bool)
    return RuleResult(f"{table}.rows", "error", f"There are {low} to {high} rows.", flags, 0)


def column_set(found: Iterable[object], table: str) -> RuleResult:
    """Check that the table has the described columns and no others."""
    present = set(map(str, found))
    names = sorted({*TABLES[table], *present})
    flags = [(name in TABLES[table]) != (name in present) for name in names]
    index = pd.Index(names, name="column")
    return RuleResult(f"{table}.columns", "error", "The columns are those described.", pd.Series(flags, index), 0)


def missing_values(frame: pd.DataFrame, table: str, p: Params) -> list[RuleResult]:
    """Check the share of missing values in the columns that may have them."""
    outcomes = []
    for column, described in TABLES[table].items():
        share = p.validate_.missing_share.get(f"{table}.{column}", 0.0 if spare(described) else None)
        if share is not None and column in frame:
            severity: Severity = "warning" if spare(described) else "error"
            description = f"At most {share:.1%} of the values are missing."
            missing = frame[column].isna()
            outcomes.append(RuleResult(f"{table}.{column}.missing", severity, description, missing, share, share=True))
    return outcomes


def column_values(frame: pd.DataFrame, table: str, p: Params) -> list[RuleResult]:
    """Check each column against its schema; if it is absent or has another type, every row is a violation."""
    cases = pd.DataFrame(columns=["column", "index"])
    try:
        schema(table, TABLES[table], p.validate_.missing_share).validate(frame, lazy=True)
    except SchemaErrors as err:
        cases = err.failure_cases
    outcomes = []
    for column, described in TABLES[table].items():
        rows = cases.loc[cases["column"] == column, "index"]
        unsound = column not in frame or bool(rows.isna().any())  # without a row, a case concerns the whole column
        flags = pd.Series(frame.index.isin(rows) | unsound, index=frame.index)
        name = f"{table}.{column}"
        most = p.validate_.tolerance.get(name, 0)
        outcomes.append(RuleResult(name, "error", str(described.description), flags, most, unsound=unsound))
    return outcomes


def contents(frame: pd.DataFrame, table: str, p: Params) -> list[RuleResult]:
    """Check the values of a table, column by column."""
    return [*column_values(frame, table, p), *missing_values(frame, table, p)]


def apply_rule(rule: Rule, tables: Tables, p: Params) -> RuleResult:
    """Return the result of a rule between columns, rows and tables, whose columns must have their types."""
    broken = rule.broken(tables, p.problem)
    return RuleResult(rule.name, rule.severity, rule.description, broken, p.validate_.tolerance.get(rule.name, 0))


def check_whole(tables: Tables, p: Params) -> list[RuleResult]:
    """Return the results of all rules on whole tables, without those between columns if a column is not sound."""
    outcomes = []
    for table in TABLES:
        frame = tables[table]
        outcomes += [row_count(len(frame), table, p), column_set(frame, table), *contents(frame, table, p)]
    if not any(outcome.unsound for outcome in outcomes):
        outcomes += [apply_rule(rule, tables_for(rule, tables), p) for rule in RULES]
    return outcomes


def tables_for(rule: Rule, tables: Tables) -> Tables:
    """Return the input of a rule from whole tables."""
    return tables | {rule.table: combinations(rule, [tables[rule.table]])} if rule.across else tables


def combinations(rule: Rule, parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Return each combination of the columns of a rule, with the number of its `rows`."""
    columns = [*rule.across]
    counted = [part if "rows" in part else part[columns].assign(rows=1) for part in parts]
    return pd.concat(counted).groupby(columns, dropna=False, as_index=False)["rows"].sum()


class TableChecks:
    """The check of tables by partition."""

    def __init__(self, store: Store, p: Params) -> None:
        self.store, self.p = store, p
        self.sound = True
        self.rows = dict.fromkeys(TABLES, 0)
        self._tallies: dict[str, Tally] = {}
        self._columns: dict[str, set[str]] = {table: set() for table in TABLES}
        self._combinations: dict[str, pd.DataFrame] = {}

    def run(self) -> list[Tally]:
        """Return the results in the order of tables and rules; without rules if a column is not sound."""
        tables = list(TABLES)
        for partition, own, near in self.store.each(max((rule.reach for rule in RULES), default=0)):
            self._check_columns(tables, own)
            self._check_rules(partition, own, near)
            tables = self.store.dated  # the others are the same in each partition
        for table in TABLES:
            self._add(row_count(self.rows[table], table, self.p), {})
            self._add(column_set(self._columns[table], table), {})
        for rule in RULES if self.sound else ():
            if rule.across:
                whole = self.store.undated | {rule.table: self._combinations[rule.name]}
                self._add(apply_rule(rule, whole, self.p), whole)
            elif rule.table in self.store.undated:
                self._add(apply_rule(rule, self.store.undated, self.p), self.store.undated)
        names = []
        for table, columns in TABLES.items():
            names += [f"{table}.rows", f"{table}.columns"]
            names += [f"{table}.{column}{kind}" for kind in ("", ".missing") for column in columns]
        names += [rule.name for rule in RULES if self.sound]
        return [self._tallies[name] for name in names if name in self._tallies]

    def _add(self, outcome: RuleResult, tables: Tables) -> None:
        self._tallies.setdefault(outcome.name, Tally(outcome)).add(outcome, tables)

    def _check_columns(self, tables: list[str], own: Tables) -> None:
        for table in tables:
            self.rows[table] += len(own[table])
            self._columns[table] |= set(own[table].columns)
            for outcome in contents(own[table], table, self.p):
                self.sound = self.sound and not outcome.unsound
                self._add(outcome, own)

    def _check_rules(self, partition: Partition, own: Tables, near: Tables) -> None:
        local = self.p.model_copy(update={"problem": partition.only(self.p.problem)})
        for rule in RULES if self.sound else ():
            if rule.across:
                known = self._combinations.get(rule.name, own[rule.table].iloc[:0])
                self._combinations[rule.name] = combinations(rule, [known, own[rule.table]])
            elif rule.reach and len(self.store.partitions) > 1:
                outcome = apply_rule(rule, near, local)
                inside = outcome.broken.index.isin(own[rule.table].index)
                self._add(replace(outcome, broken=outcome.broken[inside]), own)
            elif rule.table in self.store.dated:
                self._add(apply_rule(rule, own, local), own)


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


def check_tables(tables: Store | Tables, p: Params) -> dict[str, Any]:
    """Return the validation report of tables, whole or by partition; the index of each table must be unique.

    If a column is absent or has another type, the rules between columns and tables are not run, and the report lists
    them. Raises ParamsInvalid if `validate` in params.yaml names an unknown table, column or rule.
    """
    verify_names(p)
    run = TableChecks(tables if isinstance(tables, Store) else split(tables, p.problem), p)
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
