"""The raw tables by month: no row is lost or moved, neighbouring days are there, and a repair concerns one row."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from stages import params
from stages.base.errors import DataInvalid
from stages.params import Params
from stages.problem.rows import labelled_rows
from stages.problem_kit.params import ADDED
from stages.problem_kit.rules import Tables
from stages.tables import checks, partitions, repairs
from stages.tables.read import load_tables
from tests.conftest import ROOT

EVERY = 40
MONTHS = [1, 10, 11, 12, *range(2, 10)]


@pytest.fixture(scope="module", name="p")
def real_params() -> Params:
    """The parameters of the project."""
    return params.load(ROOT / "params.yaml")


@pytest.fixture(scope="module", name="cut")
def few_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tables with a part of the flights."""
    folder = tmp_path_factory.mktemp("cut") / "data"
    shutil.copytree(ROOT / "data", folder, ignore=shutil.ignore_patterns(ADDED))
    header, *rows = (folder / "flights.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "flights.csv").write_text(header + "".join(rows[::EVERY]), encoding="utf-8")
    return folder


@pytest.fixture(name="folder")
def own_folder(cut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of those tables, which is the present folder's data."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(cut, tmp_path / "data"))


def same(found: Tables, expected: Tables) -> None:
    """Compare tables; the weather, which is in the order of its stations, is put into that of its months."""
    assert found.keys() == expected.keys()
    for name, frame in expected.items():
        pd.testing.assert_frame_equal(found[name], by_month(frame) if name == "weather" else frame)


def by_month(weather: pd.DataFrame) -> pd.DataFrame:
    """Return weather in the order of the months of the flights, and of its stations within them."""
    order = weather["month"].map({month: i for i, month in enumerate(MONTHS)})
    return weather.iloc[order.argsort(kind="stable")].reset_index(drop=True)


def test_the_months_together_are_the_whole_tables(folder: Path, p: Params) -> None:
    store = partitions.write(folder, p.problem, "month")
    assert [one.name for one in store.partitions] == [f"2013-{month:02d}" for month in MONTHS]
    tables, whole = load_tables(folder), store.whole()
    same(whole, tables)
    assert labelled_rows(whole, p.problem).key.tolist() == labelled_rows(tables, p.problem).key.tolist()
    same(partitions.written(p.problem).whole(), tables)
    for name, frame in partitions.write(folder, p.problem, "all").whole().items():
        pd.testing.assert_frame_equal(frame, tables[name])


def test_rows_without_a_day_are_in_the_first_partition(folder: Path, p: Params) -> None:
    weather = pd.read_csv(folder / "weather.csv", dtype=str, keep_default_na=False)
    weather.loc[100, "day"], weather.loc[20_000, "year"] = "31", "2019"
    weather.loc[20_001, "month"], weather.loc[20_001, "day"] = "2", "30"
    weather.to_csv(folder / "weather.csv", index=False)
    store = partitions.write(folder, p.problem, "month")
    parts = [store.own(partition)["weather"] for partition in store.partitions]
    assert sum(map(len, parts)) == len(weather)
    assert (parts[0]["year"] == 2019).sum() == 1 and (parts[0]["month"] == 2).sum() == 1
    assert all((part["year"] == 2013).all() for part in parts[1:])


def test_month_without_rows_has_a_file(folder: Path, p: Params) -> None:
    flights = pd.read_csv(folder / "flights.csv", dtype=str, keep_default_na=False)
    flights[flights["month"] != "7"].to_csv(folder / "flights.csv", index=False)
    store = partitions.write(folder, p.problem, "month")
    july = next(one for one in store.partitions if one.name == "2013-07")
    assert len(store.own(july)["flights"]) == 0 and len(store.own(july)["weather"]) > 2000
    report = checks.check_tables(store, p)
    assert next(rule for rule in report["rules"] if rule["name"] == "flights.every_day")["violating"] == 31


def test_addition_replaces_rows_in_their_place(folder: Path, p: Params) -> None:
    flights = load_tables(folder)["flights"]
    newer = flights.iloc[[5, 3000]].assign(dep_delay=777.0)
    (folder / ADDED / "0001").mkdir(parents=True)
    newer.to_parquet(folder / ADDED / "0001/flights.parquet", index=False)
    found = partitions.write(folder, p.problem, "month").whole()["flights"]
    pd.testing.assert_frame_equal(found, load_tables(folder)["flights"])
    assert found["dep_delay"].eq(777).sum() == 2 and len(found) == len(flights)


def test_days_around_a_month_are_before_and_after(folder: Path, p: Params) -> None:
    store = partitions.write(folder, p.problem, "month")
    march = next(one for one in store.partitions if one.name == "2013-03")
    near, own = store.around(march, 2)["weather"], store.own(march)["weather"]
    days = pd.to_datetime(near[["year", "month", "day"]]).dt.date
    assert (days.min(), days.max()) == (date(2013, 2, 27), date(2013, 4, 2))
    pd.testing.assert_frame_equal(near.loc[own.index], own)
    assert store.around(march, 2)["planes"] is store.undated["planes"]


def test_incomplete_tables_are_named_with_the_command(folder: Path, p: Params) -> None:
    partitions.write(folder, p.problem, "month")
    later = p.problem.model_copy(update={"last_date": date(2014, 1, 31)})
    with pytest.raises(DataInvalid, match="build/tables is not complete. `dvc repro validate` makes it."):
        partitions.written(later)
    next((partitions.TABLES_DIR / "weather").glob("*-2013-05.parquet")).unlink()
    with pytest.raises(DataInvalid, match="build/tables is not complete. `dvc repro validate` makes it."):
        partitions.written(p.problem)


def test_repair_must_fit_exactly_one_row(folder: Path, p: Params) -> None:
    store = partitions.write(folder, p.problem, "month")
    before = by_month(load_tables(folder)["weather"])
    row = before.iloc[20_000]
    key = {"origin": row["origin"], "time_hour": str(row["time_hour"])}
    item = {"rule": "weather.temp_jump", "table": "weather", "action": "null", "column": "temp", "key": key}
    repairs.repair_all(store, [item])
    after = partitions.written(p.problem).whole()["weather"]
    pd.testing.assert_frame_equal(after, before.assign(temp=before["temp"].mask(before.index == 20_000)))
    for wrong, count in (({"year": "1999"}, 0), ({"time_hour": str(row["time_hour"])}, 3)):
        with pytest.raises(DataInvalid, match=f"is that of {count} rows, and weather.temp_jump can repair one only"):
            repairs.repair_all(partitions.written(p.problem), [item | {"key": wrong}])
