"""The receiver of alerts: logs each one, starts the retraining command, and alarms when the Watchdog is missing."""

import asyncio
import hmac
import json
import logging
import shlex
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from pydantic import BaseModel, Field
from pydantic_settings import SettingsConfigDict

from app.settings import Inherited

CHECK_SECONDS = 1.0
COMMAND_SECONDS = 60.0
"""Limit of the command that notifies people."""
RESULTS = ("started", "busy", "done", "failed")

log = logging.getLogger("ops.monitoring.alert_receiver")


class ReceiverSettings(Inherited):
    """Settings of the alert receiver, each from the variable ONTIME_RECEIVER_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="ONTIME_RECEIVER_")

    host: str = "127.0.0.1"
    """Address to listen on."""

    port: int = Field(default=8002, ge=0, le=65535)
    """Port to listen on."""

    token_file: Path | None = None
    """File with the token that Alertmanager sends; without a file, every sender is accepted."""

    silence_seconds: float = Field(default=180, gt=0)
    """Time without a Watchdog after which alerting is considered broken."""

    silence_command: str = ""
    """Command to run when the Watchdog is missing; it has to notify people by another way than Alertmanager."""

    retrain_command: str = "python -m ops.cli model retrain"
    """Command that decides on a retraining and starts it."""


class Alert(BaseModel):
    """One alert, as Alertmanager sends it."""

    status: str
    labels: dict[str, str]
    annotations: dict[str, str] = {}


class Notification(BaseModel):
    """A notification of Alertmanager: the alerts of one group."""

    alerts: list[Alert]


class Receiver:
    """The state of the receiver."""

    def __init__(self, settings: ReceiverSettings) -> None:
        self.settings = settings
        self.heard, self.silent = time.monotonic(), False  # a clock that is set raises no alarm
        self.retraining: asyncio.Task[None] | None = None
        self.registry = CollectorRegistry()
        name, text = "receiver_watchdog_timestamp_seconds", "Time of the last Watchdog."
        self.watchdog = Gauge(name, text, registry=self.registry)
        self.watchdog.set_to_current_time()
        self.alerts = Counter("receiver_alerts", "Alerts received.", ["status"], registry=self.registry)
        self.retrain = Counter("receiver_retrain", "Causes for retraining.", ["result"], registry=self.registry)
        for status in ("firing", "resolved"):
            self.alerts.labels(status)
        for result in RESULTS:
            self.retrain.labels(result)

    def take(self, notification: Notification) -> None:
        """Log each alert as one line of JSON."""
        for alert in notification.alerts:
            self.alerts.labels(alert.status).inc()
            log.warning(json.dumps({"status": alert.status} | alert.labels | alert.annotations))

    def record_watchdog(self) -> None:
        """Record that the Watchdog has arrived."""
        if self.silent:
            log.warning("the Watchdog has arrived again")
        self.heard, self.silent = time.monotonic(), False
        self.watchdog.set_to_current_time()

    async def listen(self) -> None:
        """Alarm once whenever the Watchdog is missing."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            if not self.silent and time.monotonic() - self.heard > self.settings.silence_seconds:
                self.silent = True
                log.critical("no Watchdog for %.0f s: no alert arrives", time.monotonic() - self.heard)
                if self.settings.silence_command:
                    await _run(self.settings.silence_command, COMMAND_SECONDS)

    def start_retraining(self, names: list[str]) -> str:
        """Start the command unless it runs; return `started` or `busy`."""
        result = "busy" if self.retraining and not self.retraining.done() else "started"
        self.retrain.labels(result).inc()
        log.warning("retraining because of %s: %s", ", ".join(names), result)
        if result == "started":
            self.retraining = asyncio.create_task(self._retrain())
        return result

    async def _retrain(self) -> None:
        code = await _run(self.settings.retrain_command)
        self.retrain.labels("failed" if code else "done").inc()


async def _run(command: str, seconds: float | None = None) -> int:
    """Run a command, its output among ours, and return its exit code; 127 if the program does not exist.

    The command is killed after `seconds`.
    """
    try:
        process = await asyncio.create_subprocess_exec(*shlex.split(command))
    except (OSError, ValueError) as err:  # ValueError: a quote without its end
        log.error("%s: %s", command, err)
        return 127
    try:
        code = await asyncio.wait_for(process.wait(), seconds)
    except TimeoutError:
        with suppress(ProcessLookupError):  # it has just ended
            process.kill()
        code = await process.wait()
    log.log(logging.ERROR if code else logging.INFO, "`%s` ended with %d", command, code)
    return code


def create_app(settings: ReceiverSettings) -> FastAPI:
    """Return the application."""
    receiver = Receiver(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        listening = asyncio.create_task(receiver.listen())
        yield
        listening.cancel()

    def permitted(authorization: Annotated[str, Header()] = "") -> None:
        if settings.token_file is None:
            return
        token = settings.token_file.read_text(encoding="utf-8").strip()
        if not token or not hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
            raise HTTPException(401, "The token is not the one in ONTIME_RECEIVER_TOKEN_FILE.")

    app = FastAPI(title="On-time, alerts", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    guard = [Depends(permitted)]

    @app.post("/alerts", dependencies=guard)
    async def alerts(notification: Notification) -> None:
        receiver.take(notification)

    @app.post("/watchdog", dependencies=guard)
    async def watchdog(notification: Notification) -> None:
        if any(alert.status == "firing" for alert in notification.alerts):
            receiver.record_watchdog()

    @app.post("/retrain", dependencies=guard)
    async def retrain(notification: Notification) -> dict[str, str]:
        names = sorted(
            {a.labels.get("alertname", "an alert without a name") for a in notification.alerts if a.status == "firing"}
        )
        return {"result": receiver.start_retraining(names) if names else "resolved"}

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> dict[str, Any]:
        if receiver.silent:
            raise HTTPException(503, "The Watchdog is missing: no alert arrives.")
        return {"watchdog_seconds_ago": round(time.monotonic() - receiver.heard, 1)}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(receiver.registry), media_type="text/plain; version=0.0.4")

    return app


def serve() -> None:
    """Serve until the process is ended."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    settings = ReceiverSettings.read()
    uvicorn.run(create_app(settings), host=settings.host, port=settings.port, log_level="warning")
