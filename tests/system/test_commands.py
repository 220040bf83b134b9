"""Commands that people run by hand: the demo and the benchmarks, each as a process."""

import json
import re
import signal
import sys

import pytest

from tests.conftest import Clone, free_port
from tests.support.monitoring import needs
from tests.support.processes import answers, started

pytestmark = pytest.mark.nightly
ON_TIME = (sys.executable, "-m", "ops.cli")


def test_the_demo_shows_a_request_and_what_to_open(pipeline: Clone) -> None:
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    opened = {"DISPLAY": ":9", "BROWSER": f"touch {pipeline.path}/opened"}
    with started([*ON_TIME, "stack", "demo", "--port", str(port)], pipeline.path, **opened) as demo:
        demo.wait_until("the demo has shown what to do next", lambda: "Ctrl-C ends the service." in demo.output())
        urls = re.findall(rf"^({base}/\S*)  ", demo.output(), re.MULTILINE)
        assert urls == [f"{base}/", f"{base}/docs", f"{base}/metrics"] and "`make ui`" in demo.output()
        assert all(answers(url) for url in urls)
        assert not (pipeline.path / "opened").exists(), "a page is only opened on a terminal"
        response = json.loads(re.findall(r"^\{$.*?^\}$", demo.output(), re.DOTALL | re.MULTILINE)[-1])
        assert 0 < response["probability"] < 1 and response["model"]["version"] == "1"
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 0, demo.output()


@needs("wrk")
@pytest.mark.parametrize(
    ("command", "least"),
    [
        ("serving --seconds 1 --rounds 1 --connections 4 --rows 10 --without-mlflow", 6),
        ("scoring --files 1 --rounds 1", 1),
    ],
)
def test_a_benchmark_prints_rows_of_numbers(pipeline: Clone, command: str, least: int) -> None:
    pipeline.run(*ON_TIME, "model", "promote", "--if-none")
    printed = pipeline.run(*ON_TIME, "bench", *command.split()).stdout
    rows = [line for line in printed.splitlines() if re.search(r" [\d,.]+$", line)]
    assert len(rows) >= least and "nan" not in printed, printed


def test_a_signal_ends_mlflows_ui_itself(pipeline: Clone) -> None:
    port = free_port()
    health = f"http://127.0.0.1:{port}/health"
    with started([*ON_TIME, "model", "ui", "--port", str(port)], pipeline.path) as ui:
        ui.wait_until("MLflow answers", lambda: answers(health))
        ui.terminate()
        ui.wait(60)
        assert not answers(health)
