"""What our three programs export passes `promtool check metrics`, with every series that they can have."""

from __future__ import annotations

import json
import subprocess

from fastapi.testclient import TestClient
from prometheus_client import generate_latest

from app.interface import CATEGORIES, EXAMPLE, FEATURE_NAMES
from app.model.bundles import Bundle
from ops.monitoring.alert_receiver import ReceiverSettings, create_app
from ops.monitoring.drift.compare import Findings, Quality
from ops.monitoring.drift.gauges import Gauges
from tests.support.clients.asgi import Client, make_service
from tests.support.monitoring import needs

pytestmark = needs("promtool")


def complaints(exposition: str) -> str:
    """Return what promtool says of metrics; nothing when they are as they should be."""
    command = ["promtool", "check", "metrics"]
    done = subprocess.run(command, input=exposition, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or done.stderr
    return done.stderr


def test_those_of_the_service(bundle: Bundle) -> None:
    service = make_service(bundle)
    service.state.metrics.model.serving(service.state.served)
    client = Client(service)
    client.post("/predict", json.dumps(EXAMPLE).encode())
    client.get("/nowhere")
    exposition = client.get("/metrics").text
    assert 'model_predictions_total{model_version="7",outcome="alert"} ' in exposition and 'status="4xx"' in exposition
    assert not complaints(exposition)


def test_those_of_the_drift_monitor() -> None:
    gauges = Gauges(900)
    gauges.ran(1000, 900)
    shares = {name: 0.1 for name in FEATURE_NAMES}
    unseen = {name: 0.0 for name in CATEGORIES}
    gauges.found("3", Findings(1000, 0.2, shares, shares, unseen, Quality(900, 0.3, 0.25, 0.5, 0.55)))
    gauges.aliases("flight-delay", {"production": "3", "staging": "4"})
    exposition = generate_latest(gauges.registry).decode()
    assert "live_calibration_gap{" in exposition and 'drift_feature_psi{feature="carrier"}' in exposition
    assert not complaints(exposition)


def test_those_of_the_receiver() -> None:
    with TestClient(create_app(ReceiverSettings())) as client:
        assert not complaints(client.get("/metrics").text)


def test_promtool_can_complain() -> None:
    assert "counter metrics should have" in complaints("# HELP x Things.\n# TYPE x counter\nx 1\n")
    assert complaints("x{ 1\n")
