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
def test_the_benchmark_of_the_service(pipeline: Clone) -> None:
    options = ("--seconds", "1", "--rounds", "1", "--connections", "4", "--without-mlflow")
    printed = pipeline.run(*ON_TIME, "bench", "serving", *options).stdout
    rows = [line.split() for line in printed.splitlines() if re.search(r" 4 +\d", line)]
    assert len(rows) == 3 and all(float(row[-7]) > 0 and row[-1] == "0" for row in rows), printed


def test_the_benchmark_of_batches(pipeline: Clone) -> None:
    options = ("--seconds", "1", "--rounds", "1", "--rows", "10")
    printed = pipeline.run(*ON_TIME, "bench", "batches", *options).stdout
    rows = re.findall(r"^ +10 +(\S.*?\S) +(\d+) +([\d.]+)$", printed, re.MULTILINE)
    assert [name for name, *_ in rows] == 2 * ["Booster.predict", "Pydantic alone", "JSON", "JSON by columns", "Arrow"]
    assert all(int(speed) > 0 for _, speed, _ in rows)


def test_the_parts_of_a_request_add_up_to_the_whole(pipeline: Clone) -> None:
    printed = pipeline.run(*ON_TIME, "bench", "request", "--rounds", "1").stdout
    *parts, whole, recorded, written = map(float, re.findall(r" (-?[\d.]+)$", printed, re.MULTILINE))
    assert len(parts) == 7 and min(parts) > 0 and abs(sum(parts) - whole) < 1
    assert 0 < recorded < written


def test_the_benchmark_of_scoring(pipeline: Clone) -> None:
    pipeline.run(*ON_TIME, "model", "promote", "--if-none")
    printed = pipeline.run(*ON_TIME, "bench", "scoring", "--files", "1").stdout
    rate, alone, share, peak = re.findall(r"^ +1 +332,418 +([\d,]+) +([\d,]+) +([\d.]+) +([\d,]+)$", printed, re.M)[0]
    speeds = [float(number.replace(",", "")) for number in (rate, alone)]
    assert abs(speeds[0] / speeds[1] - float(share)) < 0.01 and 100 < int(peak.replace(",", "")) < 4000


def test_a_signal_ends_mlflows_ui_itself(pipeline: Clone) -> None:
    port = free_port()
    health = f"http://127.0.0.1:{port}/health"
    with started([*ON_TIME, "model", "ui", "--port", str(port)], pipeline.path) as ui:
        ui.wait_until("MLflow answers", lambda: answers(health))
        ui.terminate()
        ui.wait(60)
        assert not answers(health)
