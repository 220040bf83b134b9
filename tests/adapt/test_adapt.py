"""A second problem in place of the first one, by the steps of docs/adapt.md, and all that a user runs on it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pyarrow as pa
import pytest
from playwright.sync_api import expect

from tests.support.clients.browser import CHROMIUM, browser, tab
from tests.support.processes import free_port, running, wait_for
from tests.support.repositories.clone import ROOT, Clone, make_clone

pytestmark = pytest.mark.long

FIRST_PROBLEM = re.compile("flight|airport|airline|carrier", re.IGNORECASE)
WRITTEN = ("app/problem/", "stages/problem/", "params.yaml")
GENERATED = ("data.dvc", "dvc.lock", "reports/", "openapi.json", "docs/reference/")
REPLAYED = ("2011-10-01", "2011-10-14")
BUILD_CONTEXT = """
import json, sys
from pathlib import Path
from ops.registry import commands
from ops.release import images
from stages import params
from stages.tracking import mlflow_runs

folder, client, p = Path(sys.argv[1]), mlflow_runs.connect(), params.load()
commit = images.committed()
images.context(folder, commit)
commands.export(client, p, folder / "model", None)
version = client.get_model_version("busy-hours", "1")
images.check_model(folder / "model", version)
print(json.dumps(images.labels(version, commit, images.BASE_IMAGE)))
"""


def documented(name: str) -> list[str]:
    """Return the commands of a block of docs/adapt.md."""
    page = (ROOT / "docs/adapt.md").read_text(encoding="utf-8")
    block = re.findall(rf"^<!-- run: {name} -->\n```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[0]
    return [line.removeprefix("$ ") for line in block.replace("\\\n", " ").splitlines()]


def run(clone: Clone, commands: list[str]) -> str:
    """Run commands by a shell in a clone, whose `on-time` is on the path, and return what they print."""
    path = f"{clone.path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return "".join(clone.run("bash", "-c", command, PATH=path).stdout for command in commands)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone with the second problem in place of the first one, its model registered and committed."""
    clone = make_clone(tmp_path_factory.mktemp("adapted"), data=False)
    (clone.path / ".venv").symlink_to((ROOT / ".venv").resolve())
    for key, value in (("name", "t"), ("email", "t@example.com")):
        clone.run("git", "config", f"user.{key}", value)
    run(clone, documented("remove"))
    run(clone, documented("place"))
    run(clone, documented("commit"))
    return clone


@pytest.fixture(scope="module")
def output(adapted: Clone) -> str:
    """What promotion, gate and history print in that clone."""
    return run(adapted, documented("use"))


@pytest.fixture(scope="module")
def service(adapted: Clone, output: str) -> Iterator[httpx.Client]:
    """A client of the service on the promoted model."""
    assert output
    base = f"http://127.0.0.1:{free_port()}"
    command = [*documented("serve")[0].split(), f"PORT={base.rpartition(':')[2]}"]
    with running(command, f"{base}/readyz", adapted.path, MLFLOW_TRACKING_URI=""):
        with httpx.Client(base_url=base, timeout=30) as client:
            yield client


@pytest.fixture(scope="module")
def example(adapted: Clone) -> dict[str, object]:
    """The example of a request."""
    command = "import json; from app.problem import EXAMPLE; print(json.dumps(EXAMPLE))"
    value: dict[str, object] = json.loads(adapted.run(sys.executable, "-c", command).stdout)
    return value


def test_only_the_problem_changes(adapted: Clone) -> None:
    changed = adapted.run("git", "diff", "--name-only", "HEAD~2").stdout.split()
    assert [name for name in changed if not name.startswith(WRITTEN + GENERATED)] == []
    assert [name for name in WRITTEN if not any(file.startswith(name) for file in changed)] == []
    assert adapted.git_status() == ""


def test_linters_accept_the_second_problem(adapted: Clone) -> None:
    adapted.run("pylint", "app/problem", "stages/problem")
    adapted.run("mypy", "-p", "app.problem", "-p", "stages.problem")
    adapted.run("lint-imports", "--no-logo")


def test_the_reports_are_about_the_second_problem(adapted: Clone) -> None:
    card = (adapted.path / "reports/model_card.md").read_text(encoding="utf-8")
    assert card.startswith("# Model card: busy-hours") and "6,442 hours from 2011-01-01 to 2011-09-30" in card
    for part in ("weather 3 h old", "without weather", "day=working", "sky=cloudy/misty", "Capital Bikeshare"):
        assert part in card
    for path in (adapted.path / "reports").rglob("*.*"):
        assert not FIRST_PROBLEM.search(path.read_text(encoding="utf-8")), path


def test_first_version_is_promoted_and_passes_the_gate(output: str) -> None:
    assert "Version 1 of busy-hours is Production" in output
    assert "Gate: passed" in output and "roc_auc (regression)" in output and "hour=16-20 log_loss" in output


def test_base_before_the_problem_leaves_the_floors(adapted: Clone) -> None:
    first = run(adapted, ["make gate BASE=HEAD~1"])
    assert "Gate: passed" in first and "The floors alone decide" in first and "(regression)" not in first
    params = adapted.path / "params.yaml"
    params.write_text(params.read_text(encoding="utf-8").replace("roc_auc: 0.90", "roc_auc: 0.97"), encoding="utf-8")
    refused = adapted.run("make", "gate", "BASE=HEAD~1", check=False)
    adapted.run("git", "checkout", "--quiet", "params.yaml")
    assert refused.returncode != 0 and "roc_auc is 0.94" in refused.stderr and "Traceback" not in refused.stderr


def test_service_predicts_explains_and_records(service: httpx.Client) -> None:
    predict, report = (shlex.split(command) for command in documented("request"))
    answer = service.post(predict[1].partition(":8000")[2], json=json.loads(predict[3])).json()
    assert answer["model"] == {"name": "busy-hours", "version": "1"} and 0.5 < answer["probability"] < 1
    assert {"hour", "temperature_c"} <= {part["feature"] for part in answer["explanation"]["contributions"]}
    outcome = json.loads(report[3]) | {"prediction_id": answer["prediction_id"]}
    recorded = service.post(report[1].partition(":8000")[2], json=outcome)
    assert recorded.json() == {"prediction_id": answer["prediction_id"], "positive": True, "unchanged": False}
    assert 'model_outcomes_total{outcome="positive"} 1.0' in service.get("/metrics").text


@pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="no Chromium on this machine")
def test_the_page_has_the_form_of_the_second_problem(service: httpx.Client, example: dict[str, object]) -> None:
    address = str(service.base_url)
    with browser() as running, tab(running, address) as page:
        page.wait_for_selector("#model-facts dl")
        fields = page.locator("#fields [name]").evaluate_all("all => all.map((one) => one.name)")
        assert fields == list(example)
        page.click("button[type=submit]")
        page.wait_for_selector("#answer .big")
        page.fill("#time", "2011-10-05T17:30:00")
        page.select_option("#holiday", "true")
        page.click("button[type=submit]")
        expect(page.locator("#wrong-time")).to_have_text("must be the start of an hour")
        text = page.content()
    assert "hours" in text and not FIRST_PROBLEM.search(text)


def test_the_contract_is_that_of_the_second_problem(service: httpx.Client, example: dict[str, object]) -> None:
    assert not FIRST_PROBLEM.search(service.get("/openapi.json").text)
    refused = service.post("/predict", json=example | {"time": "2011-10-05T17:30:00"})
    assert refused.status_code == 422
    assert refused.json()["errors"] == [{"field": "time", "message": "must be the start of an hour"}]


def test_arrays_serve_one_row_to_the_bit(adapted: Clone, service: httpx.Client, example: dict[str, object]) -> None:
    without = "from app import problem; assert not hasattr(problem, 'compute_one')"
    adapted.run(sys.executable, "-c", without)
    hours = [example | {"time": f"2011-10-05T{hour:02d}:00:00"} for hour in range(24)]
    hours.append(hours[0] | {"sky": "volcanic ash", "temperature_c": None})
    together = service.post("/predict/batch", json={"hours": hours}).json()["predictions"]
    alone = [service.post("/predict", json=hour).json() for hour in hours]
    assert [one["probability"] for one in alone] == [one["probability"] for one in together]
    assert len({one["probability"] for one in alone}) > 12
    lists = {name: [hour[name] for hour in hours] for name in example}
    table = pa.table(lists | {"time": pa.array(lists["time"]).cast(pa.timestamp("us"))})
    with pa.BufferOutputStream() as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    headers = {"Content-Type": "application/vnd.apache.arrow.stream", "Accept": "application/json"}
    for answer in (
        service.post("/predict/batch", json={"columns": lists}),
        service.post("/predict/batch", content=sink.getvalue().to_pybytes(), headers=headers),
    ):
        assert [one["probability"] for one in answer.json()["predictions"]] == [one["probability"] for one in alone]


def test_the_monitor_compares_a_replayed_window(adapted: Clone, service: httpx.Client) -> None:
    first, last = REPLAYED
    period = ["--first", first, "--last", last, "--week-seconds", "2"]
    run(
        adapted, [shlex.join(["on-time", "monitor", "replay", "--service", str(service.base_url).rstrip("/"), *period])]
    )
    base = f"http://127.0.0.1:{free_port()}"
    environment = {"ONTIME_DRIFT_PORT": base.rpartition(":")[2], "MLFLOW_TRACKING_URI": ""}
    command = ["./on-time", "monitor", "drift"]
    with running(command, f"{base}/metrics", adapted.path, **environment) as monitor:

        def rows() -> float:
            return float(re.findall(r"^live_rows (\S+)$", httpx.get(f"{base}/metrics").text, re.MULTILINE)[0])

        wait_for("a window with outcomes", rows, about=monitor.output)
        found = httpx.get(f"{base}/metrics").text
    assert rows_of("drift_window_rows", found) >= rows_of("live_rows", found) >= 14 * 20
    for series in ('drift_missing_share{feature="wind_kmh"}', 'drift_unseen_share{feature="sky"}'):
        assert rows_of(series, found) < 0.1
    assert 0.1 < rows_of('live_observed_rate{model_version="1"}', found) < 0.5
    assert not FIRST_PROBLEM.search(found)


def rows_of(series: str, exposition: str) -> float:
    """Return the value of a series."""
    return float(re.findall(rf"^{re.escape(series)} (\S+)$", exposition, re.MULTILINE)[0])


@pytest.mark.usefixtures("output")
def test_new_rows_obey_the_second_problem_s_rules(adapted: Clone, tmp_path: Path) -> None:
    header, *rows = (adapted.path / "data/Bikeshare.csv").read_text(encoding="utf-8").splitlines()
    names = header.replace('"', "").split(",")
    counts = [names.index(name) for name in ("casual", "registered", "bikers")]
    known, corrected, broken = (row.split(",") for row in rows[100:103])
    for column in (counts[0], counts[2]):
        corrected[column] = str(int(corrected[column]) + 7)
    file = tmp_path / "Bikeshare-fixed.csv"
    file.write_text("\n".join([header, *(",".join(row) for row in (known, corrected, *[known] * 8))]) + "\n")
    added = run(adapted, [f"on-time data add {file}"])
    assert "10 rows read: 0 new, 1 corrected, 1 known, 8 repeated, 0 quarantined" in added
    broken[counts[2]] = str(int(broken[counts[2]]) + 1)
    file.write_text("\n".join([header, ",".join(broken)]) + "\n")
    refused = adapted.run("./on-time", "data", "add", str(file), check=False)
    assert "1 of 1 rows break Bikeshare.bikers_total" in refused.stderr
    assert "2011-01-01 to 2011-12-31" in run(adapted, ["on-time data status"])
    adapted.run("dvc", "repro", "validate")
    adapted.run("git", "checkout", "--quiet", "params.yaml", "data.dvc", "dvc.lock", "reports")
    shutil.rmtree(adapted.path / "data/added")


@pytest.mark.usefixtures("output")
def test_build_context_of_the_image_serves(adapted: Clone, example: dict[str, object], tmp_path: Path) -> None:
    labels = adapted.run(sys.executable, "-c", BUILD_CONTEXT, str(tmp_path)).stdout
    assert '"ai.on-time.model.name": "busy-hours"' in labels
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (tmp_path / "Dockerfile").read_text(encoding="utf-8"), re.M)
    assert [
        name for line in copied for name in line.split() if "$" not in name and not (tmp_path / name).exists()
    ] == []
    for folder in ("stages", "ops"):  # the service's image has app and model only
        shutil.rmtree(tmp_path / folder)
    base = f"http://127.0.0.1:{free_port()}"
    settings = {"ONTIME_PORT": base.rpartition(":")[2], "ONTIME_BAKED_MODEL": "model", "ONTIME_JOURNAL_URL": "none"}
    with running(
        [sys.executable, "-m", "app"], f"{base}/readyz", tmp_path, MLFLOW_TRACKING_URI="", PYTHONPATH="", **settings
    ):
        version = httpx.get(f"{base}/version").json()
        answer = httpx.post(f"{base}/predict", json=example).json()
    assert (version["source"], version["model"]["name"]) == ("baked", "busy-hours")
    evaluation = json.loads((tmp_path / "model/evaluation.json").read_bytes())
    assert evaluation["bundle_digest"] == version["bundle_digest"]
    assert evaluation["importance"] and not FIRST_PROBLEM.search(json.dumps(evaluation))
    assert 0.5 < answer["probability"] < 1


@pytest.mark.parametrize(
    ("half", "name"), [("app", "compute"), ("app", "OUTCOME_EXAMPLE"), ("stages", "slices"), ("stages", "KEYS")]
)
def test_absent_name_of_a_problem_is_named(adapted: Clone, half: str, name: str) -> None:
    package = adapted.path / half / "problem/__init__.py"
    source = package.read_text(encoding="utf-8")
    package.write_text(f"{source}\ndel {name}\n", encoding="utf-8")
    commands = [["./on-time", "problem", "check"], [sys.executable, "-m", "stages.featurize"]]
    if half == "app":
        commands.append([sys.executable, "-m", "app"])
    ended = [adapted.run(*command, check=False) for command in commands]
    package.write_text(source, encoding="utf-8")
    for done in ended:
        assert done.returncode != 0
        assert done.stderr.count("\n") == 1 and f"{half}/problem/__init__.py lacks {name}" in done.stderr, done.stderr
    assert adapted.run("./on-time", "problem", "check").stdout
