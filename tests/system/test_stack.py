"""MLflow on PostgreSQL and S3 behind its password, started by the very files that ops/stack/compose mounts."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
import mlflow
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from app.interface import EXAMPLE, Request
from app.registry import registered
from ops.scoring.output import Job
from ops.scoring.predict import Worker
from ops.scoring.score import score_files
from ops.stack import backup, credentials
from tests.conftest import ROOT, Postgres, postgres_programs, running
from tests.support.models import bake

COMPOSE = ROOT / "ops" / "stack" / "compose"
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on, and that have a free one 10,000 above (SeaweedFS takes it for gRPC)."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as low, socket.socket() as high:
            low.bind(("127.0.0.1", 0))
            port = low.getsockname()[1]
            try:
                high.bind(("127.0.0.1", port + 10_000))
            except (OSError, OverflowError):
                continue
            found.append(port)
    return found


def get(url: str, **options: Any) -> httpx.Response:
    """Ask, with time for the password's hash on a busy machine."""
    return httpx.get(url, timeout=60, **options)


@dataclass(frozen=True)
class Stack:
    """The addresses of the services, and the folder of their secrets."""

    secrets: Path
    postgres: int
    storage: str
    mlflow: str
    gate: str

    def secret(self, name: str) -> str:
        """Return a secret."""
        return (self.secrets / name).read_text()

    @property
    def s3(self) -> dict[str, str]:
        """The variables of an S3 client."""
        keys = {
            "AWS_ACCESS_KEY_ID": self.secret("s3_access_key"),
            "AWS_SECRET_ACCESS_KEY": self.secret("s3_secret_key"),
        }
        return keys | {"AWS_DEFAULT_REGION": "us-east-1"}

    def sql(self, role: str, password: str, database: str, statement: str) -> list[tuple[object, ...]]:
        """Run a statement as a role of PostgreSQL."""
        place = {"host": "127.0.0.1", "port": self.postgres, "user": role, "password": self.secret(password)}
        with psycopg.connect(**place, dbname=database, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def system() -> Iterator[Stack]:
    """PostgreSQL, SeaweedFS, MLflow and the gate, each on loopback."""
    programs = postgres_programs()
    path = f"{programs}{os.pathsep}{PATH}"
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="on-time-stack-")))
        patch.setenv("PATH", path)
        credentials.write_secrets(root / "secrets")
        s3, master, volume, filer, server, gate = iter(free_ports(6))
        (root / "postgres").mkdir()
        (root / "storage").mkdir()
        root.chmod(0o711)  # PostgreSQL's user goes through it
        cluster = Postgres(programs, root / "postgres", (root / "secrets" / "postgres_password").read_text())
        cluster.start()
        stack.callback(cluster.stop)
        made = Stack(
            root / "secrets",
            cluster.port,
            f"http://127.0.0.1:{s3}",
            f"http://127.0.0.1:{server}",
            f"http://127.0.0.1:{gate}",
        )
        places = {"SECRETS": str(made.secrets)}
        admin = {"PGHOST": "127.0.0.1", "PGPORT": str(cluster.port), "PGPASSWORD": made.secret("postgres_password")}
        subprocess.run(["sh", str(COMPOSE / "databases.sh")], env=os.environ | places | admin, check=True)

        ports = [f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", "-ip=127.0.0.1"]
        env = places | {"PORT": str(s3), "DATA": str(root / "storage"), "CONFIG": str(root / "s3.json")}
        command = ["sh", str(COMPOSE / "storage.sh"), *ports]
        stack.enter_context(running(command, f"{made.storage}/healthz", root, **env))

        env = places | {"POSTGRES": f"127.0.0.1:{cluster.port}", "S3": made.storage, "PORT": str(server)}
        env |= {"LISTEN": "127.0.0.1", "WORKERS": "1", "ALLOWED_HOSTS": f"127.0.0.1:{server}"}
        stack.enter_context(running(["sh", str(COMPOSE / "mlflow.sh")], f"{made.mlflow}/health", root, 300, **env))

        env = places | {"MLFLOW_SITE": made.gate, "MLFLOW": f"127.0.0.1:{server}", "HOME": str(root)}
        command = ["caddy", "run", "--config", str(COMPOSE / "mlflow.Caddyfile"), "--adapter", "caddyfile"]
        login = f"http://on-time:{made.secret('mlflow_password')}@127.0.0.1:{gate}/health"
        stack.enter_context(running(command, login, root, **env))

        patch.setenv("MLFLOW_TRACKING_USERNAME", "on-time")
        patch.setenv("MLFLOW_TRACKING_PASSWORD", made.secret("mlflow_password"))
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        mlflow.set_tracking_uri(made.gate)
        yield made
        mlflow.set_tracking_uri(None)


def test_mlflow_is_closed_without_the_password(system: Stack) -> None:
    for path in ("/", "/health", "/api/2.0/mlflow/experiments/search", "/ajax-api/2.0/mlflow/runs/search", "/graphql"):
        assert get(system.gate + path).status_code == 401, path
    assert get(f"{system.gate}/health", auth=("on-time", "password")).status_code == 401
    assert get(f"{system.gate}/health", auth=("on-time", system.secret("mlflow_password"))).status_code == 200


def test_mlflow_refuses_requests_for_another_host(system: Stack) -> None:
    path = f"{system.mlflow}/api/2.0/mlflow/experiments/search?max_results=1"
    assert get(path).status_code == 200
    assert get(path, headers={"Host": "evil.example.com"}).status_code == 403


def test_the_artifacts_of_a_run_land_in_s3(system: Stack, tmp_path: Path) -> None:
    mlflow.set_experiment("on the stack")
    with mlflow.start_run() as run:
        mlflow.log_metric("roc_auc", 0.7)
        mlflow.log_text("a text", "folder/text.txt")
    storage = boto3.client("s3", endpoint_url=system.storage, **_keys(system))
    keys = [item["Key"] for item in storage.list_objects_v2(Bucket="mlflow")["Contents"]]
    assert any(key.endswith(f"{run.info.run_id}/artifacts/folder/text.txt") for key in keys)
    copy = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="folder", dst_path=str(tmp_path))
    assert (Path(copy) / "text.txt").read_text() == "a text"
    (row,) = system.sql("mlflow", "mlflow_db_password", "mlflow", "SELECT count(*) FROM runs")
    assert row[0]


def _keys(system: Stack) -> dict[str, str]:
    return {
        "aws_access_key_id": system.secret("s3_access_key"),
        "aws_secret_access_key": system.secret("s3_secret_key"),
    }


def test_s3_is_closed_to_others(system: Stack) -> None:
    assert get(f"{system.storage}/mlflow").status_code == 403


def test_dvc_pushes_and_pulls(system: Stack, tmp_path: Path) -> None:
    def run(*command: str) -> str:
        env = os.environ | system.s3 | {"DVC_NO_ANALYTICS": "1"}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "table.csv").write_text("a,b\n1,2\n")
    run("git", "init", "--quiet")
    run("dvc", "init", "--quiet")
    run("dvc", "add", "data")
    run("dvc", "remote", "add", "--default", "storage", "s3://dvc/on-time")
    run("dvc", "remote", "modify", "storage", "endpointurl", system.storage)
    assert "2 files pushed" in run("dvc", "push")
    shutil.rmtree(tmp_path / "data")
    shutil.rmtree(tmp_path / ".dvc" / "cache")
    run("dvc", "pull")
    assert (tmp_path / "data" / "table.csv").read_text() == "a,b\n1,2\n"


def test_files_in_s3_are_scored_to_s3(system: Stack, bundle_dir: Path, tmp_path: Path) -> None:
    patch = {"AWS_ENDPOINT_URL": system.storage, "AWS_ALLOW_HTTP": "true"} | system.s3
    baked, rows = bake(bundle_dir, "3", tmp_path / "model"), [Request.model_validate(EXAMPLE).model_dump()] * 300
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    storage = boto3.client("s3", endpoint_url=system.storage, **_keys(system))
    storage.upload_file(str(tmp_path / "a.parquet"), "dvc", "scored/in/a.parquet")
    known = registered.Registered.model_validate_json((baked / registered.VERSION_FILE).read_bytes())
    with pytest.MonkeyPatch.context() as environment:
        for name, value in patch.items():
            environment.setenv(name, value)
        environment.setattr(Worker, "bundle", None)  # of another test's model
        job = Job("s3://dvc/scored/in", "s3://dvc/scored/out", known, baked, 0.01, 1)
        with ThreadPoolExecutor(1) as pool:
            assert [score_files(job, 0.5, pool)[:3] for _ in range(2)] == [(300, 0, 0), (0, 0, 300)]
    keys = {item["Key"] for item in storage.list_objects_v2(Bucket="dvc", Prefix="scored/out/a")["Contents"]}
    assert keys == {"scored/out/a-00000.parquet", "scored/out/a-00000.json"}


def test_roles_reach_their_own_database_only(system: Stack) -> None:
    system.sql("journal", "journal_db_password", "journal", "CREATE TABLE notes (text text)")
    system.sql("journal", "journal_db_password", "journal", "INSERT INTO notes VALUES ('kept')")
    assert system.sql("monitor", "monitor_db_password", "journal", "SELECT text FROM notes") == [("kept",)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        system.sql("monitor", "monitor_db_password", "journal", "INSERT INTO notes VALUES ('x')")
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        system.sql("journal", "journal_db_password", "mlflow", "SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        system.sql("journal", "mlflow_db_password", "journal", "SELECT 1")


def test_a_backup_brings_back_what_was_lost(system: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged one changes nothing."""
    place = {"PGHOST": "127.0.0.1", "PGPORT": str(system.postgres), "PGUSER": "postgres"}
    for name, value in (place | {"PGPASSWORD": system.secret("postgres_password")}).items():
        monkeypatch.setenv(name, value)

    def number(role: str = "journal") -> object:
        return system.sql(role, f"{role}_db_password", "journal", "SELECT n FROM more")[0][0]

    client = MlflowClient()
    version = client.create_model_version(client.create_registered_model("kept").name, "s3://mlflow/none")
    client.set_registered_model_alias("kept", "production", version.version)
    system.sql("journal", "journal_db_password", "journal", "CREATE TABLE more AS SELECT 1 AS n")
    folder = backup.save_databases(tmp_path / "backup")
    client.delete_registered_model("kept")
    system.sql("journal", "journal_db_password", "journal", "UPDATE more SET n = 2")

    dump = folder / "journal.dump"
    content = dump.read_bytes()
    dump.write_bytes(content[:-1] + b"x")
    with pytest.raises(backup.BackupFailed, match="journal.dump is damaged"):
        backup.restore_databases(folder)
    assert number() == 2

    dump.write_bytes(content)
    backup.restore_databases(folder)
    assert number() == 1 and number("monitor") == 1
    assert MlflowClient().get_model_version_by_alias("kept", "production").version == version.version


def test_secrets_are_made_once_for_their_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", PATH)
    folder = tmp_path / "secrets"
    assert credentials.write_secrets(folder)
    before = {path: path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert not credentials.write_secrets(folder) and folder.stat().st_mode & 0o777 == 0o700
    assert before == {path: path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert len(set(before.values())) == len(before) and all(len(value) > 40 for value in before.values())
