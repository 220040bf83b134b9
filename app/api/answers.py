"""Predictions as the bodies of responses: JSON and Arrow streams."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pydantic_core import to_json

from app.batches.stream import MEDIA_TYPE, write
from app.model.prediction import Explanation, Predictions


def json_single(predictions: Predictions, explanation: Explanation | None = None) -> bytes:
    """Return the only prediction as the JSON of `schemas.Prediction`."""
    (one,) = predictions.contents()
    return to_json(one if explanation is None else one | {"explanation": explanation})


def json_batch(predictions: Predictions) -> bytes:
    """Return the predictions as the JSON of `schemas.BatchPrediction`."""
    served = predictions.served
    known = to_json(served.constant)[1:-1]
    flags = [b"true" if risk >= served.bundle.threshold else b"false" for risk in predictions.probabilities]
    numbers = to_json(predictions.probabilities)[1:-1].split(b",")
    parts = [
        b'{"prediction_id":"%b","probability":%b,"alert":%b,%b}' % (name.encode(), number, flag, known)
        for name, number, flag in zip(predictions.ids, numbers, flags, strict=True)
    ]
    return b'{"predictions":[%b]}' % b",".join(parts)


def arrow_batch(predictions: Predictions) -> bytes:
    """Return the predictions as an Arrow stream with the columns of `schemas.Prediction`."""
    served, risks = predictions.served, np.array(predictions.probabilities)
    return write(
        {
            "prediction_id": pa.array(predictions.ids),
            "probability": pa.array(risks),
            "alert": pa.array(risks >= served.bundle.threshold),
            "threshold": pa.repeat(served.bundle.threshold, len(risks)),
            "model": pa.repeat(pa.scalar(served.constant["model"]), len(risks)),
        }
    )


def encode_batch(predictions: Predictions, accept: str) -> tuple[bytes, bytes]:
    """Return the response to a batch and its media type: an accepted one, otherwise the media type of the request."""
    if MEDIA_TYPE in accept or predictions.format == "arrow" and "application/json" not in accept:
        return arrow_batch(predictions), MEDIA_TYPE.encode()
    return json_batch(predictions), b"application/json"
