"""The engine `ray`: the files and the quality of the engine `local`, and processes that are killed while they work."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from app.errors import OnTimeError
from app.interface import EXAMPLE, FEATURE_NAMES, Request
from app.registry import registered
from ops.scoring import on_ray, score
from ops.scoring.output import Job
from stages import featurize, params, train
from stages.features import compute
from stages.features.feature_files import DAY, GROUP, KEY, TARGET, matrix
from stages.on_ray import cluster, distributed
from stages.tables import partitions
from stages.training import boosting
from stages.training.boosting import Source, lightgbm_params
from tests.ray import workers
from tests.support.models import bake
from tests.support.processes import free_port, started, wait_for
from tests.support.repositories.clone import ROOT
from tests.support.repositories.scratch import cut, write_params

MONTHS = ("2013-01", "2013-02", "2013-03", "2013-04")
ROWS = 4000
LEFT_OUT = "Ray is not installed: make ray"
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason=LEFT_OUT),
    pytest.mark.timeout(400),  # none of them may hang
    pytest.mark.filterwarnings("ignore"),  # of Ray
]


@pytest.fixture(scope="module", name="address")
def ray_cluster() -> Iterator[str]:
    """The address of a cluster with two processors, which was started in another folder."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        command = [Path(sys.executable).parent / "ray", "start", "--head", "--block", f"--port={port}", "--num-cpus=2"]
        command += ["--node-ip-address=127.0.0.1", "--include-dashboard=false", f"--temp-dir={folder}"]
        command += [f"--object-store-memory={cluster.OBJECT_STORE_BYTES}", "--disable-usage-stats"]
        settings = cluster.SETTINGS | cluster.OWN_SETTINGS | TOKEN | {"PYTHONPATH": str(ROOT)}
        with started(command, Path(folder), **settings) as head:
            head.wait_until("Ray runs", lambda: "Ray runtime started" in head.output())
            yield f"127.0.0.1:{port}"
            for process in [*psutil.Process(head.pid).children(recursive=True), head]:
                process.kill()  # it takes minutes to end by SIGTERM


@pytest.fixture(name="at_address")
def at_cluster(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands find that cluster."""
    for name, value in (TOKEN | cluster.LOOPBACK_ONLY | {cluster.ADDRESS: address}).items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module", name="features")
def training_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with build/features of four months, the last one for the test, and params.yaml."""
    folder, rng = tmp_path_factory.mktemp("features"), np.random.default_rng(1)
    shutil.copy(ROOT / "params.yaml", folder)
    for place, month in enumerate(MONTHS):
        frame = pd.DataFrame(rng.random((ROWS, len(FEATURE_NAMES))), columns=list(FEATURE_NAMES))
        frame.iloc[:, :3] = rng.integers(0, 3, (ROWS, 3))
        risk = frame["precipitation_in"] + frame["departure_minute"] + (frame.iloc[:, 0] == place % 2)
        frame[TARGET] = (risk + rng.normal(0, 0.4, ROWS) > 1.5).astype(np.int8)
        frame[DAY] = np.datetime64(month, "D").astype(np.int64) + np.arange(ROWS) // (ROWS // 28 + 1)
        frame[GROUP], frame[KEY] = "group", np.arange(ROWS, dtype=np.uint64) + np.uint64(place * ROWS)
        path = folder / "build/features" / ("test" if month == MONTHS[-1] else "train") / f"{place:04d}-{month}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(path, index=False, row_group_size=700)
    return folder


def quality(booster: lightgbm.Booster, features: Path) -> float:
    """Return ROC AUC on the test month."""
    test = pd.read_parquet(features / "build/features/test")
    return float(roc_auc_score(test[TARGET], booster.predict(matrix(test))))


def test_local_cluster_listens_on_loopback_only(tmp_path: Path) -> None:
    processes, addresses = set[psutil.Process](), set[str]()
    code = "from stages.on_ray.cluster import cluster\nwith cluster(2) as workers: print(workers, 'workers')"
    with tempfile.TemporaryDirectory(prefix="r-") as folder:  # a short path, for Ray's sockets
        settings = {"PYTHONPATH": str(ROOT), "TMPDIR": folder, cluster.ADDRESS: ""}
        with started([sys.executable, "-c", code], tmp_path, **settings) as program:
            while program.poll() is None:
                for process in (found := psutil.Process(program.pid).children(recursive=True)):
                    addresses |= listening(process)
                processes.update(found)
                time.sleep(0.2)
            assert program.returncode == 0 and "2 workers" in program.output(), program.output()
        assert addresses == {"127.0.0.1"} and not os.listdir(folder)
    wait_for("all processes of Ray have ended", lambda: not any(p.is_running() for p in processes), 20)


@pytest.mark.usefixtures("at_address")
def test_killed_worker_does_not_cost_quality(features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with started([sys.executable, "-m", "tests.ray.workers", tmp_path], features, PYTHONPATH=str(ROOT)) as training:
        training.wait()
        assert training.returncode == 0, training.output()
    assert (tmp_path / "killed").exists() and os.listdir(features / "build") == ["features"]

    monkeypatch.chdir(features)
    here = train.train_here(Source.files("train"), workers.few_rounds())
    booster = lightgbm.Booster(model_file=tmp_path / "model.txt")
    assert abs(quality(booster, features) - quality(here.booster, features)) < 0.003
    rolling, loss = pd.read_parquet(tmp_path / "rolling.parquet"), pd.read_parquet(tmp_path / "loss.parquet")
    pd.testing.assert_frame_equal(rolling.drop(columns="probability"), here.rolling.drop(columns="probability"))
    assert np.corrcoef(rolling["probability"], here.rolling["probability"])[0, 1] > 0.97
    np.testing.assert_allclose(loss["train"], here.loss[boosting.LOSS_STEP - 1 :: boosting.LOSS_STEP], atol=0.02)


def listening(process: psutil.Process) -> set[str]:
    """Return the addresses at which a process listens."""
    try:
        listens = [one for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
        return {one.laddr.ip.removeprefix("::ffff:") for one in listens}
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return set()


@pytest.mark.usefixtures("at_address")
@pytest.mark.parametrize(
    ("network", "message"),
    [
        (dict, "each worker has trained alone on its share"),
        (partial(workers.killed, Path(), always=True), "Ray has ended, after a retry too: "),
    ],
    ids=["workers that train alone", "workers that are always killed"],
)
def test_a_training_is_refused_with(
    network: distributed.Network, message: str, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "RETRIES", 0)
    p, files = workers.few_rounds(), sorted((features / "build/features/train").iterdir())
    with pytest.raises(OnTimeError, match=message) as refused:
        distributed.fit([distributed.Fit("a model", files)], p, lightgbm_params(p), tmp_path, network=network)
    assert "\n" not in str(refused.value) and not list(tmp_path.iterdir())


@pytest.mark.usefixtures("at_address")
def test_features_have_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "data", tmp_path / "data", ignore=shutil.ignore_patterns("added"))
    shutil.copy(ROOT / "params.yaml", tmp_path)
    write_params(tmp_path, cut(tmp_path, 40))
    monkeypatch.chdir(tmp_path)
    p = params.load()
    store = partitions.write(tmp_path / "data", p.problem, "month")
    lookups = compute.fit_lookups(store, p)
    counts = [compute.write_partition(store, partition, lookups, p) for partition in store.partitions]
    expected = contents(tmp_path / "build/features")
    shutil.rmtree(tmp_path / "build/features")
    assert featurize.write_on_ray(store, lookups, p) == counts
    assert contents(tmp_path / "build/features") == expected and len(expected) > 2


@pytest.mark.usefixtures("at_address")
def test_killed_scoring_has_the_same_bytes(bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = bake(bundle_dir, "3", tmp_path / "model")
    known = registered.Registered.model_validate_json((folder / registered.VERSION_FILE).read_bytes())
    row = Request.model_validate(EXAMPLE).model_dump()
    for name in ("a", "b", "c"):
        (tmp_path / "in").mkdir(exist_ok=True)
        pq.write_table(
            pa.Table.from_pylist([row | {"flight_number": i} for i in range(1, 300)]), tmp_path / f"in/{name}.parquet"
        )
    job = Job(str(tmp_path / "in"), str(tmp_path / "here"), known, folder, 0.01, 1)
    with score.processes(1) as pool:
        expected = score.score_files(job, 0.5, pool)
    monkeypatch.setattr(on_ray, "_task", partial(workers.killed_while_writing, flag=tmp_path / "killed"))
    total = on_ray.score_on_ray(job._replace(target=str(tmp_path / "there"), workers=2), 0.5)
    assert (tmp_path / "killed").exists() and total.rows == expected.rows == 3 * 299
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
