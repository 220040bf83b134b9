"""`on-time data add`: check files of new rows, and add them to data/ in steps; each step leaves data/ usable.

An addition is a folder `data/added/NNNN` with one Parquet file per table (new rows and corrections), one CSV file per
table with the quarantined rows, and a report. params.yaml lists its files with their digests: a folder that is not
listed was left by an interrupted addition, or by another branch: the next addition sets it aside.
"""

import fcntl
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from ops.data import growth, incoming
from stages import params
from stages.base.errors import DataInvalid
from stages.base.paths import replace_text, sha256, write_json
from stages.params import Params
from stages.problem_kit.params import ADDED, PARAMS_FILE, DataParams, load_section
from stages.tables import fetch
from stages.tables.read import load_tables

WORK = Path("build/add")
"""Where an addition is prepared: in the file system of data/, and ignored by git."""
ASIDE = Path("build/set-aside")
"""Where folders of additions go that params.yaml does not list."""
FOLDER = fetch.DATA_DIR / ADDED
REPORT = "report.json"
SHOWN = 5


@contextmanager
def alone() -> Iterator[None]:
    """Hold the lock of data/, which ends with the process; raise DataInvalid if another process holds it."""
    WORK.mkdir(parents=True, exist_ok=True)
    with Path(WORK.parent, "data.lock").open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataInvalid("another `on-time data add` is running: wait until it ends.") from None
        yield


def recover() -> dict[Path, Path]:
    """Set aside the additions in data/ that params.yaml does not list; return where each one is now."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    listed = {name.partition("/")[0] for name in load_section(DataParams, "data").added}
    moved = {}
    for path in sorted(path for path in FOLDER.glob("*") if path.name not in listed):
        ASIDE.mkdir(exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=f"{path.name}-", dir=ASIDE))
        moved[path] = path.rename(place)
    return moved


def read(files: list[Path]) -> list[incoming.Incoming]:
    """Return the rows of the files; raise DataInvalid with every file that cannot be read."""
    found, refused = [], []
    for path in files:
        try:
            found.append(incoming.read(path))
        except DataInvalid as err:
            refused.append(str(err))
    if refused:
        raise DataInvalid(f"nothing was added: {' '.join(refused)}")
    return found


def facts(files: list[Path], verdict: growth.Judgement) -> dict[str, Any]:
    """Return the report of an addition."""
    return {
        "files": {path.name: sha256(path) for path in files},
        "tables": {
            table: {
                "read": len(arrival.raw),
                "new": arrival.new,
                "corrected": len(arrival.corrections),
                "known": arrival.known,
                "repeated": arrival.repeated,
                "quarantined": {str(rule): int(n) for rule, n in sorted(arrival.rule.value_counts().items())},
                "corrections": arrival.corrections,
                "days": growth.period(table, arrival.typed, verdict.p.problem),
            }
            for table, arrival in verdict.arrivals.items()
        },
        "warnings": verdict.warnings,
    }


def store(verdict: growth.Judgement, report: dict[str, Any]) -> Path:
    """Write the addition to its folder in data/, complete from the moment at which it exists."""
    number = max((int(path.name) for path in FOLDER.glob("*")), default=0) + 1
    prepared = WORK / f"{number:04d}"
    prepared.mkdir()
    for table, arrival in verdict.arrivals.items():
        if len(arrival.typed):
            arrival.typed.to_parquet(prepared / f"{table}.parquet", index=False)
        quarantined = arrival.quarantined
        if len(quarantined):
            quarantined.to_csv(prepared / f"{table}.quarantine.csv", index=False, na_rep="NA", lineterminator="\n")
    write_json(prepared / REPORT, report)
    FOLDER.mkdir(exist_ok=True)
    return prepared.rename(FOLDER / prepared.name)


def write_params(verdict: growth.Judgement, added: Path, path: Path = PARAMS_FILE) -> None:
    """Write what belongs to the addition into params.yaml, in one step: digests, period and numbers of rows."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    content = yaml.load(path)
    digests = {f"{added.name}/{file.name}": sha256(file) for file in sorted(added.iterdir())}
    content["data"].setdefault("added", CommentedMap()).update(digests)
    for table, band in verdict.p.validate_.rows.items():
        content["validate"]["rows"][table][:] = list(band)
    coverage = verdict.p.problem
    content["problem"]["last_date"] = type(content["problem"]["last_date"])(str(coverage.last_date))
    if coverage.gaps or "gaps" in content["problem"]:
        gaps = CommentedSeq([[str(day) for day in gap] for gap in coverage.gaps])
        gaps.fa.set_flow_style()
        content["problem"]["gaps"] = gaps
    written = StringIO()
    yaml.dump(content, written)
    replace_text(path, written.getvalue())


def add_rows(files: list[Path], corrects: bool = True) -> tuple[bool, dict[str, Any]]:
    """Add the rows of the files to data/; return whether data/ has changed, and the report.

    All or nothing: raises DataInvalid, with data/ as it was, if any of the files is refused. Unless the files may
    correct known rows, these stay as they are.
    """
    p: Params = params.load()
    fetch.verify(fetch.DATA_DIR, p.data)
    arrived = read(files)
    verdict = growth.judge_addition(load_tables(fetch.DATA_DIR), arrived, p, corrects)
    report = facts(files, verdict)
    if verdict.changes:
        write_params(verdict, store(verdict, report))
    return verdict.changes, report


def describe_addition(report: dict[str, Any]) -> str:
    """Return the report of an addition for people."""
    lines = []
    for table, found in report["tables"].items():
        counts = ", ".join(f"{found[name]:,} {name}" for name in ("new", "corrected", "known", "repeated"))
        broken = sum(found["quarantined"].values())
        lines.append(f"{table}: {found['read']:,} rows read: {counts}, {broken:,} quarantined")
        lines += [f"  quarantined by {rule}: {n:,}" for rule, n in found["quarantined"].items()]
        lines += [f"  corrected: {change}" for change in found["corrections"][:SHOWN]]
        if len(found["corrections"]) > SHOWN:
            lines.append(f"  corrected: {len(found['corrections']) - SHOWN:,} more, all in the addition's {REPORT}")
    lines += [f"warning: {rule}: {found}" for rule, found in report["warnings"].items()]
    return "\n".join(lines)


def reports() -> dict[str, dict[str, Any]]:
    """Return the reports of all additions by their folder's name."""
    return {
        path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob(f"*/{REPORT}"))
    }
