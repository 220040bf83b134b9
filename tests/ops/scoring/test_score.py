"""Scoring of files: the predictions of the service, complete or not there at all."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from app.interface import EXAMPLE, Request
from app.model.bundles import Bundle
from app.registry import registered
from ops.scoring import files, output, score
from ops.scoring.files import InputInvalid
from ops.scoring.output import Job, OutputInvalid, TooManyRejected
from ops.scoring.predict import Worker
from tests.support.models import bake
from tests.support.repositories.clone import ROOT

BLOCK, PART = 50, 200
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
ROWS: list[dict[str, Any]] = [
    Request.model_validate(
        EXAMPLE | {"flight_number": i + 1, "weather": (EXAMPLE["weather"] * (i % 4)) or None}
    ).model_dump()
    for i in range(PART * 2 + 30)
]
SCRIPT = f"""
import sys
from pathlib import Path
from app.registry import registered
from ops.scoring import files, output, score
files.BLOCK_ROWS = output.BLOCK_ROWS = {BLOCK}
output.PART_ROWS = score.PART_ROWS = {PART}
if __name__ == "__main__":
    folder = Path(sys.argv[3])
    served = registered.load(folder, "baked")
    known = registered.Registered.model_validate_json((folder / registered.VERSION_FILE).read_bytes())
    report = score.Report()
    report.part = lambda part, rate: print(part.file, flush=True)
    job = output.Job(sys.argv[1], sys.argv[2], known, folder, 0.01, 1)
    with score.processes(1) as pool:
        score.score_files(job, served.bundle.threshold, pool, report)
"""


@pytest.fixture(scope="module")
def folder(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as `on-time model export` writes it."""
    return bake(bundle_dir, "3", tmp_path_factory.mktemp("scored") / "model")


@pytest.fixture
def run_score(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., score.Total]:
    """Return a function that scores files with that model, in small blocks and parts."""
    for module in (files, output):
        monkeypatch.setattr(module, "BLOCK_ROWS", BLOCK)
    for module in (output, score):
        monkeypatch.setattr(module, "PART_ROWS", PART)
    known = registered.Registered.model_validate_json((folder / registered.VERSION_FILE).read_bytes())

    def run(source: Path | str, target: Path | str, tolerated: float = 0.01, **changed: Any) -> score.Total:
        job = Job(str(source), str(target), known.model_copy(update=changed), folder, tolerated, 1)
        with ThreadPoolExecutor(1) as pool:
            return score.score_files(job, 0.5, pool)

    monkeypatch.setattr(Worker, "bundle", None)  # of another test's model
    return run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with one input file in a folder of its own."""
    (tmp_path / "in/2013").mkdir(parents=True)
    pq.write_table(
        pa.Table.from_pylist(ROWS).append_column("id", pa.array(range(len(ROWS)))),
        tmp_path / "in/2013/a.parquet",
        row_group_size=70,
    )
    return tmp_path / "in"


def written(target: Path) -> dict[str, bytes]:
    """Return the files of a folder."""
    return {str(path.relative_to(target)): path.read_bytes() for path in sorted(target.rglob("*")) if path.is_file()}


def predicted(target: Path) -> pa.Table:
    """Return all predictions of a folder, in the order of the parts."""
    return pa.concat_tables(pq.read_table(path) for path in sorted(target.rglob("*.parquet")))


def as_parquet(rows: list[dict[str, Any]], path: Path) -> None:
    """Write rows as Parquet."""
    pq.write_table(pa.Table.from_pylist(rows), path)


def as_csv(rows: list[dict[str, Any]], path: Path) -> None:
    """Write rows as CSV, nested values as JSON."""
    flat = [row | {"weather": None if row["weather"] is None else json.dumps(row["weather"])} for row in rows]
    with pa.CompressedOutputStream(path, "gzip") if path.suffix == ".gz" else pa.OSFile(str(path), "wb") as file:
        csv.write_csv(pa.Table.from_pylist(flat), file)


def as_arrow(rows: list[dict[str, Any]], path: Path) -> None:
    """Write rows as an Arrow file, or as a stream."""
    table = pa.Table.from_pylist(rows)
    new = pa.ipc.new_stream if path.suffix == ".arrows" else pa.ipc.new_file
    with new(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=33)


def as_categories(rows: list[dict[str, Any]], path: Path) -> None:
    """Write Parquet whose row groups, two in a block, have different dictionaries of their carriers."""
    table = pa.Table.from_pylist(rows)
    place = table.schema.names.index("carrier")
    parts = [table.slice(first, 35).combine_chunks() for first in range(0, len(rows), 35)]
    parts = [part.set_column(place, "carrier", part.column(place).dictionary_encode()) for part in parts]
    with pq.ParquetWriter(path, parts[0].schema) as writer:
        for part in parts:
            writer.write_table(part)


WRITERS: dict[str, Callable[[list[dict[str, Any]], Path], None]] = {
    "a.parquet": as_parquet,
    "categories.parquet": as_categories,
    "a.csv": as_csv,
    "a.csv.gz": as_csv,
    "a.arrow": as_arrow,
    "a.arrows": as_arrow,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gets_the_model_s_probabilities(
    run_score: Callable[..., score.Total], bundle: Bundle, tmp_path: Path, name: str
) -> None:
    WRITERS[name](ROWS, tmp_path / name)
    total = run_score(tmp_path / name, tmp_path / "out")
    assert (total.rows, total.rejected, total.known) == (len(ROWS), 0, 0)
    found = predicted(tmp_path / "out")
    expected = bundle.probabilities([Request.model_validate(row) for row in ROWS])
    assert found["row"].to_pylist() == list(range(len(ROWS)))
    assert found["probability"].to_numpy().tolist() == expected.tolist()
    assert found["alert"].to_pylist() == (expected >= 0.5).tolist()


def test_parts_name_model_and_rows_and_keep_columns(
    run_score: Callable[..., score.Total], source: Path, tmp_path: Path
) -> None:
    run_score(source, tmp_path / "out")
    receipts = [json.loads(path.read_bytes()) for path in sorted((tmp_path / "out").rglob("*.json"))]
    assert [(part["file"], part["first_row"], part["rows"], part["last"]) for part in receipts] == [
        ("2013/a-00000.parquet", 0, PART, False),
        ("2013/a-00001.parquet", PART, PART, False),
        ("2013/a-00002.parquet", 2 * PART, 30, True),
    ]
    assert {part["version"] for part in receipts} == {"3"} and len(receipts[0]["bundle_digest"]) == 64
    assert predicted(tmp_path / "out")["id"].to_pylist() == list(range(len(ROWS)))


def test_a_second_call_makes_only_what_is_lost(
    run_score: Callable[..., score.Total], source: Path, tmp_path: Path
) -> None:
    run_score(source, tmp_path / "out")
    whole = written(tmp_path / "out")
    assert run_score(source, tmp_path / "out")[:3] == (0, 0, len(ROWS))
    (tmp_path / "out/2013/a-00001.json").unlink()
    assert run_score(source, tmp_path / "out")[:3] == (PART + 30, 0, PART)
    assert written(tmp_path / "out") == whole


def test_after_a_kill_the_next_call_has_the_same_bytes(
    run_score: Callable[..., score.Total], folder: Path, tmp_path: Path
) -> None:
    source = tmp_path / "in.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS * 20), source)
    script = tmp_path / "score.py"
    script.write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, str(script), str(source), str(tmp_path / "out"), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT, start_new_session=True) as process:
        assert process.stdout
        process.stdout.readline()  # the first part is complete
        os.killpg(process.pid, signal.SIGKILL)
    before = len(list((tmp_path / "out").glob("*.json")))
    total = run_score(source, tmp_path / "out")
    assert total.known == before * PART > 0 and total.rows == len(ROWS) * 20 - total.known > 0
    run_score(source, tmp_path / "other")
    left = {name: content for name, content in written(tmp_path / "out").items() if not name.endswith(".partial")}
    assert left == written(tmp_path / "other")


def test_invalid_rows_are_set_apart_with_their_reasons(run_score: Callable[..., score.Total], tmp_path: Path) -> None:
    rows = [dict(row) for row in ROWS]
    rows[7]["dest"], rows[260]["dest"] = "nowhere", rows[260]["origin"]
    rows[261]["weather"] = [EXAMPLE["weather"][0] | {"humidity_pct": 120.0}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    total = run_score(tmp_path / "a.parquet", tmp_path / "out", tolerated=0.1)
    assert total.rejected == 3
    found = predicted(tmp_path / "out")["row"].to_pylist()
    assert sorted(set(range(len(ROWS))) - set(found)) == [7, 260, 261]
    lines = rejects(tmp_path / "out")
    assert [(line["row"], line["reasons"][0].partition(":")[0]) for line in lines] == [
        (7, "dest"),
        (260, "dest"),
        (261, "weather.0.humidity_pct"),
    ]
    assert lines[0]["values"]["dest"] == "nowhere"


def test_more_invalid_rows_than_tolerated_are_refused(run_score: Callable[..., score.Total], tmp_path: Path) -> None:
    rows = [dict(row) for row in ROWS]
    for row in rows[PART : PART + 40]:
        row["dest"] = "?"
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(TooManyRejected, match=r"row 200: dest: .* raise --rejected"):
        run_score(tmp_path / "a.parquet", tmp_path / "out")
    assert set(written(tmp_path / "out")) >= {"a-00000.parquet", "a-00000.json"}
    assert not (tmp_path / "out/a-00001.parquet").exists()
    assert run_score(tmp_path / "a.parquet", tmp_path / "out", tolerated=0.9).rejected == 40


HEAD = "carrier,origin,dest,scheduled_departure,scheduled_arrival"
CELLS = "UA,EWR,SFO,2013-07-01T18:15:00,2013-07-01T21:29:00"


def rejects(target: Path) -> list[dict[str, Any]]:
    """Return the rejected rows of a folder."""
    files_of_rejects = sorted(target.rglob("*.rejected.jsonl"))
    return [json.loads(line) for path in files_of_rejects for line in path.read_text(encoding="utf-8").splitlines()]


def test_other_columns_of_csv_stay_text(run_score: Callable[..., score.Total], tmp_path: Path) -> None:
    lines = ["zip,long,code,flag", "00501,9223372036854775809,1e5,true", "01010,0,NA,false", ',"",,1']
    rows = [f"{line},{CELLS if i else HEAD}" for i, line in enumerate(lines)]
    (tmp_path / "a.CSV").write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert run_score(tmp_path / "a.CSV", tmp_path / "out").rejected == 0
    found = predicted(tmp_path / "out").select(["zip", "long", "code", "flag"]).to_pylist()
    assert [tuple(row.values()) for row in found] == [
        ("00501", "9223372036854775809", "1e5", "true"),
        ("01010", "0", "NA", "false"),
        (None, "", None, "1"),
    ]


@pytest.mark.parametrize(
    ("column", "good", "bad", "reason"),
    [
        ("flight_number", "12", "UA12", "flight_number: Input should be"),
        ("flight_number", "12", "1.5", "flight_number: Input should be"),
        ("weather", '"[{""temperature_f"": 70.0}]"', '"[{""temperature_f"": 70.0"', "weather: Input should be a valid"),
        ("weather", '"[{""temperature_f"": 70.0}]"', '"[{""temperature_f"": ""x""}]"', "weather.0.temperature_f: "),
        ("weather", '"[{""temperature_f"": 70.0}]"', '"[{""temp"": 70.0}]"', "weather.0.temp: Extra inputs"),
        ("flight_number", "12", "9" * 30, "flight_number: Input should be"),
    ],
    ids=["text", "fraction", "JSON", "nested text", "unknown key", "huge"],
)
def test_bad_cell_of_csv_rejects_its_row(
    run_score: Callable[..., score.Total], tmp_path: Path, column: str, good: str, bad: str, reason: str
) -> None:
    lines = [f"{CELLS},{bad if i == 107 else good}" for i in range(PART)]
    (tmp_path / "a.csv").write_text("\n".join([f"{HEAD},{column}", *lines]) + "\n", encoding="utf-8")
    assert run_score(tmp_path / "a.csv", tmp_path / "out").rejected == 1
    (row,) = rejects(tmp_path / "out")
    assert (row["row"], len(row["reasons"])) == (107, 1) and row["reasons"][0].startswith(reason)
    assert len(set(predicted(tmp_path / "out")["probability"].to_pylist())) == 1


def test_code_na_of_csv_is_a_text(run_score: Callable[..., score.Total], bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{HEAD}\n{CELLS.replace('UA', 'NA')}\n", encoding="utf-8")
    assert run_score(tmp_path / "a.csv", tmp_path / "out").rejected == 0
    request = Request.model_validate(dict(zip(HEAD.split(","), CELLS.replace("UA", "NA").split(","), strict=True)))
    assert predicted(tmp_path / "out")["probability"].to_pylist() == bundle.probabilities([request]).tolist()


def test_few_rows_have_the_limit_too(run_score: Callable[..., score.Total], tmp_path: Path) -> None:
    lines = [HEAD, *[CELLS.replace("SFO", "San Francisco")] * 9]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(TooManyRejected, match="9 of 9 rows"):
        run_score(tmp_path / "a.csv", tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.json"))


def test_no_file_is_skipped_silently(run_score: Callable[..., score.Total], tmp_path: Path) -> None:
    for name in ("in/FEB.CSV", "in/_temporary/0/part.csv", "in/._FEB.CSV", "in/_SUCCESS"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{HEAD}\n{CELLS}\n", encoding="utf-8")
    assert run_score(tmp_path / "in", tmp_path / "out").rows == 1
    assert [Path(path).name for path in files.hidden(str(tmp_path / "in"))] == ["._FEB.CSV", "_SUCCESS", "part.csv"]
    (tmp_path / "in/mar.pq").touch()
    with pytest.raises(InputInvalid, match="mar.pq does not end with"):
        run_score(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("names", ["x,x", "row,y"])
def test_names_that_clash_are_refused(run_score: Callable[..., score.Total], tmp_path: Path, names: str) -> None:
    (tmp_path / "a.csv").write_text(f"{HEAD},{names}\n{CELLS},1,2\n", encoding="utf-8")
    with pytest.raises(InputInvalid, match=f"named {names[0]}.*rename"):
        run_score(tmp_path / "a.csv", tmp_path / "out")


def test_output_in_the_input_is_refused(run_score: Callable[..., score.Total], source: Path) -> None:
    for target in (source, source / "out"):
        with pytest.raises(OutputInvalid, match="name another folder"):
            run_score(source, target)


@pytest.mark.parametrize("name", ["a-00000.parquet", "a-00000.json"])
@pytest.mark.parametrize("content", [b"mine", b"{}", b'{"mine": 1}'])
def test_files_of_others_are_not_overwritten(
    run_score: Callable[..., score.Total], tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / "a.csv").write_text(f"{HEAD}\n{CELLS}\n", encoding="utf-8")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(content)
    with pytest.raises(OutputInvalid, match=f"{name} is not a .*part.*move the file"):
        run_score(tmp_path / "a.csv", tmp_path / "out")
    assert [(file.name, file.read_bytes()) for file in (tmp_path / "out").iterdir()] == [(name, content)]


def test_utf_16_is_named(run_score: Callable[..., score.Total], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{HEAD}\n{CELLS}\n", encoding="utf-16")
    with pytest.raises(InputInvalid, match="a.csv is UTF-16, not UTF-8"):
        run_score(tmp_path / "a.csv", tmp_path / "out")


@pytest.mark.parametrize("cut", [0.3, 0.999])
def test_a_truncated_file_is_named(
    run_score: Callable[..., score.Total], source: Path, tmp_path: Path, cut: float
) -> None:
    run_score(source, tmp_path / "out")
    whole = written(tmp_path / "out")
    content = (source / "2013/a.parquet").read_bytes()
    (source / "2013/b.parquet").write_bytes(content[: int(cut * len(content))])
    with pytest.raises(InputInvalid, match="b.parquet cannot be read: .* repeat the command"):
        run_score(source, tmp_path / "out")
    assert written(tmp_path / "out") == whole
    (source / "2013/b.parquet").write_bytes(content)
    assert run_score(source, tmp_path / "out")[:3] == (len(ROWS), 0, len(ROWS))


@pytest.mark.parametrize(
    ("values", "expected"), [(None, "columns.dest: Field required"), ([1] * len(ROWS), "columns.dest: .*text")]
)
def test_columns_that_do_not_fit_are_named(
    run_score: Callable[..., score.Total], tmp_path: Path, values: list[int] | None, expected: str
) -> None:
    table = pa.Table.from_pylist(ROWS).drop_columns(["dest"])
    if values:
        table = table.append_column("dest", pa.array(values))
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputInvalid, match=expected):
        run_score(tmp_path / "a.parquet", tmp_path / "out")
    assert [name for name in written(tmp_path / "out") if not name.endswith(".partial")] == []


def test_a_file_without_rows_gets_an_empty_part(run_score: Callable[..., score.Total], tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS).slice(0, 0), tmp_path / "a.parquet")
    assert run_score(tmp_path / "a.parquet", tmp_path / "out").rows == 0
    assert predicted(tmp_path / "out").num_rows == 0
    assert run_score(tmp_path / "a.parquet", tmp_path / "out").rows == 0


def test_other_models_and_inputs_are_not_mixed(
    run_score: Callable[..., score.Total], source: Path, tmp_path: Path
) -> None:
    run_score(source, tmp_path / "out")
    with pytest.raises(OutputInvalid, match="of version 3, not of version 4"):
        run_score(source, tmp_path / "out", version="4", bundle_digest="f" * 64)
    pq.write_table(pa.Table.from_pylist(ROWS), source / "2013/a.parquet")
    with pytest.raises(OutputInvalid, match="as it was before it changed"):
        run_score(source, tmp_path / "out")


def test_a_full_disk_is_named_and_the_next_call_works(
    run_score: Callable[..., score.Total], source: Path, tmp_path: Path
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        with pytest.raises(OutputInvalid, match="a-00000.parquet cannot be written: File too large. Complete parts"):
            run_score(source, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "out").rglob("*.json"))
    assert run_score(source, tmp_path / "out").rows == len(ROWS)


def test_a_folder_without_tables_is_named(run_score: Callable[..., score.Total], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(InputInvalid, match=r"has no file that ends with \.parquet"):
        run_score(tmp_path / "in", tmp_path / "out")
    with pytest.raises(InputInvalid, match="does not exist"):
        run_score(tmp_path / "other", tmp_path / "out")
