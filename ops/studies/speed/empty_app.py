"""The baseline of `on-time bench serving`: an empty FastAPI endpoint with the schemas of the service."""

from fastapi import FastAPI

from app.api.schemas import Prediction
from app.interface import NAME, Request
from app.model.served import ModelVersion

app = FastAPI()


@app.post("/predict")
async def predict(_: Request) -> Prediction:
    """Return a constant."""
    model = ModelVersion(name=NAME, version="1")
    return Prediction(prediction_id="0" * 32, probability=0.5, alert=True, threshold=0.35, model=model)
