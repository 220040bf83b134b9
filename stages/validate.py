"""Stage validate: write the raw tables by partition, check and repair them; a violated error rule ends the pipeline."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from stages import params
from stages.base.errors import run
from stages.base.paths import VALIDATION_FILE, write_json
from stages.tables import fetch, partitions
from stages.tables.checks import check_tables, enforce
from stages.tables.partitions import Store
from stages.tables.repairs import repair_all
from stages.tracking import mlflow_runs

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
    # pylint: disable=import-outside-toplevel # takes 3 s, which only the stage needs
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
    with mlflow_runs.stage_run("validate", p.validate_.model_dump(mode="json"), ["data"]) as log:
        store = partitions.write(fetch.DATA_DIR, p.problem, p.partition)
        report = check_tables(store, p)
        write_json(VALIDATION_FILE, report)
        log.metrics(
            rules=len(report["rules"]),
            failed=report["failed"],
            warnings=report["warnings"],
            repairs=len(report["repairs"]),
            **{f"rows_{table}": rows for table, rows in report["rows"].items()},
        )
        log.artifact(VALIDATION_FILE)
        enforce(report)
        large = {table: rows for table, rows in report["rows"].items() if rows > SUMMARY_ROWS and table in store.dated}
        samples = {table: sample(store, table, rows) for table, rows in large.items()}  # of the rows before repairs
        repair_all(store, report["repairs"])
        with tempfile.TemporaryDirectory() as folder:
            for table, frame in samples.items():
                log.artifact(write_summary(frame, table, large[table], Path(folder)))


if __name__ == "__main__":
    run(main)
