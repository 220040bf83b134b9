"""Stage validate: check the raw tables against the rules; a violated error rule stops the pipeline."""

from __future__ import annotations

import gc
import tempfile
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

import pandas as pd

from stages import fetch, params, recording
from stages.checks import check, enforce
from stages.errors import run
from stages.files import write_json
from stages.raw import load_tables
from stages.rules import Tables

REPORT = Path("reports/validation.json")
REPAIRS = Path("build/repairs.json")
SUMMARY_ROWS = 20_000
SUMMARY_SEED = 42


def samples(tables: Tables) -> dict[str, pd.DataFrame]:
    """Return rows of each large table."""
    large = {name: frame for name, frame in tables.items() if len(frame) > SUMMARY_ROWS}
    return {name: frame.sample(SUMMARY_ROWS, random_state=SUMMARY_SEED).sort_index() for name, frame in large.items()}


def write_summary(sample: pd.DataFrame, name: str, rows: int, directory: Path) -> Path:
    """Write Evidently's summary of a table's sample as HTML; its ids are random, so it is not a DVC output."""
    # pylint: disable=import-outside-toplevel # 3 s, for the process that writes summaries
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataSummaryPreset

    numbers, times = (list(sample.select_dtypes(include=kind)) for kind in ("number", ["datetime", "datetimetz"]))
    texts = [column for column in sample if column not in (*numbers, *times)]
    definition = DataDefinition(categorical_columns=texts, numerical_columns=numbers, datetime_columns=times)
    title = f"{name}: a sample of {len(sample):,} of {rows:,} rows, seed {SUMMARY_SEED}"
    dataset = Dataset.from_pandas(sample, data_definition=definition)
    page = directory / f"{name}-summary.html"
    Report([DataSummaryPreset()]).run(dataset, None).save_html(str(page))
    html = page.read_text(encoding="utf-8")
    page.write_text(html.replace("<body>", f"<body><h1>{title}</h1>", 1), encoding="utf-8")
    return page


def main() -> None:
    """Check data/ against its digests and the rules; write reports/validation.json and build/repairs.json."""
    p = params.load()
    fetch.verify(fetch.DATA_DIR, p.data)
    with (
        tempfile.TemporaryDirectory() as temporary,
        recording.stage_run("validate", p.validate_, ["data"]) as log,
        ProcessPoolExecutor(1, get_context("spawn"), initializer=gc.disable) as pool,
    ):
        pool.submit(import_module, "evidently")  # takes 3 s, meanwhile the tables are read
        tables = load_tables(fetch.DATA_DIR)
        pages = [
            pool.submit(write_summary, sample, name, len(tables[name]), Path(temporary))
            for name, sample in samples(tables).items()
        ]
        report = check(tables, p)
        write_json(REPORT, report)
        log.metrics(
            rules=len(report["rules"]),
            failed=report["failed"],
            warnings=report["warnings"],
            repairs=len(report["repairs"]),
            **{f"rows_{table}": rows for table, rows in report["rows"].items()},
        )
        log.artifact(REPORT)
        enforce(report)
        write_json(REPAIRS, report["repairs"])
        for page in pages:
            log.artifact(page.result())
        pool.submit(gc.freeze)  # as in stages/errors.py


if __name__ == "__main__":
    run(main)
