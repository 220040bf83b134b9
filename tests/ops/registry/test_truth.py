"""What is said of the registry is what it holds: versions deleted, replaced, renumbered, without artifacts or runs."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import click
import mlflow
import pytest

from app.errors import BundleInvalid, ModelUnavailable
from app.registry import download
from ops.registry import aliases, commands, history, summary
from ops.registry.aliases import PRODUCTION, STAGING, read_aliases
from ops.registry.commands import PromotionRefused
from stages import register
from stages.base import git
from stages.base.paths import BUNDLE_DIR, EVALUATION_FILE, METRICS_FILE, RECEIPT_FILE, write_json
from stages.evaluation import versions
from stages.tracking import mlflow_runs
from tests.support.promotion import MEASURED, Bench, fill

NAME = "flight-delay"
PLOTS = {
    "roc": "false_positive_rate,true_positive_rate\n0.0,0.5\n",
    "calibration": "predicted,observed,rows\n0.1,0.2,30\n",
    "importance": "feature,gain_share\na,0.6\nb,0.4\n",
}
pytestmark = pytest.mark.long


def artifacts(version: str) -> Path:
    """Return the folder of a version's artifacts."""
    return Path(mlflow_runs.connect().get_model_version_download_uri(NAME, version))


@pytest.fixture
def lost(bench: Bench) -> Iterator[Path]:
    """The artifacts of the good version, which are moved away until the test ends; it is Production."""
    commands.promote(bench.client, bench.params, bench.versions["good"])
    folder = artifacts(bench.versions["good"])
    away = shutil.move(folder, folder.with_name("away"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
    shutil.move(away, folder)


def test_champion_without_artifacts(bench: Bench, lost: Path) -> None:
    client, p, v = bench.client, bench.params, bench.versions
    with pytest.raises(ModelUnavailable) as found:
        commands.promote(client, p, v["better"])
    text = str(found.value)
    assert f"version {v['good']} of {NAME}: its artifact MLmodel is missing in {lost}" in text
    assert "`on-time model promote --without-champion`" in text and "\n" not in text
    done = commands.promote(client, p, v["better"], without_champion=True)
    assert "by the floors, without the champion" in done and read_aliases(client, NAME)[PRODUCTION] == v["better"]
    run, *_ = mlflow_runs.find_runs(client, {mlflow_runs.STAGE_TAG: "decision"})
    assert run.data.tags["champion"] == v["good"] and "MLmodel is missing" in run.data.tags["reasons"]
    assert "without the champion" in history.describe_history(client, NAME).splitlines()[-1]


def test_loadable_champion_cannot_be_left_out(bench: Bench) -> None:
    commands.promote(bench.client, bench.params, bench.versions["good"])
    with pytest.raises(click.UsageError, match="can be loaded"):
        commands.promote(bench.client, bench.params, bench.versions["weak"], without_champion=True)


def test_weak_model_is_refused_without_champion_too(bench: Bench, lost: Path) -> None:
    with pytest.raises(PromotionRefused, match="without the champion.*roc_auc is"):
        commands.promote(bench.client, bench.params, bench.versions["shuffled"], without_champion=True)
    assert not lost.exists()


def test_challenger_without_artifacts_is_refused(bench: Bench, lost: Path) -> None:
    with pytest.raises(PromotionRefused, match="MLmodel is missing"):
        bench.client.delete_registered_model_alias(NAME, PRODUCTION)
        commands.promote(bench.client, bench.params, bench.versions["good"])
    shutil.copytree(lost.with_name("away"), lost)
    (lost / "extra_files/manifest.json").unlink()
    version = bench.client.get_model_version(NAME, bench.versions["good"])
    with pytest.raises(BundleInvalid, match="artifact extra_files/manifest.json is missing in"):
        download.export(version, "", bench.uri, bench.path / "none")


def receipt(bench: Bench, name: str) -> str:
    """Make a version's bundle what the pipeline made, and return its digest."""
    shutil.rmtree(BUNDLE_DIR, ignore_errors=True)
    shutil.copytree(bench.path / "bundles" / name, BUNDLE_DIR)
    digest = bench.client.get_model_version(NAME, bench.versions[name]).tags[mlflow_runs.DIGEST_TAG]
    write_json(RECEIPT_FILE, {"model": NAME, "bundle_digest": digest, "floors": True})
    baselines = {"constant": MEASURED | {"brier": 0.25}, "logistic": MEASURED | {"log_loss": 0.69}}
    write_json(METRICS_FILE, baselines | {"test": MEASURED})
    period = {"test": {"first": "2013-11-01", "last": "2013-12-10"}}
    write_json(EVALUATION_FILE, {"rows": period, "bundle_digest": digest})
    versions.PLOTS_DIR.mkdir(exist_ok=True)
    for plot, table in PLOTS.items():
        (versions.PLOTS_DIR / f"{plot}.csv").write_text(table)
    return digest


def test_present_version_is_not_registered_again(bench: Bench) -> None:
    receipt(bench, "good")
    version, runs = summary.registered(), len(mlflow_runs.find_runs(bench.client, {mlflow_runs.STAGE_TAG: "register"}))
    assert str(version.version) == bench.versions["good"] and runs == 0
    staged = read_aliases(bench.client, NAME)[STAGING]
    text = summary.describe_version(version)
    assert f"is registered (Staging is version {staged})" in text
    assert f"`make promote VERSION={version.version}`" in text
    bench.client.set_registered_model_alias(NAME, STAGING, str(version.version))
    bench.client.set_registered_model_alias(NAME, PRODUCTION, str(version.version))
    text = summary.describe_version(version)
    assert "is Staging and Production in" in text and "make promote" not in text


def lose(bench: Bench, what: str) -> None:
    """Remove what the receipt of the good version stands for."""
    client, number = bench.client, bench.versions["good"]
    if what == "version":
        client.delete_model_version(NAME, number)
    elif what == "model":
        client.delete_registered_model(NAME)
    elif what == "alias":
        client.delete_registered_model_alias(NAME, STAGING)
    else:  # as `mlflow gc` does
        run_id = client.get_model_version(NAME, number).run_id
        with sqlite3.connect(bench.uri.removeprefix("sqlite:///")) as connection:
            connection.execute("PRAGMA foreign_keys = OFF")
            connection.execute("DELETE FROM runs WHERE run_uuid = ?", (run_id,))
        connection.close()


def registered_again(bench: Bench, digest: str) -> None:
    """Complete the registry, and check what is said of it by promoting that version."""
    version = summary.registered()
    client, uri = mlflow_runs.connect(), mlflow_runs.tracking_uri()
    assert version.tags[mlflow_runs.DIGEST_TAG] == digest and not download.missing(version, uri)
    evaluation = mlflow.artifacts.load_dict(f"runs:/{version.run_id}/{EVALUATION_FILE.name}")
    assert evaluation["bundle_digest"] == digest and evaluation["importance"] == {"a": 0.6, "b": 0.4}
    assert read_aliases(client, NAME)[STAGING] == str(version.version)
    assert f"Version {version.version} of {NAME} is Staging in {uri};" in summary.describe_version(version)
    assert commands.promote(client, bench.params, None).startswith(f"Version {version.version}")


@pytest.mark.parametrize("what", ["version", "model", "alias", "run"])
def test_what_is_gone_is_registered_again(bench: Bench, what: str) -> None:
    digest = receipt(bench, "good")
    lose(bench, what)
    registered_again(bench, digest)


def test_version_without_artifacts_is_registered_again(bench: Bench, lost: Path) -> None:
    digest = receipt(bench, "good")
    bench.client.delete_registered_model_alias(NAME, PRODUCTION)
    registered_again(bench, digest)
    assert not lost.exists()


def test_other_database_gets_the_version(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = receipt(bench, "good")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    registered_again(bench, digest)


def test_refusing_git_keeps_the_commit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    receipt(bench, "good")
    known = bench.client.get_model_version(NAME, bench.versions["good"]).tags["git.commit"]
    assert known == git.commit()
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(git.GitFailed, match="safe.directory"):
        register.main()
    assert bench.client.get_model_version(NAME, bench.versions["good"]).tags["git.commit"] == known


def test_history_of_deleted_versions(bench: Bench) -> None:
    client, p, v = bench.client, bench.params, bench.versions
    commands.promote(client, p, v["weak"])
    commands.promote(client, p, v["good"])
    assert history.describe_history(client, NAME).splitlines()[-1].split()[0] == v["good"]
    client.set_registered_model_alias(NAME, PRODUCTION, v["better"])
    text = history.describe_history(client, NAME)
    assert (
        f"Version {v['better']} of {NAME} is Production now, by no decision" in text
        and " now " not in text.partition("\n\n")[0]
    )
    client.delete_model_version(NAME, v["better"])
    assert f"No version of {NAME} is Production now" in history.describe_history(client, NAME)
    client.delete_model_version(NAME, v["weak"])
    assert f"{v['weak']} (deleted)" in history.describe_history(client, NAME)
    assert history.collect_history(client, NAME)["moves"][0]["changed"] == "deleted"


def test_alias_without_its_version(bench: Bench, tmp_path: Path) -> None:
    commands.promote(bench.client, bench.params, bench.versions["weak"])
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("UPDATE model_versions SET current_stage = 'Deleted_Internal' WHERE version = 1")
    connection.close()
    assert bench.versions["weak"] == "1" and PRODUCTION not in read_aliases(bench.client, NAME)
    assert f"No version of {NAME} is Production now" in history.describe_history(bench.client, NAME)
    commands.promote(bench.client, bench.params, bench.versions["good"])
    assert read_aliases(bench.client, NAME)[PRODUCTION] == bench.versions["good"]


def test_numbers_used_again_are_other_versions(bench: Bench) -> None:
    client, p, v = bench.client, bench.params, bench.versions
    commands.promote(client, p, v["weak"])
    commands.promote(client, p, v["good"])
    client.delete_registered_model(NAME)
    again = fill(bench.path, ["better", "weak"])
    assert again["weak"] == v["good"], "the number of another bundle"
    assert f"{v['good']} (now another bundle)" in history.describe_history(client, NAME)
    client.set_registered_model_alias(NAME, PRODUCTION, v["good"])
    assert aliases.previous(client, NAME) is None
    client.delete_registered_model_alias(NAME, PRODUCTION)
    with pytest.raises(PromotionRefused, match="promoted before"):
        commands.promote(client, p, again["better"])
        commands.rollback(client, p, v["good"], "to what was version 2")


def test_rollback_with_a_deleted_version_before(bench: Bench) -> None:
    client, p, v = bench.client, bench.params, bench.versions
    for name in ("weak", "good", "better"):
        commands.promote(client, p, v[name])
    client.delete_model_version(NAME, v["weak"])
    commands.rollback(client, p, None, "late alerts")
    assert read_aliases(client, NAME)[PRODUCTION] == v["good"] and aliases.previous(client, NAME) is None


def test_newest_of_two_versions_with_one_digest(bench: Bench) -> None:
    client, number = bench.client, bench.versions["good"]
    first = client.get_model_version(NAME, number)
    digest = first.tags[mlflow_runs.DIGEST_TAG]
    second = mlflow.register_model(first.source, NAME, tags={mlflow_runs.DIGEST_TAG: digest})
    assert versions.find_version(client, digest).version == second.version  # type: ignore[union-attr]
    client.set_model_version_tag(NAME, number, "touched", "later")
    assert versions.find_version(client, digest).version == second.version  # type: ignore[union-attr]


def test_version_without_a_digest_is_refused(bench: Bench) -> None:
    bench.client.delete_model_version_tag(NAME, bench.versions["good"], mlflow_runs.DIGEST_TAG)
    with pytest.raises(PromotionRefused, match="has no tag bundle.digest.*make repro"):
        commands.promote(bench.client, bench.params, bench.versions["good"])
