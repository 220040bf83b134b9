"""Request and response schemas of the core; app/problem has the schemas of the problem. Every example is valid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, create_model
from pydantic.fields import FieldInfo

from app.batches.read import COLUMNS_KEY, MAX_ROWS
from app.interface import EXAMPLE, OUTCOME_EXAMPLE, POSITIVE, ROWS_NOUN, Outcome, Request
from app.model.prediction import Explanation
from app.model.served import ModelVersion, Source
from app.problem_kit.models import Strict

MAX_BATCH = 1000
"""Outcomes that are reported together, or rows of tensors."""


class Batch(Strict):
    """Requests that are predicted together, in their order."""

    model_config = ConfigDict(
        alias_generator=lambda _: ROWS_NOUN, json_schema_extra={"examples": [{ROWS_NOUN: [EXAMPLE]}]}
    )

    rows: Annotated[list[Request], FailFast()] = Field(min_length=1, max_length=MAX_ROWS)


def _lists(of: Callable[[FieldInfo], Any]) -> Any:
    """Return a schema with a list of values for each field of a request; `of` gives the type of the values."""
    fields: dict[str, Any] = {}
    for name, field in Request.model_fields.items():
        size = Field(... if field.is_required() else None, min_length=1, max_length=MAX_ROWS)
        fields[name] = (list[of(field)], size)  # type: ignore[misc]
    return create_model("Columns", __base__=Strict, __doc__="A list of values for each field of a request.", **fields)


_COLUMNS = _lists(lambda field: Annotated[field.annotation, *field.metadata, Field(description=field.description)])
_ANY_COLUMNS = _lists(lambda _: Any)


class ColumnarBatch(Strict):
    """Requests by column: the lists have one length, and the i-th values of all are a request."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{COLUMNS_KEY: {name: [value] for name, value in EXAMPLE.items()}}]}
    )

    columns: _COLUMNS  # type: ignore[valid-type]


class AnyColumns(Strict):
    """The same with values of any type: Pydantic validates them by row."""

    columns: _ANY_COLUMNS  # type: ignore[valid-type]


class Outcomes(Strict):
    """Outcomes that are recorded together."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"outcomes": [OUTCOME_EXAMPLE]}]})

    outcomes: list[Outcome] = Field(min_length=1, max_length=MAX_BATCH)


class Recorded(BaseModel):
    """A recorded outcome."""

    prediction_id: str
    positive: bool = Field(description=f"Whether the predicted event happened: {POSITIVE}.")
    unchanged: bool = Field(description="Whether the same outcome had been recorded before, so that nothing changed.")


class RecordedBatch(BaseModel):
    """The result of a batch of outcomes."""

    recorded: int = Field(description="Number of predictions whose outcome is new, or differs from the one before.")
    unchanged: int = Field(description="Number of predictions whose outcome had been recorded before, the same.")
    unknown: list[str] = Field(description="Ids without a prediction in the journal; their outcomes were not recorded.")


class Prediction(BaseModel):
    """The prediction for one request."""

    prediction_id: str = Field(
        description="Id of the prediction, for its outcome.", examples=["0190b6c2f8c94e4f9d0f6f4f3d2b1a00"]
    )
    probability: float = Field(
        description=f"Probability of {POSITIVE}.",
        ge=0,
        le=1,
        examples=[0.62],
    )
    alert: bool = Field(description="Whether the probability is at least the threshold.", examples=[True])
    threshold: float = Field(description="The model's decision threshold.", ge=0, le=1, examples=[0.35])
    model: ModelVersion
    explanation: Explanation | None = Field(default=None, description="Present with `explain=true`.")


class BatchPrediction(BaseModel):
    """The predictions for a batch, in its order."""

    predictions: list[Prediction]


class Live(BaseModel):
    """The process is running."""

    status: Literal["live"] = "live"


class Ready(BaseModel):
    """A model is loaded and reproduces its golden requests."""

    status: Literal["ready"] = "ready"
    model: ModelVersion


class Version(BaseModel):
    """The served version and its origin."""

    model: ModelVersion
    alias: str = Field(description="Alias of the version when it was loaded.")
    source: Source = Field(
        description="`registry`: named by the registry since the start. Otherwise a copy: `baked` in the image, or "
        "`cache`, what an earlier start downloaded and verified."
    )
    run_id: str | None = Field(description="MLflow run that trained the model.")
    bundle_digest: str = Field(description="SHA-256 of the bundle's manifest.")
    threshold: float
    training_data_sha256: str = Field(description="SHA-256 of the rows that the model was trained on.")
    commit: str | None = Field(description="Git commit of the service's code.")


class FieldError(BaseModel):
    """One invalid field of a request."""

    field: str = Field(examples=[next(iter(EXAMPLE))])
    message: str = Field(examples=["Field required"])


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    type: str = Field(default="about:blank")
    title: str = Field(description="Reason phrase of the status.")
    status: int = Field(description="HTTP status code.")
    detail: str = Field(description="The cause of the error.")
    error: str | None = Field(default=None, description="The detail, for the Open Inference Protocol: under /v2 only.")
    errors: list[FieldError] | None = Field(default=None, description="The invalid fields.")
    errors_omitted: int | None = Field(default=None, description="Number of further errors, which are not listed.")
