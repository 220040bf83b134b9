"""Stage featurize: compute features, target and lookups from the validated tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from app.interface import FEATURE_NAMES, Lookups, compute
from stages import interface, params, recording
from stages.errors import DataInvalid, ParamsInvalid, run
from stages.files import write_json
from stages.frames import DAY, GROUP, KEY, LOOKUPS_FILE, OUT_DIR, TARGET, scenario_file
from stages.interface import EDGE_CASES
from stages.raw import load_tables
from stages.rows import Rows
from stages.rules import Tables
from stages.sections import FeaturizeParams

DATA_DIR = Path("data")
REPAIRS_FILE = Path("build/repairs.json")

CHUNK_ROWS = 100_000


def repair(tables: Tables, repairs: list[dict[str, Any]]) -> Tables:
    """Return the tables with the repairs of `validate` applied: rows dropped, cells set to null."""
    tables = dict(tables)
    for item in repairs:
        frame = tables[item["table"]]
        rows = np.logical_and.reduce([frame[column].astype(str) == value for column, value in item["key"].items()])
        if rows.sum() != 1:
            raise DataInvalid(
                f"build/repairs.json: the key {item['key']} of {item['table']} matches {rows.sum()} rows, not one. "
                "`dvc repro validate` rewrites the file."
            )
        if item["action"] == "drop":
            tables[item["table"]] = frame[~rows].reset_index(drop=True)
        else:
            tables[item["table"]] = frame.assign(**{item["column"]: frame[item["column"]].where(~rows)})
    return tables


def load(p: interface.Params) -> tuple[Tables, Rows]:
    """Return the repaired tables in data/, and their rows."""
    repairs = json.loads(REPAIRS_FILE.read_text(encoding="utf-8"))
    tables = repair(load_tables(DATA_DIR), repairs)
    return tables, interface.rows(tables, p)


def features(rows: Rows, tables: Tables, lookups: Lookups, p: interface.Params, scenario: str = "") -> pd.DataFrame:
    """Return features, target, day, group and key of each row, computed in chunks to bound memory."""
    chunks = [
        compute(interface.columns(rows.frame.iloc[start : start + CHUNK_ROWS], tables, lookups, p, scenario), lookups)
        for start in range(0, len(rows), CHUNK_ROWS)
    ]
    frame = pd.DataFrame(np.concatenate(chunks), columns=list(FEATURE_NAMES))
    return frame.assign(**{TARGET: rows.target, DAY: rows.day, GROUP: rows.group, KEY: rows.key})


def golden_requests(
    rows: Rows, tables: Tables, lookups: Lookups, p: FeaturizeParams, problem: interface.Params
) -> list[dict[str, Any]]:
    """Return sampled requests; the last ones are changed to the problem's edge cases."""
    if not len(EDGE_CASES) <= p.golden_rows <= len(rows):
        raise ParamsInvalid(
            f"params.yaml: featurize.golden_rows is {p.golden_rows}, must be {len(EDGE_CASES)} (the edge cases of "
            f"stages/problem) to {len(rows)} (the training rows)."
        )
    frame = rows.frame.sample(p.golden_rows, random_state=p.seed).sort_index()
    drawn = interface.requests(interface.columns(frame, tables, lookups, problem))
    plain = len(drawn) - len(EDGE_CASES)
    return drawn[:plain] + [request | case for request, case in zip(drawn[plain:], EDGE_CASES, strict=True)]


def main() -> None:
    """Read raw tables and repairs; write features, lookups and samples to build/features."""
    all_params = params.load()
    p, problem = all_params.featurize, all_params.problem
    with recording.stage_run("featurize", p, inputs=["data"]) as log:
        tables, rows = load(problem)
        training, test = (rows.where(rows.within(period)) for period in p.periods(problem))
        if p.reference_rows > len(training):
            raise ParamsInvalid(
                f"params.yaml: featurize.reference_rows is {p.reference_rows}, there are {len(training)} training rows."
            )
        lookups = interface.lookups(tables, training.frame, problem)
        OUT_DIR.mkdir(parents=True, exist_ok=True)
        train = features(training, tables, lookups, problem)
        train.to_parquet(OUT_DIR / "train.parquet", index=False)
        reference = train.drop(columns=KEY).sample(p.reference_rows, random_state=p.seed).sort_index()
        reference.to_parquet(OUT_DIR / "reference.parquet")
        features(test, tables, lookups, problem).to_parquet(OUT_DIR / "test.parquet", index=False)
        for name in interface.scenarios(problem):
            features(test, tables, lookups, problem, name).to_parquet(scenario_file(name), index=False)
        write_json(LOOKUPS_FILE, lookups.to_json())
        write_json(OUT_DIR / "golden.json", golden_requests(training, tables, lookups, p, problem))
        log.metrics(train_rows=len(training), test_rows=len(test), train_rate=float(training.target.mean()))
        log.artifact(LOOKUPS_FILE)


if __name__ == "__main__":
    run(main)
