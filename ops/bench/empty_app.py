"""What `on-time bench serving` measures against: an empty FastAPI endpoint with the models of the service, nothing else."""

from __future__ import annotations

from fastapi import FastAPI

from app.api.schemas import Flight, ModelVersion, Prediction

app = FastAPI()


@app.post("/predict")
async def predict(flight: Flight) -> Prediction:
    """Answer a constant."""
    model = ModelVersion(name=flight.carrier, version="1")
    return Prediction(prediction_id="0" * 32, probability=0.5, alert=True, threshold=0.35, model=model)
