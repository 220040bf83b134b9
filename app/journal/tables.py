"""The journal's tables: predictions in blocks, the features of each bundle, and outcomes."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import JSON, Boolean, Column, DateTime, Dialect, Integer, LargeBinary, MetaData, Table, Text
from sqlalchemy.types import TypeDecorator

SCHEMA = 4
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
    Column("layout", Text, nullable=False, comment="Digest of the bundle; `layouts` has its features."),
    Column("rows", Integer, nullable=False),
    Column("ids", LargeBinary, nullable=False, comment="16 bytes each; an id is their hexadecimal form."),
    Column("probabilities", JSON, nullable=False),
    Column("features", LargeBinary, nullable=False, comment="float64, little-endian, row by row; NaN is missing."),
    Column("requests_format", Text, nullable=False, comment="`rows`: a JSON array; `arrow`: a stream as received."),
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
schema = Table(
    "journal_schema",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("identity", Text, nullable=False, comment="Random; another one whenever the tables were created again."),
)

VIEWS = {
    "sqlite": """
        CREATE VIEW IF NOT EXISTS predictions AS
        SELECT lower(hex(substr(ids, 1 + 16 * key, 16))) AS id, created_at, model_version,
            json_extract(probabilities, '$[' || key || ']') AS probability,
            CASE requests_format WHEN 'rows' THEN value END AS request
        FROM blocks, json_each(CASE requests_format WHEN 'rows' THEN CAST(requests AS TEXT) ELSE probabilities END)""",
    "postgresql": """
        CREATE OR REPLACE VIEW predictions AS
        SELECT encode(substr(ids, 1 + 16 * (number::int - 1), 16), 'hex') AS id, created_at, model_version,
            probability::float8 AS probability, request
        FROM blocks, LATERAL ROWS FROM (
            json_array_elements_text(probabilities),
            json_array_elements(
                CASE requests_format WHEN 'rows' THEN convert_from(requests, 'UTF8')::json ELSE '[]' END
            )
        ) WITH ORDINALITY AS each (probability, request, number)""",
}
"""The view of single predictions by dialect, for people; programs read the blocks."""


def id_at(moment: datetime) -> str:
    """Return the beginning of the ids of a moment, 12 hexadecimal digits of milliseconds since 1970."""
    return f"{max(0, int(moment.timestamp() * 1000)):012x}"
