"""`on-time bench scale`: the rules accept the drawn years, memory is that of all processes, a failed stage is told."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from app.interface import EXAMPLE
from ops.studies.scale import scale, years
from ops.studies.speed import memory
from stages import params
from stages.interface import KEYS
from stages.params import Params
from stages.problem_kit.rules import Tables
from stages.tables import checks, fetch
from stages.tables.read import load_tables
from tests.support.repositories.clone import ROOT
from tests.support.repositories.scratch import pin, read_params, write_params

EVERY = 16
MEGABYTE = 10**6
ALLOCATE = f"data = bytearray(b'x') * {200 * MEGABYTE}"


@pytest.fixture(scope="module", name="project")
def two_years(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a part of the flights of the pinned year, the same with one drawn year, and its parameters."""
    path = tmp_path_factory.mktemp("years")
    shutil.copytree(ROOT / "data", path / "data", ignore=shutil.ignore_patterns("added"))
    flights = pd.read_csv(path / "data/flights.csv", dtype=str, keep_default_na=False)
    repaired = flights["hour"].astype(int) < 5
    flights[repaired | (np.arange(len(flights)) % EVERY == 0)].to_csv(path / "data/flights.csv", index=False)
    shutil.copy(ROOT / "params.yaml", path)
    p = read_params(path)
    pin(path, p, "flights")
    p["validate"]["missing_share"] |= {name: 0.1 for name in p["validate"]["missing_share"] if "flights" in name}
    write_params(path, p)
    (path / "clone").mkdir()
    shutil.copy(path / "params.yaml", path / "clone")
    years.make_years(path / "pool", 1, path / "data", path / "params.yaml")
    years.install_years(path / "pool", 2, path / "data", path / "clone", {})
    return path


@pytest.fixture(scope="module", name="p")
def parameters(project: Path) -> Params:
    """The parameters of the two years."""
    return params.load(project / "clone/params.yaml")


@pytest.fixture(scope="module", name="pinned")
def sound_tables(project: Path) -> Tables:
    """The tables of the pinned year, without the rows that are repaired."""
    return years.sound(project / "data", project / "params.yaml")


def failures(tables: Tables, drawn: pd.DataFrame, p: Params) -> set[str]:
    """Return the rules that break when the drawn dates are added to the pinned year."""
    added = {table: years.redate(tables[table], table, drawn) for table in years.DATED}
    whole = tables | {table: pd.concat([tables[table], more], ignore_index=True) for table, more in added.items()}
    return {rule["name"] for rule in checks.check_tables(whole, p)["rules"] if rule["status"] == "fail"}


def test_every_rule_accepts_two_years(project: Path, p: Params) -> None:
    data = project / "clone/data"
    fetch.verify(data, p.data)
    tables = load_tables(data)
    report = checks.check_tables(tables, p)
    assert report["failed"] == 0, [rule for rule in report["rules"] if rule["status"] == "fail"]
    assert {repair["rule"] for repair in report["repairs"]} == set(p.validate_.tolerance) - {
        "flights.hour"
    }  # of the same row
    assert all("2013" in repair["key"].get("year", repair["key"].get("time_hour")) for repair in report["repairs"])
    for table in years.DATED:
        assert not tables[table].duplicated(KEYS[table]).any()
    assert set(pd.to_datetime(tables["flights"][years.DATE]).dt.date) == set(p.problem.days())
    assert len(p.problem.days()) == 730


def test_last_sixth_is_the_test_and_comments_stay(p: Params, tmp_path: Path) -> None:
    assert [str(day) for day in (*p.train_period, *p.test_period)] == [
        "2013-01-01",
        "2014-08-31",
        "2014-09-01",
        "2014-12-31",
    ]
    shutil.copy(ROOT / "params.yaml", tmp_path)
    years.change_params(tmp_path / "params.yaml", 2, {"flights": 7}, {}, {"new": "key"})
    text = (tmp_path / "params.yaml").read_text(encoding="utf-8")
    assert text.count("#") == (ROOT / "params.yaml").read_text(encoding="utf-8").count("#")
    assert "    flights: [7, 7]\n" in text and text.endswith("\nnew: key\n")


@pytest.mark.parametrize("year", [2014, 2016, 2037, 2042])
def test_date_is_drawn_from_its_month_and_weekday(year: int) -> None:
    drawn = years.draw_days(year, 2013)
    assert len(drawn) == 365 + (year % 4 == 0)
    assert (drawn["date"].dt.month == drawn["source"].dt.month).all()
    assert (drawn["date"].dt.weekday == drawn["source"].dt.weekday).all()
    changed = drawn[drawn["source"].isin(pd.to_datetime(["2013-03-10", "2013-11-03"]))]
    assert changed["date"].dt.month.tolist() == [3, 11] and (changed["date"].dt.weekday == 6).all()
    assert drawn.equals(years.draw_days(year, 2013)) and not drawn.equals(years.draw_days(year + 28, 2013))


def test_rows_with_another_date_s_clock_are_refused(pinned: Tables, p: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(years, "LOCAL", "UTC")
    assert {"flights.time_zone", "weather.local_time"} <= failures(pinned, years.draw_days(2014, 2013), p)


def test_date_drawn_twice_or_never_is_refused(pinned: Tables, p: Params) -> None:
    drawn = years.draw_days(2014, 2013)
    drawn.loc[100] = drawn.loc[101]
    assert {"flights.key_unique", "flights.every_day", "weather.hour_unique"} <= failures(pinned, drawn, p)


def test_folds_read_rows_about_equally_often(project: Path, tmp_path: Path) -> None:
    found = []
    for number in (1, 30):
        shutil.copy(project / "params.yaml", tmp_path)
        years.change_params(tmp_path / "params.yaml", number, {}, {}, {})
        found.append(round(scale.passes(params.load(tmp_path / "params.yaml")), 1))
    assert found == [4.9, 5.0]


@pytest.mark.parametrize(("child", "least"), [("pass", 200), (ALLOCATE, 400)])
def test_peak_counts_children_and_shared_pages_once(child: str, least: int) -> None:
    code = f"import os, time\n{ALLOCATE}\nif not os.fork():\n    {child}\n    time.sleep(2)\nelse:\n    os.wait()"
    with subprocess.Popen([sys.executable, "-c", code], text=True) as process:
        peak = memory.peak(process)
    assert least <= peak / MEGABYTE < least + 100


def test_failing_stage_is_reported_with_its_last_line(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    (tmp_path / "app").symlink_to(ROOT / "app")
    (tmp_path / "stages/validate.py").write_text("import sys\nsys.exit('error: no data')", encoding="utf-8")
    with pytest.raises(scale.StageFailed, match="3 x memory: validate ended with 1 after . s, .*: error: no data"):
        scale.execute("validate", tmp_path, "2015-12-31", "3 x memory")


def test_a_stage_runs_on_the_day_of_the_newest_data(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    (tmp_path / "app").symlink_to(ROOT / "app")
    body = EXAMPLE | {"scheduled_departure": "2042-12-31T09:00:00", "scheduled_arrival": "2042-12-31T11:00:00"}
    code = f"from app.problem import Request\nRequest.model_validate({body})\n"
    (tmp_path / "stages/train.py").write_text(code, encoding="utf-8")
    assert scale.execute("train", tmp_path, "2042-12-31", "")["train MB"] > 0
    with pytest.raises(scale.StageFailed, match="must be at most 366 days from now"):
        scale.execute("train", tmp_path, "2041-12-01", "")


def test_the_cost_per_row_is_compared_within_a_mode() -> None:
    base = {"factor": 1, "mode": "a", "µs/row": 2.0}
    table: list[dict[str, Any]] = [base, {"factor": 1, "mode": "b"}, base | {"factor": 3, "µs/row": 3.0}]
    scale.add_ratio(table)
    assert table[-1]["ratio"] == 1.5
    table.append({"factor": 3, "mode": "b", "µs/row": 3.0})
    scale.add_ratio(table)
    assert "ratio" not in table[-1]
