"""`on-time data status`: the content of data/."""

from typing import Any

from ops.data import add, growth
from stages import params
from stages.base import yaml_files
from stages.params import Params
from stages.tables import fetch
from stages.tables.read import load_tables


def collect_status() -> dict[str, Any]:
    """Return tables with periods and rows, gaps, and additions with their quarantine."""
    p: Params = params.load()
    fetch.verify(fetch.DATA_DIR, p.data)
    tables = load_tables(fetch.DATA_DIR)
    return {
        "tables": {
            table: {"rows": len(frame), "days": growth.period(table, frame, p.problem)}
            for table, frame in tables.items()
        },
        "period": [str(p.problem.first_date), str(p.problem.last_date)],
        "gaps": [[str(day) for day in gap] for gap in p.problem.gaps],
        "additions": add.reports(),
        "dvc": _digest(),
    }


def _digest() -> str:
    """Return the digest in data.dvc."""
    return str(yaml_files.load(fetch.DATA_DIR.with_suffix(".dvc"))["outs"][0]["md5"])


def describe_status(found: dict[str, Any]) -> str:
    """Return the facts for people."""
    first, last = found["period"]
    lines = [f"data/ {found['dvc']}: {first} to {last}"]
    lines += [f"  no data: {gap[0]} to {gap[1]}" for gap in found["gaps"]]
    for table, known in found["tables"].items():
        days = known["days"]
        period = f", {days[0]} to {days[1]}" if days else ""
        lines.append(f"  {table:10} {known['rows']:>9,} rows{period}")
    if not found["additions"]:
        lines.append("  nothing was added to the first data")
    for number, report in found["additions"].items():
        lines.append(f"addition {number}: {', '.join(report['files'])}")
        own = [line for line in add.describe_addition(report).splitlines() if not line.startswith("warning")]
        lines += [f"  {line}" for line in own]
        lines.append(f"  {len(report['warnings'])} warnings, in {add.FOLDER / number / add.REPORT}")
    return "\n".join(lines)
