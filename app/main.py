"""The application: routes, and the model that they ask."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi_offline import FastAPIOffline
from pydantic.json_schema import models_json_schema

from app import problems
from app.errors import OnTimeError
from app.metrics import Metrics
from app.model import to_flights
from app.registry import ServedModel
from app.schemas import Batch, BatchPrediction, Flight, Live, ModelVersion, Prediction, Problem, Ready, Version
from app.settings import Settings
from app.watch import first_model

VERSION_HEADER = "X-Model-Version"
DESCRIPTION = """The probability that a flight leaving New York will not arrive on time:
15 or more minutes late, cancelled or diverted."""

log = logging.getLogger("app")


def served_model(request: Request) -> ServedModel:
    """Return the model of this request, or answer 503 while there is none."""
    served: ServedModel | None = request.app.state.served
    if served is None:
        raise HTTPException(503, request.app.state.reason)
    return served


Served = Annotated[ServedModel, Depends(served_model)]


def answer(served: ServedModel, flights: list[Flight], measured: Metrics) -> list[Prediction]:
    """Return the predictions of these flights, in their order."""
    started = time.perf_counter()
    probabilities = served.bundle.probabilities(to_flights(flights)).tolist()
    seconds = time.perf_counter() - started
    threshold, version = served.bundle.threshold, ModelVersion(name=served.name, version=served.version)
    measured.answered(served.version, seconds, sum(p >= threshold for p in probabilities), len(probabilities))
    return [
        Prediction(
            prediction_id=uuid.uuid4().hex, probability=p, alert=p >= threshold, threshold=threshold, model=version
        )
        for p in probabilities
    ]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the model; without one, stay alive and say why on /readyz."""
    try:
        app.state.served = await asyncio.to_thread(first_model, app.state.settings)
        app.state.metrics.serving(app.state.served)
        log.info("serving version %s of %s", app.state.served.version, app.state.served.name)
    except OnTimeError as err:
        log.error("no model is served: %s", err)
        app.state.reason = f"No model is loaded ({type(err).__name__}); the log has the reason."
    yield


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the application; it loads the model when it starts."""
    app = FastAPIOffline(
        title="On-time",
        description=DESCRIPTION,
        version="1",
        lifespan=lifespan,
        responses=problems.documented(500),
        swagger_ui_parameters={"tryItOutEnabled": True},
    )
    app.state.settings, app.state.served, app.state.reason = settings or Settings(), None, "The model is being loaded."
    app.state.metrics = Metrics()
    problems.install(app)
    _routes(app)
    app.state.metrics.instrumentator().instrument(app).expose(app, include_in_schema=False)
    _document_problems(app)
    return app


def _routes(app: FastAPI) -> None:
    measured: Metrics = app.state.metrics

    @app.post("/predict", tags=["predictions"], responses=problems.documented(422, 503))
    async def predict(flight: Flight, served: Served, response: Response) -> Prediction:
        """Predict one flight."""
        response.headers[VERSION_HEADER] = served.version
        return answer(served, [flight], measured)[0]

    @app.post("/predict/batch", tags=["predictions"], responses=problems.documented(422, 503))
    async def predict_batch(batch: Batch, served: Served, response: Response) -> BatchPrediction:
        """Predict 1 to 1,000 flights."""
        response.headers[VERSION_HEADER] = served.version
        return BatchPrediction(predictions=await run_in_threadpool(answer, served, batch.flights, measured))

    @app.get("/livez", tags=["health"])
    async def livez() -> Live:
        """Tell that the process runs, with or without a model."""
        return Live()

    @app.get("/readyz", tags=["health"], responses=problems.documented(503))
    async def readyz(served: Served) -> Ready:
        """Tell whether a verified model is loaded."""
        return Ready(model=ModelVersion(name=served.name, version=served.version))

    @app.get("/version", tags=["health"], responses=problems.documented(503))
    async def version(served: Served) -> Version:
        """Tell which model is served, and where it comes from."""
        return Version(
            model=ModelVersion(name=served.name, version=served.version),
            alias=served.alias,
            source=served.source,
            run_id=served.run_id,
            bundle_digest=served.bundle.digest,
            threshold=served.bundle.threshold,
            training_data_sha256=served.bundle.manifest["training_data_sha256"],
        )


def _document_problems(app: FastAPI) -> None:
    """Put the problem's schema into OpenAPI, where FastAPI would describe an error body that is never sent."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            schemas = make()["components"]["schemas"]
            _, extra = models_json_schema([(Problem, "serialization")], ref_template="#/components/schemas/{model}")
            schemas |= extra["$defs"]
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
        return make()

    app.openapi = openapi  # type: ignore[method-assign]
