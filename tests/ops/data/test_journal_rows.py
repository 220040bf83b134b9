"""Days that a service predicted, with their outcomes, come back from its journal as rows of the data."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest

from app.interface import Lookups, compute
from ops.data import incoming
from ops.monitoring.replay import Day, replay
from stages import interface, params
from stages.problem.columns import TABLES
from stages.problem_kit.rows import day_of
from stages.problem_kit.rules import Tables
from stages.tables.read import load_tables
from tests.support.models import bake
from tests.support.repositories.clone import Clone, make_clone
from tests.support.repositories.growth import TIMED, months, start_with
from tests.support.repositories.scratch import commit, read_params
from tests.support.servers.service import started

pytestmark = pytest.mark.long

EVERY, DAYS = 4, 7
ADD = ["./on-time", "data", "add"]


@dataclass(frozen=True)
class Recorded:
    """A repository with January and February, and a journal with the first days of March."""

    clone: Path
    journal: str
    whole: Tables
    """The tables of these three months, as they were sent."""
    sent: pd.DataFrame
    lookups: Lookups
    files: list[Path]
    """Of the days in the journal."""


def sent_days(sent: pd.DataFrame, whole: Tables, lookups: Lookups, p: interface.Params) -> list[Day]:
    """Return the rows as days of a replay."""
    bodies = interface.requests(interface.arrays_of_rows(sent, whole, lookups, p))
    told = interface.outcomes(sent, p)
    numbers = interface.labelled_rows(whole | {"flights": sent}, p).day
    return [
        Day(day_of(number), *([part[i] for i in np.flatnonzero(numbers == number)] for part in (bodies, told)))
        for number in np.unique(numbers)
    ]


@pytest.fixture(scope="module", name="recorded")
def replayed(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """The first days of March, sent to a real service; one request twice, one that has no outcome."""
    folder, p = tmp_path_factory.mktemp("journal"), params.load().problem
    clone = make_clone(folder / "clone")
    (clone.path / ".venv").symlink_to(Path(sys.prefix))
    whole = {}
    for table, frame in load_tables(clone.path / "data").items():
        text = months(clone.path, table, 1, 3, EVERY).replace("NA", None) if table in TIMED else frame
        whole[table] = incoming.convert(text, table)[0]
    march = {table: whole[table][(whole[table]["month"] == 3) & (whole[table]["day"] <= DAYS)] for table in TIMED}
    files = [folder / f"{table}-2013-03.csv" for table in TIMED]
    for path, frame in zip(files, march.values(), strict=True):
        frame.to_csv(path, index=False)
    start_with(clone.path, 2, EVERY)
    clone.run("dvc", "add", "--quiet", "data")
    commit(clone.path, "January and February")
    baked = bake(bundle_dir, "1", folder / "model")
    sent, journal = march["flights"], f"sqlite:///{folder}/journal.db"
    lookups = interface.lookups(whole, [whole["flights"]], p)
    days = sent_days(sent, whole, lookups, p)
    days.append(Day(days[0].day, days[0].requests[:1], days[0].outcomes[:1]))
    with started(folder, ONTIME_BAKED_MODEL=str(baked), ONTIME_JOURNAL_URL=journal) as service:
        asyncio.run(replay(service.base, days, 1.0, {}))
        body = days[0].requests[0] | {"flight_number": 9999}
        httpx.post(f"{service.base}/predict", json=body).raise_for_status()
    yield Recorded(clone.path, journal, whole, sent.reset_index(drop=True), lookups, files)


@pytest.fixture(name="clone")
def fresh_copy(recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    """A copy of the repository, whose commands know the journal."""
    monkeypatch.setenv("ONTIME_JOURNAL_URL", recorded.journal)
    shutil.copytree(recorded.clone, tmp_path / "clone", symlinks=True)
    return Clone(tmp_path / "clone")


def of_march(tables: Tables) -> pd.DataFrame:
    """Return the flights of March."""
    return tables["flights"][tables["flights"]["month"] == 3].reset_index(drop=True)


def test_targets_and_features_are_those_that_were_sent(clone: Clone, recorded: Recorded) -> None:
    added = clone.run(*ADD, "--from-journal").stdout
    count = len(recorded.sent)
    assert f"journal: {count + 1:,} requests with outcomes\nflights: {count:,} rows read: " in added
    tables, p = load_tables(clone.path / "data"), params.load(clone.path / "params.yaml").problem
    keys = interface.KEYS["flights"]
    back = of_march(tables)
    quarantined = set(read_params(clone.path)["data"]["added"]) & {"0001/flights.quarantine.csv"}
    assert len(back) >= 0.98 * count and bool(quarantined) == (len(back) < count)
    sent = back[keys].merge(recorded.sent, on=keys, how="left", validate="1:1")[list(TABLES["flights"])]
    targets = [interface.labelled_rows(tables | {"flights": frame}, p).target.tolist() for frame in (back, sent)]
    assert targets[0] == targets[1] and 0 < sum(targets[0]) < len(back)
    features = [
        compute(interface.arrays_of_rows(frame, whole, recorded.lookups, p), recorded.lookups)
        for frame, whole in ((back, tables), (sent, recorded.whole))
    ]
    assert features[0].tobytes() == features[1].tobytes()
    differing = {name for name in back if not back[name].equals(sent[name])}
    assert differing <= {"dep_time", "dep_delay", "arr_time", "air_time", "tailnum", "distance"}
    assert (back["distance"] - sent["distance"]).abs().max() <= 1, "the routes have it to a mile"
    clone.run("dvc", "repro", "validate")


def test_known_journal_adds_nothing(clone: Clone) -> None:
    clone.run(*ADD, "--from-journal")
    before = (clone.path / "params.yaml").read_bytes()
    again = clone.run(*ADD, "--from-journal").stdout
    assert "Nothing to add" in again and " 0 new, 0 corrected" in again
    later = clone.run(*ADD, "--from-journal", "--since", "2999-01-01T00:00:00+02:00").stdout
    assert later == "journal: 0 requests with outcomes\nNothing to add: data/ is as it was.\n"
    assert (clone.path / "params.yaml").read_bytes() == before


def test_file_replaces_the_journal_never_the_reverse(clone: Clone, recorded: Recorded) -> None:
    clone.run(*ADD, "--from-journal")
    filed = clone.run(*ADD, *map(str, recorded.files)).stdout
    assert "dep_time nan -> " in filed
    whole = of_march(load_tables(clone.path / "data"))
    keys = interface.KEYS["flights"]
    pd.testing.assert_frame_equal(
        *(frame.sort_values(keys, ignore_index=True) for frame in (whole, recorded.sent)), check_dtype=False
    )
    assert "Nothing to add" in clone.run(*ADD, "--from-journal").stdout


def test_a_journal_that_is_missing_is_refused(clone: Clone, tmp_path: Path) -> None:
    missing = clone.run(*ADD, "--from-journal", check=False, ONTIME_JOURNAL_URL=f"sqlite:///{tmp_path}/none.db")
    assert missing.returncode != 0 and "no predictions yet" in missing.stderr
    for wrong in (["--since", "2013-01-01", "a.csv"], ["--from-journal", "--inbox", "x"]):
        (clone.path / "a.csv").touch()
        assert clone.run(*ADD, *wrong, check=False).returncode == 2
