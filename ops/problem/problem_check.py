"""The checks of `on-time problem check`: the problem's functions must be consistent on the data in data/."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from app.batches.read import ArrowBatch
from app.interface import (
    CATEGORIES,
    EXAMPLE,
    FEATURE_NAMES,
    OUTCOME_EXAMPLE,
    Lookups,
    Outcome,
    Request,
    arrays_of_requests,
    compute,
    compute_one,
    from_arrays,
)
from app.problem_kit.features import day_number
from ops.data.incoming import convert
from stages import interface
from stages.base.errors import DataInvalid
from stages.features.compute import rows_of
from stages.interface import TABLES
from stages.params import Params
from stages.problem_kit.columns import kind
from stages.problem_kit.params import Coverage
from stages.problem_kit.rows import LabelledRows
from stages.problem_kit.rules import Tables
from stages.tables.checks import check_tables
from stages.tables.fetch import DATA_DIR, missing
from stages.tables.partitions import Store, split
from stages.tables.read import load_tables

CARD_KEYS = {"predicts", "data", "intervals", "scenarios", "limits"}
SAMPLE_ROWS = 500


def problems(p: Params) -> list[str]:
    """Return one line per violation; an exception in a check becomes a line. Raises DataInvalid without tables."""
    absent = missing(DATA_DIR, [f"{table}.csv" for table in TABLES])
    if absent:
        raise DataInvalid(f"{DATA_DIR}/ lacks {', '.join(absent)}. `make data` fetches the pinned tables.")
    found: list[str] = []
    for check in (_serving, _training, _by_month):
        try:
            found += [message for holds, message in check(p) if not holds]
        except Exception as err:  # pylint: disable=broad-exception-caught # whatever the problem's code raises
            first_line = str(err).partition("\n")[0]
            found.append(f"{_where(err)} raises {type(err).__name__}: {first_line}")
    return found


def _where(err: Exception) -> str:
    """Return the innermost line of the problem's packages in the traceback."""
    trace, place = err.__traceback__, "a check"
    while trace:
        name = trace.tb_frame.f_globals.get("__name__", "")
        if name.startswith(("app.problem", "stages.problem")):
            place = f"{name}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _valid(model: type[Request] | type[Outcome], body: object) -> bool:
    try:
        model.model_validate(body)
    except ValidationError:
        return False
    return True


def _serving(_: Params) -> Iterator[tuple[bool, str]]:
    yield _valid(Request, EXAMPLE), "EXAMPLE is not a valid Request"
    yield _valid(Outcome, OUTCOME_EXAMPLE), "OUTCOME_EXAMPLE is not a valid Outcome"
    positive = Outcome.model_validate(OUTCOME_EXAMPLE).positive
    yield isinstance(positive, bool), f"Outcome.positive is {positive!r}, neither True nor False"
    yield len(set(FEATURE_NAMES)) == len(FEATURE_NAMES), "FEATURES has a name twice"
    for case in interface.EDGE_CASES:
        yield _valid(Request, EXAMPLE | case), f"EXAMPLE with the edge case {case} is not a valid Request"
    yield set(interface.CARD) == CARD_KEYS, f"CARD has other keys than {', '.join(sorted(CARD_KEYS))}"


def _training(p: Params) -> Iterator[tuple[bool, str]]:
    yield isinstance(p.problem, Coverage), "Params is not a subclass of stages.problem_kit.params.Coverage"
    tables = load_tables(DATA_DIR)
    for table, frame in tables.items():
        found = interface.days(table, frame, p.problem)
        yield found is None or len(found) == len(frame), f"days: {table} has {len(frame)} rows and not as many days"
    check_tables(tables, p)  # raises what a rule raises
    rows, problem = interface.labelled_rows(tables, p.problem), p.problem
    shapes = {len(part) for part in (rows.frame, rows.target, rows.day, rows.group, rows.key)}
    yield len(shapes) == 1, f"labelled_rows: frame, target, day, group and key have {sorted(shapes)} rows"
    known = len(np.unique(rows.key))
    yield known == len(rows), f"labelled_rows: {len(rows)} rows have only {known} keys"
    yield set(np.unique(rows.target)) <= {0, 1}, "labelled_rows: target has other values than 0 and 1"
    for name, period in (("train", p.train_period), ("test", p.test_period)):
        yield bool(
            rows.within(period).any()
        ), f"labelled_rows: no row is in featurize.{name}, {period[0]} to {period[1]}"
    lookups = interface.lookups(tables, [rows.where(rows.within(p.train_period)).frame], problem)
    again = Lookups.from_json(json.loads(json.dumps(lookups.to_json())))
    yield again.to_json() == lookups.to_json(), "Lookups: from_json(to_json()) gives other lookups"
    yield set(CATEGORIES) <= set(lookups.vocabularies), "Lookups: vocabularies lacks a feature of the kind category"
    step = max(1, len(rows) // SAMPLE_ROWS)
    sample = rows.where(np.arange(len(rows)) % step == 0)
    yield from _features(sample, interface.arrays_of_rows(sample.frame, tables, again, problem), again)
    for scenario in interface.scenarios(problem):
        features = compute(interface.arrays_of_rows(sample.frame, tables, again, problem, scenario), again)
        yield features.shape == (len(sample), len(FEATURE_NAMES)), f"scenario {scenario}: features have another shape"
    identity = {"prediction_id": OUTCOME_EXAMPLE["prediction_id"]}
    reported = [identity | body for body in interface.outcomes(sample.frame, problem)]
    yield all(_valid(Outcome, body) for body in reported), "outcomes: a body is not a valid Outcome"
    positives = [Outcome.model_validate(body).positive for body in reported]
    yield positives == (sample.target == 1).tolist(), "outcomes: Outcome.positive differs from the target"
    yield from _recorded(sample, tables, interface.arrays_of_rows(sample.frame, tables, again, problem), reported, p)


def _by_month(p: Params) -> Iterator[tuple[bool, str]]:
    """Compare results computed by month with results computed from whole tables."""
    tables = load_tables(DATA_DIR)
    store = split(tables, p.problem, "month")
    for table in store.dated:
        for name, described in TABLES[table].items():
            yield not described.unique, f"TABLES: {table}.{name} is unique, which is checked by month only: add a rule"
    yield from _rules_by_month(_shuffled(tables, store.dated), p)
    others = _months_with_other_features(tables, store, p)
    yield not others, (
        f"reach_days: {', '.join(others)} have other rows or features by month than in whole tables; "
        "`labelled_rows` or `arrays_of_rows` read more days around a row"
    )


def _rules_by_month(tables: Tables, p: Params) -> Iterator[tuple[bool, str]]:
    whole, by_month = (
        {rule["name"]: (rule["violating"], rule["checked"]) for rule in check_tables(each, p)["rules"]}
        for each in (tables, split(tables, p.problem, "month"))
    )
    for name, counts in whole.items():
        found = by_month.get(name, (0, 0))
        yield found == counts, (
            f"rule {name}: by month {found[0]} of {found[1]} are violations, in whole tables {counts[0]} of "
            f"{counts[1]}; add it with across or reach"
        )


def _months_with_other_features(tables: Tables, store: Store, p: Params) -> list[str]:
    """Return the months whose first or last day has other rows or features by month than in whole tables."""
    rows = interface.labelled_rows(tables, p.problem)
    lookups = interface.lookups(tables, [rows.where(rows.within(p.train_period)).frame], p.problem)
    names = []
    for partition in store.partitions:
        edges = [day_number(day) for day in (partition.first, partition.last)]
        near = store.around(partition, interface.reach_days(p.problem))
        whole, own = (
            compute(interface.arrays_of_rows(part.frame[np.isin(part.day, edges)], read, lookups, p.problem), lookups)
            for part, read in ((rows, tables), (rows_of(near, partition, p.problem), near))
        )
        if whole.tobytes() != own.tobytes():
            names.append(partition.name)
    return names


def _shuffled(tables: Tables, names: list[str]) -> Tables:
    """Return tables with the values of each numeric column shuffled, so that rules are violated."""
    rng, shuffled = np.random.default_rng(0), dict(tables)
    for table in names:
        numbers = [name for name, described in TABLES[table].items() if kind(described) == "real"]
        frame = tables[table]
        shuffled[table] = frame.assign(**{name: rng.permutation(frame[name].to_numpy()) for name in numbers})
    return shuffled


def _recorded(
    sample: LabelledRows, tables: Tables, made: Any, reported: list[Any], p: Params
) -> Iterator[tuple[bool, str]]:
    if interface.raw_rows is None:
        return
    requests = [Request.model_validate(body) for body in interface.requests(made)]
    raw = interface.raw_rows(requests, [Outcome.model_validate(body) for body in reported], tables)
    rows = interface.labelled_rows(
        tables | {table: convert(frame, table)[0] for table, frame in raw.items()}, p.problem
    )
    after, before = (sorted(zip(found.day, found.target, strict=True)) for found in (rows, sample))
    yield after == before, "raw_rows: requests and outcomes become rows with other days or targets than they had"


def _features(sample: LabelledRows, made: Any, lookups: Lookups) -> Iterator[tuple[bool, str]]:
    features = compute(made, lookups)
    yield features.dtype == np.float64, f"compute returns {features.dtype}, not float64"
    yield features.shape == (len(sample), len(FEATURE_NAMES)), (
        f"compute returns the shape {features.shape}, not {(len(sample), len(FEATURE_NAMES))}"
    )
    bodies = json.loads(json.dumps(interface.requests(made)))
    requests = [Request.model_validate(body) for body in bodies]
    sent = compute(arrays_of_requests(requests), lookups)
    yield sent.tobytes() == features.tobytes(), "requests: as requests, rows have other features than as rows"
    single = np.array([compute_one(request, lookups) for request in requests])
    yield single.tobytes() == sent.tobytes(), "compute_one differs from compute"
    if from_arrays is not None:
        batch, _ = ArrowBatch(_stream(requests)).read()
        arrays = np.concatenate([compute(part, lookups) for part in batch.columns])
        yield arrays.tobytes() == sent.tobytes(), "from_arrays: as arrays, requests have other features than as objects"


def _stream(requests: list[Any]) -> bytes:
    """Return requests as an Arrow stream."""
    table = pa.Table.from_pylist([request.model_dump() for request in requests])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
