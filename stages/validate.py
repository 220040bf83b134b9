"""Stage validate: write the raw tables by partition, check and repair them; a violated error rule ends the pipeline."""

from __future__ import annotations

import gc
import tempfile
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

from stages import fetch, params, partitions, recording
from stages.checks import check, enforce
from stages.errors import run
from stages.files import write_json
from stages.partitions import Store
from stages.repairs import repair_all

REPORT = Path("reports/validation.json")
SUMMARY_ROWS = 20_000
SUMMARY_SEED = 42


def sample(store: Store, table: str, rows: int) -> pd.DataFrame:
    """Return a sample of the rows of a table with days."""
    chosen = np.sort(np.random.default_rng(SUMMARY_SEED).choice(rows, SUMMARY_ROWS, replace=False))
    parts, start = [], 0
    for partition in store.partitions:
        frame = store.own(partition)[table]
        parts.append(frame.iloc[chosen[(chosen >= start) & (chosen < start + len(frame))] - start])
        start += len(frame)
    return pd.concat(parts, ignore_index=True)


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
    """Check data/ against its digests and the rules; write build/tables and reports/validation.json."""
    p = params.load()
    fetch.verify(fetch.DATA_DIR, p.data)
    with (
        tempfile.TemporaryDirectory() as temporary,
        recording.stage_run("validate", p.validate_, ["data"]) as log,
        ProcessPoolExecutor(1, get_context("spawn"), initializer=gc.disable) as pool,
    ):
        pool.submit(import_module, "evidently")  # takes 3 s, meanwhile the tables are read
        store = partitions.write(fetch.DATA_DIR, p.problem, p.partition)
        report = check(store, p)
        pages = [
            pool.submit(write_summary, sample(store, table, rows), table, rows, Path(temporary))
            for table, rows in report["rows"].items()
            if table in store.dated and rows > SUMMARY_ROWS
        ]
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
        repair_all(store, report["repairs"])
        for page in pages:
            log.artifact(page.result())
        pool.submit(gc.freeze)  # as in stages/errors.py


if __name__ == "__main__":
    run(main)
