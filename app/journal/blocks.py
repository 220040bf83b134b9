"""Blocks of predictions, as the journal stores them: consecutive ones of one version, their features packed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from struct import Struct
from typing import Any

import numpy as np
from pydantic_core import from_json, to_json
from sqlalchemy import ColumnElement, Connection, Row, and_, or_, select

from app.batches.read import rows_of
from app.interface import CATEGORIES, FEATURE_NAMES
from app.journal.tables import SPAN_SECONDS, blocks
from app.model.bundles import Bundle
from app.model.prediction import Predictions
from app.problem_kit.features import Floats

_pack = Struct(f"<{len(FEATURE_NAMES)}d").pack  # of one row, in a third of NumPy's time
STEP = 100
"""Ids that are looked up at once; each may be in another block."""


def block(part: Sequence[Predictions]) -> dict[str, Any]:
    """Return the row of `blocks` for predictions of one version."""
    ids = list(chain.from_iterable([batch.ids for batch in part]))
    served = part[0].served
    is_stream = _is_stream(part[0])
    return {
        "first_id": min(ids),
        "last_id": max(ids),
        "created_at": datetime.fromtimestamp(part[0].created, UTC),
        "model_version": served.version,
        "layout": served.bundle.digest,
        "rows": len(ids),
        "ids": bytes.fromhex("".join(ids)),
        "probabilities": list(chain.from_iterable([batch.probabilities for batch in part])),
        "features": b"".join(map(_features, part)),
        "requests_format": "arrow" if is_stream else "rows",
        "requests": part[0].received if is_stream else b"[%b]" % b",".join(map(_requests, part)),
    }


def joins(batch: Predictions, first: Predictions) -> bool:
    """Return whether predictions may be in the block of the first ones; an Arrow stream is a block of its own."""
    if _is_stream(batch) or _is_stream(first):
        return False
    return batch.served is first.served and abs(batch.created - first.created) <= SPAN_SECONDS


def _is_stream(batch: Predictions) -> bool:
    return bool(batch.received) and batch.format == "arrow"


def _requests(batch: Predictions) -> bytes:
    return batch.received or to_json(batch.requests, exclude_none=True)[1:-1]


def _features(batch: Predictions) -> bytes:
    if len(batch.rows) == 1:
        return _pack(*batch.rows[0])
    return np.asarray(batch.rows, "<f8").tobytes()


def layout(bundle: Bundle) -> dict[str, Any]:
    """Return the row of `layouts` for a bundle."""
    categories = {name: list(bundle.lookups.vocabularies[name]) for name in CATEGORIES}
    features = [{"name": name, "categories": categories.get(name)} for name in FEATURE_NAMES]
    return {"digest": bundle.digest, "features": features}


def ids_of(stored: bytes) -> list[str]:
    """Return the ids of a block, in the order of its rows."""
    digits = stored.hex()
    return [digits[i : i + 32] for i in range(0, len(digits), 32)]


def features_of(stored: bytes, rows: int) -> Floats:
    """Return the features of a block, shape (n, k)."""
    return np.frombuffer(stored, "<f8").reshape(rows, -1)


def requests_of(stored: bytes, form: str) -> list[dict[str, Any]]:
    """Return the requests of a block as dicts, in the order of its rows."""
    rows: list[dict[str, Any]] = from_json(stored) if form == "rows" else rows_of(stored)
    return rows


def holding(
    connection: Connection, ids: Sequence[str], *columns: ColumnElement[Any], lock: bool = False
) -> Iterator[tuple[Row[Any], dict[str, int]]]:
    """Yield each block that holds some of these ids, once, and where: each one's position by id.

    The ids have to be sorted; then several transactions that `lock` blocks do so in the same order.
    """
    wanted = set(ids)
    for start in range(0, len(ids), STEP):
        some = wanted.intersection(ids[start : start + STEP])
        if not some:
            continue
        query = select(blocks.c.ids, *columns).where(_may_hold(some)).order_by(blocks.c.first_id)
        for found in connection.execute(query.with_for_update() if lock else query):
            positions = {name: i for i, name in enumerate(ids_of(found.ids)) if name in wanted}
            if positions:
                wanted -= positions.keys()
                yield found, positions


def _may_hold(ids: set[str]) -> ColumnElement[bool]:
    """Return the condition for blocks whose range contains one of these ids; it uses the primary key."""
    first, last = blocks.c.first_id, blocks.c.last_id
    return or_(*[and_(first.between(earliest(name), name), last >= name) for name in ids])


def earliest(name: str) -> str:
    """Return an id before which no block begins that holds this one."""
    return f"{max(0, int(name[:12], 16) - int(2000 * SPAN_SECONDS)):012x}"
