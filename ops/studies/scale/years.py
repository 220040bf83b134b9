"""Make raw tables of several years from the pinned one: each further year is an addition, of days drawn from it.

A date gets the rows of a day of the pinned year with the same month, weekday and number of hours, so that the days on
which the clocks change come from such days. The rows that `validate` repairs are left out.
"""

from __future__ import annotations

import os
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyarrow import parquet
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.scalarstring import SingleQuotedScalarString

from stages import params
from stages.base.paths import sha256
from stages.interface import TABLES
from stages.problem_kit.columns import kind
from stages.problem_kit.params import ADDED, PARAMS_FILE
from stages.problem_kit.rules import Tables
from stages.tables import checks
from stages.tables.fetch import DATA_DIR
from stages.tables.read import read_csv

LOCAL = "America/New_York"  # the zone of the dates; columns of times are in UTC
DATE = ["year", "month", "day"]
DATED = [table for table, columns in TABLES.items() if columns.keys() >= set(DATE)]
SEED = 42
TEST_SHARE = 1 / 6
FOLD_MONTHS = 4
"""With more years than one; the fits then go through a training row about as often as those of the pinned year do."""


def calendar(year: int) -> pd.DataFrame:
    """Return the days of a year: date, midnight in UTC, and the key for the draw."""
    days = pd.Series(pd.date_range(f"{year}-01-01", f"{year + 1}-01-01"))
    frame = pd.DataFrame({"date": days, "midnight": days.dt.tz_localize(LOCAL).dt.tz_convert("UTC").dt.as_unit("us")})
    hours = frame["midnight"].shift(-1) - frame["midnight"]
    return frame.assign(key=list(zip(days.dt.month, days.dt.weekday, hours, strict=True)))[:-1]


def draw_days(year: int, source: int) -> pd.DataFrame:
    """Return for each date of a year the one whose rows it gets, and the difference of their midnights.

    The days with a key are used equally often, in seeded order.
    """
    rng = np.random.default_rng((SEED, year))
    known, drawn = calendar(source), calendar(year)
    for key, days in drawn.groupby("key"):
        order = rng.permutation(known.index[known["key"] == key])
        drawn.loc[days.index, "place"] = np.resize(order, len(days))
    origin = known.loc[drawn["place"]].reset_index(drop=True)
    return pd.DataFrame(
        {"date": drawn["date"], "source": origin["date"], "later": drawn["midnight"] - origin["midnight"]}
    )


def redate(frame: pd.DataFrame, table: str, drawn: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a table that the drawn dates get."""
    whole = drawn.merge(frame.assign(source=pd.to_datetime(frame[DATE])), on="source")
    moved: dict[str, Any] = {part: getattr(whole["date"].dt, part).astype("int64") for part in DATE}
    times = [name for name, column in TABLES[table].items() if kind(column) == "time"]
    moved |= {name: whole[name] + whole["later"] for name in times}
    return whole.assign(**moved)[list(TABLES[table])]


def sound(data: Path, file: Path) -> Tables:
    """Return the pinned tables without the rows that `validate` repairs."""
    tables = {table: read_csv(data / f"{table}.csv", table) for table in TABLES}
    for repair in checks.check_tables(tables, params.load(file))["repairs"]:
        frame = tables[repair["table"]]
        named = frame[[*repair["key"]]].astype(str).eq(pd.Series(repair["key"])).all(axis=1)
        tables[repair["table"]] = frame[~named]
    return tables


def make_years(pool: Path, number: int, data: Path, file: Path = PARAMS_FILE) -> None:
    """Complete a folder to `number` years after the pinned one, each a folder 0001, 0002, …"""
    absent = [i for i in range(1, number + 1) if not (pool / f"{i:04d}").exists()]
    if not absent:
        return
    tables, first = sound(data, file), params.load(file).problem.first_date.year
    for i in absent:
        drawn = draw_days(first + i, first)
        unfinished = pool / ".unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        for table in DATED:
            redate(tables[table], table, drawn).to_parquet(unfinished / f"{table}.parquet", index=False)
        unfinished.rename(pool / f"{i:04d}")


def install_years(pool: Path, number: int, data: Path, clone: Path, more: dict[str, Any]) -> int:
    """Link `number` years into a clone as data/ and write its parameters, with the keys of `more`.

    The pool and the clone must be in one file system. Returns the number of rows of the first table of TABLES.
    """
    target = clone / DATA_DIR
    target.mkdir()
    for table in TABLES:
        shutil.copy(data / f"{table}.csv", target)
    for i in range(1, number):
        shutil.copytree(pool / f"{i:04d}", target / ADDED / f"{i:04d}", copy_function=os.link)
    rows = {table: len(read_csv(target / f"{table}.csv", table)) for table in DATED}
    added = sorted(target.glob(f"{ADDED}/*/*.parquet"))
    for path in added:
        rows[path.stem] += parquet.read_metadata(path).num_rows
    digests = {str(path.relative_to(target / ADDED)): sha256(path) for path in added}
    change_params(clone / PARAMS_FILE, number, rows, digests, more)
    return rows[next(iter(TABLES))]


def change_params(file: Path, number: int, rows: dict[str, int], digests: dict[str, str], more: dict[str, Any]) -> None:
    """Write the parameters of `number` years: digests, numbers of rows, last date, periods, folds, and `more` keys."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    content = yaml.load(file)
    problem = content["problem"]
    first = date.fromisoformat(problem["first_date"])
    days = pd.date_range(first, date(first.year + number - 1, 12, 31))
    test = len(days) - round(len(days) * TEST_SHARE)
    content["data"]["added"] = CommentedMap(digests)
    for table, found in rows.items():
        content["validate"]["rows"][table][:] = [found, found]
    problem.pop("gaps", None)
    problem["last_date"] = SingleQuotedScalarString(days[-1].date())
    problem["years"][1] = max(problem["years"][1], days[-1].year + 1)
    for name, period in (("train", days[:test]), ("test", days[test:])):
        content["featurize"][name][:] = [
            SingleQuotedScalarString(period[0].date()),
            SingleQuotedScalarString(period[-1].date()),
        ]
    if number > 1:
        content["train"]["fold_months"] = FOLD_MONTHS
    content.update(more)
    yaml.dump(content, file)
