"""The journal's tables: predictions in blocks, their layouts, and outcomes."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)

SCHEMA, FORMER = 3, 2
SPAN_SECONDS = 0.25
"""Time between the first prediction of a block and any other one; bounds the search for the block of an id."""


class _Time(TypeDecorator[datetime]):  # pylint: disable=too-many-ancestors # SQLAlchemy's
    """A time with its zone; stored as UTC in SQLite, which has no time zones."""

    # pylint: disable=unused-argument # the signatures are SQLAlchemy's
    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and (value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC))


metadata = MetaData()
blocks = Table(
    "blocks",
    metadata,
    Column("first_id", Text, primary_key=True, comment="Smallest id of the block; ids sort by time."),
    Column("last_id", Text, nullable=False, comment="Largest id of the block."),
    Column("created_at", _Time, nullable=False, comment="Time of the first prediction."),
    Column("model_version", Text, nullable=False),
    Column("layout", Text, nullable=False, comment="Digest of the bundle, of which `layouts` has the features."),
    Column("rows", Integer, nullable=False),
    Column("ids", LargeBinary, nullable=False, comment="16 bytes each, of which an id is the hexadecimal form."),
    Column("probabilities", JSON, nullable=False),
    Column("features", LargeBinary, nullable=False, comment="float64, little-endian, row by row; NaN is missing."),
    Column("requests_format", Text, nullable=False, comment="Form of `requests`: `rows` is a JSON array, as received."),
    Column("requests", LargeBinary, nullable=False),
)
layouts = Table(
    "layouts",
    metadata,
    Column("digest", Text, primary_key=True, comment="SHA-256 of the bundle's manifest."),
    Column("features", JSON, nullable=False, comment="Names in order, each with its categories by code, or null."),
)
outcomes = Table(
    "outcomes",
    metadata,
    Column("prediction_id", Text, primary_key=True),
    Column("received_at", _Time, nullable=False),
    Column("positive", Boolean, nullable=False, comment="Whether the predicted event happened."),
    Column("details", JSON, nullable=False, comment="The outcome as it was reported."),
)
schema = Table("journal_schema", metadata, Column("version", Integer, primary_key=True, autoincrement=False))
former = Table(
    "predictions_2",
    metadata,
    Column("id", Text, primary_key=True),
    Column("created_at", _Time, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("probability", Float, nullable=False),
    Column("features", JSON, nullable=False, comment="Values by name; null if missing or unseen."),
    Column("request", JSON, comment="The request as validated; null before this column existed."),
    Index("ix_predictions_created_at", "created_at"),
    comment="The predictions of schema 2, until they expire.",
)

VIEW = "predictions"
_COLUMNS = "created_at, model_version, layout, substr(features, 1 + {key} * width, width) AS features"
_BLOCKS = "(SELECT *, length(features) / rows AS width FROM blocks) AS block"
VIEWS = {
    "sqlite": f"""
        CREATE VIEW predictions AS
        SELECT lower(hex(substr(ids, 1 + 16 * key, 16))) AS id,
            json_extract(probabilities, '$[' || key || ']') AS probability, {_COLUMNS.format(key="key")},
            CASE requests_format WHEN 'rows' THEN value END AS request
        FROM {_BLOCKS},
            json_each(CASE requests_format WHEN 'rows' THEN CAST(requests AS TEXT) ELSE probabilities END)""",
    "postgresql": f"""
        CREATE VIEW predictions AS
        SELECT encode(substr(ids, (1 + 16 * key)::int, 16), 'hex') AS id, risk::float8 AS probability,
            {_COLUMNS.format(key="key::int")}, request
        FROM {_BLOCKS}, LATERAL (
            SELECT risk, request, number - 1 AS key
            FROM ROWS FROM (
                json_array_elements_text(probabilities),
                json_array_elements(
                    CASE requests_format WHEN 'rows' THEN convert_from(requests, 'UTF8')::json ELSE '[]' END
                )
            ) WITH ORDINALITY AS each (risk, request, number)
        ) AS row""",
}
"""The view of single predictions by dialect, for people; programs read the blocks."""


def id_at(moment: datetime) -> str:
    """Return the beginning of the ids of a moment, 12 hexadecimal digits of milliseconds since 1970."""
    return f"{max(0, int(moment.timestamp() * 1000)):012x}"
