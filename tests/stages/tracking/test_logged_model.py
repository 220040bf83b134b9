"""The logged model, used from MLflow by a process that has no checkout: requests in, the service's predictions out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import mlflow
import pytest

from app.interface import NAME, Request
from app.model import bundles
from stages.tracking import logged_model, mlflow_runs
from tests.support.clients.batches import flights
from tests.support.processes import free_port, running

USE = f"""
import json, sys
import mlflow, pandas
model = mlflow.pyfunc.load_model("models:/{NAME}@production")
frame = pandas.DataFrame(json.load(open(sys.argv[1])))
answers = model.predict(frame)
for name in ("scheduled_departure", "scheduled_arrival"):
    frame[name] = pandas.to_datetime(frame[name], format="ISO8601")
assert model.predict(frame).equals(answers)
assert len(model.predict(frame[[column for column in frame if column not in ("weather", "flight_number")]])) == len(frame)
frame.loc[1, "origin"] = "XXX"
try:
    model.predict(frame)
except ValueError as err:
    assert "1.origin" in str(err), err
else:
    raise AssertionError("an invalid row was predicted")
import app
assert "mlruns" in app.__file__ or "artifacts" in app.__file__, app.__file__
print(answers.to_json(orient="split", double_precision=15))
"""


@pytest.fixture(scope="module")
def store(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with MLflow's SQLite file, and in it the bundle as version 1, which is Production."""
    folder = tmp_path_factory.mktemp("mlflow")
    (bundle_dir / bundles.REFERENCE_FILE).write_bytes(b"none")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.chdir(folder)
        client = mlflow_runs.connect()
        with mlflow.start_run() as run:
            logged_model.log_bundle(bundle_dir)
        tags = client.get_run(run.info.run_id).data.tags
        version = mlflow.register_model(tags[mlflow_runs.MODEL_URI_TAG], NAME)
        client.set_registered_model_alias(NAME, "production", version.version)
        yield folder
    mlflow.set_tracking_uri(None)


def environment(store: Path) -> dict[str, str]:
    """Return variables without a path to this checkout."""
    known = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    known["PATH"] = f"{Path(sys.executable).parent}:{known['PATH']}"
    uri = f"sqlite:///{store}/mlflow.db"
    return known | {"MLFLOW_TRACKING_URI": uri, "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}


def test_it_predicts_requests_as_the_service_does(store: Path, bundle_dir: Path, tmp_path: Path) -> None:
    rows = flights(200)
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    command = [sys.executable, "-c", USE, str(tmp_path / "rows.json")]
    done = subprocess.run(command, cwd=tmp_path, env=environment(store), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    assert answers["columns"] == ["probability", "alert", "model_version"]
    bundle = bundles.load(bundle_dir / bundles.MODEL_FILE, bundle_dir / bundles.MANIFEST_FILE)
    expected = bundle.probabilities([Request.model_validate(row) for row in rows])
    assert [row[0] for row in answers["data"]] == pytest.approx(expected.tolist(), abs=1e-12)
    assert [row[1:] for row in answers["data"]] == [[risk >= bundle.threshold, "1"] for risk in expected.tolist()]


def test_its_requirements_are_those_of_the_service(store: Path) -> None:
    (listed,) = store.glob("mlruns/**/requirements.txt")
    service = (logged_model.APP.parent / "requirements.txt").read_text(encoding="utf-8")
    pins = [line.partition(";")[0].strip() for line in listed.read_text(encoding="utf-8").splitlines()]
    assert [pin for pin in pins if f"{pin} " not in service] == [f"mlflow=={mlflow.__version__}"]
    assert len(pins) > 40


@pytest.mark.long
def test_mlflow_serves_it(store: Path, tmp_path: Path) -> None:
    port, rows = free_port(), flights(3)
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{NAME}@production"]
    command += ["-p", str(port), "--env-manager", "local"]
    with running(command, f"http://127.0.0.1:{port}/ping", tmp_path, **environment(store)):
        answer = httpx.post(f"http://127.0.0.1:{port}/invocations", json={"dataframe_records": rows}, timeout=30)
    assert answer.status_code == 200, answer.text
    assert [row["model_version"] for row in answer.json()["predictions"]] == ["1"] * 3
