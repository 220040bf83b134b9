"""`on-time bench pipeline`: the pipeline's wall time against one plain process, and its growth with the rows."""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from app.interface import Lookups
from app.model import bundle as model
from app.model.booster import Booster
from ops.ci.reproduce import clone, rerun
from stages import checks, evaluate, featurize, interface, params, train, validate
from stages.frames import TARGET, matrix
from stages.metrics import MetricSettings
from stages.params import Params
from stages.raw import load_tables
from stages.rows import Rows
from stages.rules import Tables

PLAIN = "one Python process, the same computations"
CHILD = """
import json, sys
from ops.bench import pipeline
print(json.dumps(pipeline.one_process(int(sys.argv[1]))))
"""


def one_process(times: int) -> dict[str, float]:
    """Run the stages without DVC and MLflow on repeated training rows; return seconds and peak memory."""
    started = time.perf_counter()
    p = params.load()
    raw = load_tables(featurize.DATA_DIR)
    report = checks.check(raw, p)
    with tempfile.TemporaryDirectory() as folder:
        for name, sample in validate.samples(raw).items():
            validate.write_summary(sample, name, len(raw[name]), Path(folder))
    lookups, training, test = _features(featurize.repair(raw, report["repairs"]), p, times)
    rolling, _ = train.rolling_origin(training, p.train)
    out_of_fold = evaluate.score(rolling, rolling["probability"])
    rule = p.train.threshold_rule, p.train.threshold_value
    threshold = train.choose_threshold(out_of_fold.target, out_of_fold.probability, *rule)
    booster = train.fit(matrix(training), training[TARGET].to_numpy(), p.train, {})
    bundle = model.Bundle(Booster(booster.model_to_string().encode()), lookups, threshold, "", {})
    scored, _ = evaluate.evaluate(training, test, bundle, p.evaluate)
    predictions = test.assign(probability=scored.probability)
    evaluate.backtest(rolling, predictions, MetricSettings(p.evaluate.ece_bins, p.evaluate.riskiest_share))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": round(time.perf_counter() - started, 1), "peak_mb": round(peak)}


def _features(tables: Tables, p: Params, times: int) -> tuple[Lookups, pd.DataFrame, pd.DataFrame]:
    rows = interface.rows(tables, p.problem)
    training, test = (rows.where(rows.within(period)) for period in p.featurize.periods(p.problem))
    lookups = interface.lookups(tables, training.frame, p.problem)
    repeated = Rows(
        pd.concat([training.frame] * times, ignore_index=True),
        np.tile(training.target, times),
        np.tile(training.day, times),
        np.tile(training.group, times),
        np.tile(training.key, times),
    )
    train_features = featurize.features(repeated, tables, lookups, p.problem)
    for scenario in interface.scenarios(p.problem):
        featurize.features(test, tables, lookups, p.problem, scenario)
    return lookups, train_features, featurize.features(test, tables, lookups, p.problem)


def _cpu() -> float:
    """Return the CPU seconds of all children that have ended; other programs change them less than wall time."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def in_a_process_of_its_own(times: int) -> dict[str, float]:
    """Run `one_process` in a new interpreter, so that imports are included and memory is measured separately."""
    started, used = time.perf_counter(), _cpu()
    command = [sys.executable, "-c", CHILD, str(times)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured | {"seconds": round(time.perf_counter() - started, 1), "cpu": round(_cpu() - used, 1)}


def pipeline() -> dict[str, float]:
    """Return the wall and CPU time of `dvc repro --force` in a clone of this working tree with an empty MLflow."""
    with tempfile.TemporaryDirectory(prefix="on-time-bench-") as folder:
        clone(folder)
        started, used = time.perf_counter(), _cpu()
        rerun(folder, quiet=True)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        seconds, cpu = time.perf_counter() - started, _cpu() - used
        return {"seconds": round(seconds, 1), "cpu": round(cpu, 1), "peak_mb": round(peak)}


def compare(rounds: int) -> None:
    """Measure both alternately; print them, their ratio, and the growth with the number of rows."""
    for _ in range(rounds):
        piped, plain = pipeline(), in_a_process_of_its_own(1)
        for name, found in (("dvc repro --force, MLflow on an empty SQLite", piped), (PLAIN, plain)):
            print(
                f"{name + ':':45} {found['seconds']:6.1f} s, CPU {found['cpu']:6.1f} s, peak {found['peak_mb']:,.0f} MB"
            )
        print(f"ratio {piped['seconds'] / plain['seconds']:.2f}, CPU {piped['cpu'] / plain['cpu']:.2f}", flush=True)
    for times in (3, 10):
        grown = in_a_process_of_its_own(times)
        growth = f"{grown['seconds']:6.1f} s ({grown['seconds'] / plain['seconds']:.1f} times)"
        print(f"training rows x{times:<2}: {growth}, peak {grown['peak_mb']:,.0f} MB", flush=True)
