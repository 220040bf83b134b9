"""Judge new rows by the rules of the whole: which are added, which are corrections, known, or quarantined."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from app.problem_kit.features import day_number
from ops.data.incoming import Incoming
from stages import interface
from stages.base.errors import DataInvalid
from stages.interface import KEYS, TABLES
from stages.params import Params
from stages.problem_kit.columns import kind
from stages.problem_kit.params import Coverage
from stages.problem_kit.rows import day_of
from stages.problem_kit.rules import Tables
from stages.tables import checks
from stages.tables.read import absorb


@dataclass
class Arrival:
    """The new rows of a table; `typed` shrinks to those that are added, new ones and corrections."""

    raw: pd.DataFrame
    """All rows, with the columns `file` and `row` (from 1) before the columns of the table."""
    typed: pd.DataFrame
    rule: pd.Series
    """The first rule that a row breaks; missing for others."""
    repeated: int = 0
    known: int = 0
    corrected: dict[Any, str] = field(default_factory=dict)
    """What changes, by the position of a row that corrects a known one."""

    @property
    def corrections(self) -> list[str]:
        """Return what changes in known rows."""
        return list(self.corrected.values())

    @property
    def quarantined(self) -> pd.DataFrame:
        """Return the rows that break a rule, as they were in the file."""
        found = self.rule.dropna()
        return pd.concat([found.rename("rule"), self.raw.loc[found.index]], axis=1)

    @property
    def new(self) -> int:
        """Return the number of rows with a new key."""
        return len(self.typed) - len(self.corrections)

    def quarantine(self, broken: pd.Index, rule: str) -> None:
        """Move rows out of `typed`."""
        if broken.empty:
            return
        self.rule.loc[broken] = rule
        self.typed = self.typed.drop(index=broken)
        self.corrected = {row: change for row, change in self.corrected.items() if row not in broken}


@dataclass(frozen=True)
class Judgement:
    """What is added, and the parameters that belong to it."""

    arrivals: dict[str, Arrival]
    p: Params
    warnings: dict[str, str]

    @property
    def changes(self) -> bool:
        """Return whether there are rows to add."""
        return any(len(arrival.typed) for arrival in self.arrivals.values())


def gather(files: list[Incoming]) -> dict[str, Arrival]:
    """Return the rows of the files by table, without exact repetitions; rows that contradict each other are broken."""
    arrivals = {}
    for table in (table for table in TABLES if any(file.table == table for file in files)):
        own = [file for file in files if file.table == table]
        starts = np.cumsum([0, *(len(file.raw) for file in own)])[:-1]
        raw = pd.concat([file.raw.assign(file=file.name, row=file.raw.index + 1) for file in own], ignore_index=True)
        typed, rule = (
            pd.concat([part.set_axis(part.index + start) for part, start in zip(parts, starts, strict=True)])
            for parts in ([file.typed for file in own], [file.mistyped for file in own])
        )
        single = typed[~typed.duplicated()]
        arrival = Arrival(
            raw[["file", "row", *TABLES[table]]], single, rule.reindex(raw.index), len(typed) - len(single)
        )
        arrival.quarantine(single.index[single.duplicated(KEYS[table], keep=False)], f"{table}.key")
        arrivals[table] = arrival
    return arrivals


def compare_with_known(
    table: str, known: pd.DataFrame, arrival: Arrival, p: interface.Params, corrects: bool = True
) -> None:
    """Drop the rows that are known from an arrival, and list those that correct a known one.

    Unless it `corrects`, a row with a known key is known, whatever its other values. A correction that moves its row to
    another day is quarantined: by partitions, the row would then be in both days.
    """
    keys = KEYS[table]
    _, place = absorb([known, arrival.typed], keys)
    found = place[len(known) :]
    old = found < len(known)
    index = arrival.typed.index[old]
    before, after = known.iloc[found[old]].reset_index(drop=True), arrival.typed[old].reset_index(drop=True)
    differs = pd.DataFrame({name: ~_equal(before[name], after[name]) for name in after}, index=after.index)
    differs &= corrects
    for i in np.flatnonzero(differs.any(axis=1)):
        key = " ".join(f"{name}={after.loc[i, name]}" for name in keys)
        changes = ", ".join(f"{c} {before.loc[i, c]} -> {after.loc[i, c]}" for c in differs.columns[differs.loc[i]])
        arrival.corrected[index[i]] = f"{key}: {changes}"
    corrected = differs.any(axis=1).to_numpy()
    arrival.known = int((~corrected).sum())
    arrival.typed = arrival.typed.drop(index=index[~corrected])
    old_days, new_days = interface.days(table, before, p), interface.days(table, after, p)
    if old_days is not None and new_days is not None:
        arrival.quarantine(index[corrected & (old_days != new_days).to_numpy()], f"{table}.day")


def _equal(a: pd.Series, b: pd.Series) -> pd.Series:
    same = pd.Series(np.isclose(a, b, rtol=1e-9, atol=0)) if a.dtype == "float64" else a == b
    return same | (a.isna() & b.isna())


def extended(coverage: Coverage, days: npt.NDArray[np.int64], stray: float) -> Coverage:
    """Return the coverage with the days of new rows, shape (n,).

    A share `stray` of the rows at either end counts only on days adjacent to the other rows.
    """
    before = {day_number(day) for day in coverage.days()}
    fresh = np.sort(days[(days > day_number(coverage.first_date)) & ~np.isin(days, list(before))])
    if not fresh.size:
        return coverage
    low, high = (int(np.quantile(fresh, share, method="nearest")) for share in (stray, 1 - stray))
    present = set(fresh.tolist()) | before
    while low - 1 in present and low - 1 not in before:
        low -= 1
    while high + 1 in present and high + 1 not in before:
        high += 1
    covered = sorted(before | set(range(low, high + 1)))
    gaps = [(day_of(a + 1), day_of(b - 1)) for a, b in zip(covered, covered[1:], strict=False) if b - a > 1]
    return coverage.model_copy(update={"last_date": day_of(covered[-1]), "gaps": gaps})


def day_numbers(table: str, frame: pd.DataFrame, p: interface.Params) -> npt.NDArray[np.int64]:
    """Return the days of the rows that have one, days since 1970-01-01."""
    days = interface.days(table, frame, p)
    return np.array([], dtype=np.int64) if days is None else days.dropna().to_numpy("datetime64[D]").astype(np.int64)


def period(table: str, frame: pd.DataFrame, p: interface.Params) -> list[str]:
    """Return the first and the last day of the rows, ISO 8601; nothing for a table without days or rows."""
    days = day_numbers(table, frame, p)
    return [str(day_of(days.min())), str(day_of(days.max()))] if days.size else []


def parameters(p: Params, arrivals: dict[str, Arrival]) -> Params:
    """Return the parameters with the period and the numbers of rows after the addition."""
    days = [day_numbers(table, arrival.typed, p.problem) for table, arrival in arrivals.items()]
    new = {table: arrival.new for table, arrival in arrivals.items()}
    rows = {
        table: (low + new.get(table, 0), high + new.get(table, 0)) for table, (low, high) in p.validate_.rows.items()
    }
    return p.model_copy(
        update={
            "problem": extended(p.problem, np.concatenate(days), p.growth.max_quarantined),
            "validate_": p.validate_.model_copy(update={"rows": rows}),
        }
    )


def judge_addition(known: Tables, files: list[Incoming], p: Params, corrects: bool = True) -> Judgement:
    """Return the verdict on new rows; raise DataInvalid if a file has too many that break an error rule.

    The rules are checked on the known and the new rows together, as `validate` will check them, and again without the
    rows that break one. Unless the files may correct known rows, these stay as they are.
    """
    arrivals = gather(files)
    for table, arrival in arrivals.items():
        compare_with_known(table, known[table], arrival, p.problem, corrects)
    while True:
        grown = parameters(p, arrivals)
        whole, places = _together(known, arrivals)
        outcomes = checks.check_whole(whole, grown)
        found = _quarantine(outcomes, arrivals, places)
        _refuse_files(arrivals, p.growth.max_quarantined)
        if not found:
            break
    failed = [outcome for outcome in outcomes if outcome.status == "fail"]
    if failed:
        raise DataInvalid(
            "nothing was added: with the new rows, the data break "
            + "; ".join(f"{o.name} ({o.violating} of {len(o.broken)}: {_example(o, whole)})" for o in failed)
            + ". Correct the files; days without rows belong under problem.gaps in params.yaml."
        )
    warnings = _warnings(outcomes, places, whole) | shifts(known, arrivals, p)
    return Judgement(arrivals, grown, warnings)


def _together(known: Tables, arrivals: dict[str, Arrival]) -> tuple[Tables, dict[str, pd.Series]]:
    """Return all rows, and the places of the new ones."""
    whole, places = dict(known), {}
    for table, arrival in arrivals.items():
        whole[table], place = absorb([known[table], arrival.typed], KEYS[table])
        places[table] = pd.Series(place[len(known[table]) :], index=arrival.typed.index)
    return whole, places


def _quarantine(outcomes: list[checks.RuleResult], arrivals: dict[str, Arrival], places: dict[str, pd.Series]) -> int:
    """Move the new rows that break an error rule out of the arrivals; return their number."""
    before = sum(len(arrival.typed) for arrival in arrivals.values())
    for outcome in outcomes:
        if outcome.table in arrivals and outcome.severity == "error" and outcome.of_rows and not outcome.share:
            arrival, place = arrivals[outcome.table], places[outcome.table]
            broken = place.index[outcome.broken.to_numpy(dtype=bool)[place]]
            arrival.quarantine(broken.intersection(arrival.typed.index), outcome.name)
    return before - sum(len(arrival.typed) for arrival in arrivals.values())


def _refuse_files(arrivals: dict[str, Arrival], most: float) -> None:
    refused = []
    for arrival in arrivals.values():
        for name, rule in arrival.rule.groupby(arrival.raw["file"], sort=False):
            if rule.count() > most * len(rule):
                first = arrival.raw["row"][rule.first_valid_index()]
                counts = ", ".join(f"{key} ({n:,})" for key, n in rule.value_counts().items())
                refused.append(f"{name}: {rule.count():,} of {len(rule):,} rows break {counts}, first row {first}")
    if refused:
        raise DataInvalid(
            f"nothing was added: {'; '.join(refused)}. More than {most:.1%} of a file's rows "
            "(growth.max_quarantined in params.yaml) are too many to be isolated errors: fix the source file."
        )


def _example(outcome: checks.RuleResult, tables: Tables) -> str:
    return " ".join(f"{name}={value}" for key in outcome.keys(tables, 1) for name, value in key.items())


def _warnings(outcomes: list[checks.RuleResult], places: dict[str, pd.Series], whole: Tables) -> dict[str, str]:
    """Return the warnings about the new rows by rule."""
    found = {}
    for outcome in outcomes:
        if outcome.severity == "error" or outcome.table not in places or not outcome.violating:
            continue
        # A rule about whole tables cannot name the new rows.
        if not outcome.of_rows:
            found[outcome.name] = f"{outcome.violating:,} in all data, for example {_example(outcome, whole)}"
            continue
        new_rows = places[outcome.table]
        broken = int(outcome.broken.to_numpy(dtype=bool)[new_rows].sum())
        if broken and outcome.status == "warn":
            found[outcome.name] = f"{broken:,} of {len(new_rows):,} rows"
    return found


def shifts(known: Tables, arrivals: dict[str, Arrival], p: Params) -> dict[str, str]:
    """Return the numeric columns whose median in the new rows is far from the median of every known month.

    Another unit or another instrument shows there, within the range that the column allows.
    """
    found = {}
    for table, arrival in arrivals.items():
        days = interface.days(table, known[table], p.problem)
        for name in (name for name, described in TABLES[table].items() if kind(described) == "real"):
            values = known[table][name]
            if days is None or values.isna().all() or arrival.typed[name].isna().all():
                continue
            months = values.groupby(days.dt.to_period("M")).median()
            reach = p.growth.max_shift * float(values.quantile(0.75) - values.quantile(0.25))
            median, low, high = (float(x) for x in (arrival.typed[name].median(), months.min(), months.max()))
            if reach and not low - reach <= median <= high + reach:
                found[f"{table}.{name}.shift"] = f"median {median:g}, {low:g} to {high:g} in the known months"
    return found
