"""The application: its routes and its state."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Response
from fastapi.concurrency import run_in_threadpool
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST

from app import interface
from app.api import contract
from app.api.answers import encode_batch, json_single
from app.api.dependencies import ReadyModel, Served
from app.api.edge import bodies, middleware, problem_details
from app.api.fast_path import FastPath
from app.api.inference import v2
from app.api.page import routes
from app.api.page.live import Recent
from app.api.predictor import Predictor
from app.api.routes import outcomes
from app.api.routes.batch_body import BATCH
from app.api.schemas import BatchPrediction, Live, Prediction, Ready, Version
from app.batches.received import Received
from app.interface import DESCRIPTION, TITLE
from app.journal.writer import Journal
from app.metrics import Metrics
from app.model.prediction import Predictions, explain_prediction
from app.registry.watch import Watcher
from app.settings import Settings

VERSION_HEADER = "X-Model-Version"

log = logging.getLogger("app")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the baked model, start polling the alias and writing the journal; flush the journal at shutdown."""
    _drain_on_sigterm(app)
    watching, journal = app.state.watcher.start(), app.state.journal
    sampling = asyncio.create_task(app.state.recent.run())
    observing = asyncio.create_task(app.state.metrics.run())
    if journal:
        journal.start()
    gc.freeze()  # long-lived objects: excluded from the collections that large batches cause
    sys.setswitchinterval(0.0005)  # at Python's default, 5 ms, the journal's thread would delay requests
    yield
    watching.cancel()
    sampling.cancel()
    observing.cancel()
    if journal:
        await asyncio.to_thread(journal.close)


def _drain_on_sigterm(app: FastAPI) -> None:
    """On SIGTERM, make /readyz return 503, and stop the server after the time that load balancers need to notice."""
    if threading.current_thread() is not threading.main_thread():
        return
    loop, stop = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)
    seconds: float = app.state.settings.drain_seconds

    def drain(number: int, _: Any) -> None:
        log.info("SIGTERM: /readyz returns 503 from now on, stopping in %g s", seconds)
        app.state.draining = True
        if callable(stop):
            loop.call_soon_threadsafe(loop.call_later, seconds, stop, number, None)

    signal.signal(signal.SIGTERM, drain)


def create_service() -> FastPath:
    """Return the application that uvicorn runs: the fast path, and FastAPI behind it."""
    return FastPath(create_app(Settings()))


def create_app(settings: Settings) -> FastAPI:
    """Return FastAPI's application; it loads a model at startup and whenever the alias moves."""
    description: dict[str, Any] = {
        "title": TITLE,
        "description": DESCRIPTION,
        "version": "1",
        "lifespan": lifespan,
        "responses": problem_details.documented(401, 500, 503, 504),
        "redoc_url": None,
        "redirect_slashes": False,  # behind a proxy, the redirect's scheme and host would be wrong
        "telemetry": {"tracing": False, "metrics": False},  # app/metrics.py has the metrics
    }
    if settings.docs:
        app = FastAPIOffline(swagger_ui_parameters={"tryItOutEnabled": True}, **description)
    else:
        app = FastAPI(openapi_url=None, docs_url=None, **description)
    state = app.state
    state.settings = settings
    state.served, state.reason = None, "The model is being loaded."
    state.draining, state.in_progress = False, 0
    state.metrics = Metrics()
    state.predictor = Predictor(state.metrics)
    state.watcher, state.journal = Watcher(state), None
    if settings.journal_url:
        state.journal = state.predictor.journal = Journal(settings, state.metrics.journal)
    state.recent = Recent(state.metrics, settings)
    problem_details.install(app)
    if settings.docs:
        routes.install(app)
    _routes(app)
    outcomes.install(app)
    v2.install(app)
    _health(app)
    state.metrics.instrumentator().instrument(app)
    middleware.install(app)
    contract.install(app, keys=bool(settings.api_keys))
    return app


def _respond(predictions: Predictions, body: bytes, kind: str = "application/json") -> Response:
    return Response(body, media_type=kind, headers={VERSION_HEADER: predictions.served.version})


def _routes(app: FastAPI) -> None:
    predictor: Predictor = app.state.predictor

    @app.post(
        "/predict",
        tags=["predictions"],
        responses=problem_details.documented(400, 413, 415, 422),
        response_model=Prediction,
        openapi_extra=contract.body(interface.Request),
    )
    async def predict(
        served: Served,
        request: Annotated[interface.Request, Depends(bodies.REQUEST.read)],
        explain: bool = False,
        probe: bool = False,
    ) -> Response:
        """Predict one request, optionally with the contribution of each feature.

        `probe=true` is for health checks: the prediction is neither counted nor recorded.
        """
        predictions = predictor.single(served, request, probe)
        explanation = None
        if explain:
            explanation = await run_in_threadpool(explain_prediction, served.bundle, predictions.rows[0])
        return _respond(predictions, json_single(predictions, explanation))

    @app.post(
        "/predict/batch",
        tags=["predictions"],
        responses=problem_details.documented(400, 413, 415, 422),
        response_model=BatchPrediction,
        openapi_extra=contract.batch(),
    )
    async def predict_batch(
        served: Served,
        batch: Annotated[Received, Depends(BATCH.read)],
        accept: Annotated[str, Header(include_in_schema=False)] = "",
    ) -> Response:
        """Predict 1 to 10,000 requests: JSON by rows or by columns, or an Arrow IPC stream.

        The response has the media type of the request, or the other one if `Accept` names only that.
        """

        def predict_and_encode() -> Response:
            predictions = predictor.batch(served, batch)
            body, kind = encode_batch(predictions, accept)
            return _respond(predictions, body, kind.decode())

        return await run_in_threadpool(predict_and_encode)


def _health(app: FastAPI) -> None:
    @app.get("/livez", tags=["health"])
    async def livez() -> Live:
        """Check that the process runs, with or without a model."""
        return Live()

    @app.get("/readyz", tags=["health"])
    async def readyz(served: ReadyModel) -> Ready:
        """Check that a verified model is loaded and that the service is not shutting down."""
        return Ready(model=served.label)

    @app.get("/version", tags=["health"])
    async def version(served: Served) -> Version:
        """Get the served version and its origin."""
        return Version(
            model=served.label,
            alias=served.alias,
            source=served.source,
            run_id=served.run_id,
            bundle_digest=served.bundle.digest,
            threshold=served.bundle.threshold,
            training_data_sha256=served.bundle.manifest["training_data_sha256"],
            commit=app.state.settings.commit,
        )

    @app.get("/metrics", include_in_schema=False)
    def metrics() -> Response:
        return Response(app.state.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)
