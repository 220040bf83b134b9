"""The drift monitor: reads registry and journal, compares, and publishes the results."""

import logging
import tempfile
import time
from pathlib import Path

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from prometheus_client import start_http_server
from pydantic import Field
from pydantic_settings import SettingsConfigDict
from sqlalchemy.exc import SQLAlchemyError

from app.errors import ModelUnavailable, OnTimeError
from app.interface import NAME
from app.journal import database
from app.settings import JOURNAL, Inherited
from ops.monitoring.drift import journal, report
from ops.monitoring.drift.compare import Alarm, alarms, compare_window
from ops.monitoring.drift.gauges import Gauges
from ops.monitoring.drift.reference import Reference, load_reference
from stages import params
from stages.tracking import mlflow_runs

log = logging.getLogger("ops.monitoring.drift")


class DriftSettings(Inherited):
    """Settings of the drift monitor, each from the variable ONTIME_DRIFT_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="ONTIME_DRIFT_")

    host: str = "127.0.0.1"
    """Address of /metrics."""

    port: int = Field(default=8001, ge=1, le=65535)
    """Port of /metrics."""

    minutes: float = Field(default=15, gt=0)
    """Time between two runs."""

    window_hours: float = Field(default=168, gt=0)
    """Length of a window."""

    window_rows: int = Field(default=10_000, gt=0)
    """Most predictions in a window; of more, a sample is drawn."""

    registry_seconds: float = Field(default=30, gt=0)
    """Time between two reads of the registry's aliases."""

    journal_url: str = Field("sqlite:///journal.db", pattern=JOURNAL, validation_alias="ONTIME_JOURNAL_URL")
    """The service's journal; the variable is the service's own."""

    model_name: str = Field(default=NAME, validation_alias="ONTIME_MODEL_NAME")
    """Name of the model; the variable is the service's own."""

    model_alias: str = Field(default="production", validation_alias="ONTIME_MODEL_ALIAS")
    """Alias of the version that is served; the variable is the service's own."""

    reports: Path = Path("build/drift")
    """Folder of the HTML pages."""

    keep: int = Field(default=20, gt=0)
    """Number of pages to keep in the folder."""


class Monitor:
    """Reads the registry often, and compares the journal's last window at longer intervals."""

    def __init__(self, settings: DriftSettings) -> None:
        self.settings, self.policy = settings, params.load().monitor.drift
        self.gauges = Gauges(settings.minutes * 60)
        self.client = mlflow_runs.connect()
        self.engine = database.connect(settings.journal_url)
        self._reference: tuple[tuple[str, str], Reference] | None = None  # with version and digest
        self._news: tuple[object, ...] = ()

    def look_up(self) -> str | None:
        """Export what the registry's aliases name, and return the version that is watched."""
        try:
            aliases = self.client.get_registered_model(self.settings.model_name).aliases
        except MlflowException as err:
            self.gauges.alias.clear()
            raise ModelUnavailable(f"{database.first_line(err)}. `make repro` registers a version.") from err
        versions = {alias: str(version) for alias, version in aliases.items()}
        self.gauges.aliases(self.settings.model_name, versions)
        return versions.get(self.settings.model_alias)

    def _load(self, registered: ModelVersion) -> Reference:
        """Return the reference of a version, from the registry if the number or its bundle is new."""
        key = str(registered.version), registered.tags.get(mlflow_runs.DIGEST_TAG, "")
        if self._reference is None or self._reference[0] != key:
            with tempfile.TemporaryDirectory() as scratch:
                found = mlflow.artifacts.download_artifacts(f"models:/{registered.name}/{key[0]}", dst_path=scratch)
                self._reference = key, load_reference(Path(found) / "extra_files", *key, self.policy)
            self.gauges.limits(self._reference[1])
        return self._reference[1]

    def check(self, version: str) -> tuple[ModelVersion, int, list[Alarm]]:
        """Compare the last window of a version with its reference; return version, number of predictions and alarms."""
        registered, settings = self.client.get_model_version(self.settings.model_name, version), self.settings
        reference, created = self._load(registered), registered.creation_timestamp / 1000
        read = journal.read_window(self.engine, version, settings.window_hours, settings.window_rows, created)
        window, labelled = read.predictions, read.known
        self.gauges.ran(len(window), len(labelled))
        if len(window) < self.policy.min_rows:
            log.warning("%d predictions of version %s, %d are needed", len(window), version, self.policy.min_rows)
            return registered, len(window), []
        found = compare_window(reference, window, labelled, read.whole)
        self.gauges.found(version, found)
        beyond = alarms(reference, found)
        result = "; ".join(map(str, beyond)) or "no alarm"
        if not read.whole:
            result += "; the window is not complete yet, PSI is not measured"
        log.info("%d predictions, %d with an outcome: %s", len(window), len(labelled), result)
        html = report.write_html(reference, window, settings.reports, settings.keep)
        news = (version, sorted({alarm.kind for alarm in beyond}), time.strftime("%F"))
        if news != self._news:  # MLflow gets a run a day, and one whenever something changes
            report.log_run(reference, found, beyond, html)
            self._news = news
        return registered, len(window), beyond

    def step(self, now: float, due: float) -> float:
        """Read the registry, and run when it is time; return when the next run is due."""
        try:
            version = self.look_up()
            if now < due:
                return due
            if version is None:
                log.warning("no version has the alias %s: promote one by `make promote`", self.settings.model_alias)
            else:
                self.check(version)
        except (OnTimeError, MlflowException, SQLAlchemyError, OSError) as err:
            log.error("the run failed: %s: %s", type(err).__name__, database.first_line(err))
            self.gauges.failures.inc()
        return now + self.settings.minutes * 60 if now >= due else due


def serve() -> None:
    """Serve the metrics, and check predictions every few minutes, until the process is ended."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    settings = DriftSettings.read()
    monitor = Monitor(settings)
    start_http_server(settings.port, settings.host, monitor.gauges.registry)
    log.info("metrics on http://%s:%d/metrics, a run every %g minutes", settings.host, settings.port, settings.minutes)
    due = 0.0
    while True:
        due = monitor.step(time.monotonic(), due)
        time.sleep(settings.registry_seconds)
