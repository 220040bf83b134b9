"""`on-time monitor`: watch the service and its model."""

# pylint: disable=import-outside-toplevel # a command imports what it runs

import os
from datetime import datetime

import click

from ops.cli.base import AMOUNT, DAY, Group

group = Group()
SERVICE = f"127.0.0.1:{os.environ.get('ONTIME_PORT') or 8000}"


@group.verb("ONTIME_DRIFT_MINUTES=5 on-time monitor drift", "build/drift and MLflow's runs")
def drift() -> None:
    """Run the drift monitor: it checks the journal every few minutes, and serves /metrics."""
    from ops.monitoring.drift import monitor

    monitor.serve()


@group.verb("on-time monitor drift-selftest", "nothing")
def drift_selftest() -> None:
    """Measure how often the drift monitor is wrong, and what it detects."""
    from ops.studies.drift import show_drift

    show_drift()


@group.verb(
    "ONTIME_RECEIVER_PORT=8002 on-time monitor receiver", "what the command in ONTIME_RECEIVER_RETRAIN_COMMAND changes"
)
def receiver() -> None:
    """Run the receiver of Alertmanager's notifications: it logs alerts, and starts retraining."""
    from ops.monitoring import alert_receiver

    alert_receiver.serve()


@group.verb("on-time monitor replay --week-seconds 30", "the journal of the service")
@click.option("--service", default=f"http://{SERVICE}", metavar="URL", help="Address of the service.")
@click.option("--first", type=DAY, help="First day (default: that of the test period).")
@click.option("--last", type=DAY, help="Last day (default: that of the test period).")
@click.option("--week-seconds", type=AMOUNT, default=60, help="Seconds in which a week is replayed.")
def replay(service: str, first: datetime | None, last: datetime | None, week_seconds: float) -> None:
    """Send the test period to the service in fast motion, outcomes following."""
    from ops.monitoring.replay import replay_period

    replay_period(service, first.date() if first else None, last.date() if last else None, week_seconds)


@group.verb("on-time monitor local --speed 60 --week-seconds 60", "build/drift and MLflow's runs")
@click.option("--speed", type=AMOUNT, default=1, help="Divide all windows and waits by this, to watch a replay.")
@click.option("--week-seconds", type=AMOUNT, default=604800, help="Seconds that a week of the replay takes.")
@click.option("--cadvisor", default="", show_default=False, metavar="HOST:PORT", help="cAdvisor, to watch containers.")
@click.option("--service", default=SERVICE, metavar="HOST:PORT", help="Address of the service.")
def local(speed: float, week_seconds: float, cadvisor: str, service: str) -> None:
    """Run Prometheus, Alertmanager and the drift monitor beside a service, with Debian's programs."""
    from ops.monitoring.local import watch_all

    watch_all(speed, week_seconds, cadvisor, service)
