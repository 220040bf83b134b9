"""The pipeline on a small cut of the data: what reruns after which change, and how it stops."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ops.rehearsal import scratch
from tests.conftest import Clone, make_clone


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone with the small cut, in which the pipeline has run."""
    clone = make_clone(tmp_path_factory.mktemp("small"))
    scratch.write_params(clone.path, scratch.cut(clone.path))
    clone.run("dvc", "add", "--quiet", "data")
    clone.run("dvc", "repro")
    scratch.commit(clone.path, "A small cut")
    return clone


def set_param(clone: Clone, section: str, name: str, value: Any) -> None:
    """Change params.yaml."""
    p = scratch.read_params(clone.path)
    assert p[section].get(name) != value
    p[section][name] = value
    scratch.write_params(clone.path, p)


def restore(clone: Clone) -> None:
    """Go back to what is committed, and to its outputs."""
    clone.run("git", "checkout", "--quiet", ".")
    clone.run("dvc", "checkout", "--quiet", "--force")


def executed(output: str) -> list[str]:
    """Return the stages that `dvc repro` ran."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def test_a_parameter_reruns_its_stage_and_what_follows(small: Clone) -> None:
    set_param(small, "train", "num_leaves", 5)
    assert executed(small.run("dvc", "repro").stdout) == ["train", "evaluate", "register"]
    assert "num_leaves" in small.run("dvc", "params", "diff").stdout
    assert "roc_auc" in small.run("dvc", "metrics", "diff").stdout
    restore(small)


def test_a_parameter_of_the_measurement_does_not_retrain(small: Clone) -> None:
    set_param(small, "evaluate", "ece_bins", 5)
    assert executed(small.run("dvc", "repro").stdout)[0] == "evaluate"
    restore(small)


def test_a_changed_byte_in_the_data_stops_before_anything_is_made(small: Clone) -> None:
    path = small.path / "data/weather.csv"
    original = path.read_bytes()
    path.write_bytes(original.replace(b"39.02", b"93.02", 1))
    done = small.run("dvc", "repro", check=False)
    assert done.returncode != 0
    assert "data/weather.csv" in done.stderr and "make data" in done.stderr and "Traceback" not in done.stderr
    assert executed(done.stdout) == ["validate"]
    assert path.read_bytes() != original
    path.write_bytes(original)
    restore(small)


def test_mlflow_unreachable_names_the_address_and_the_way_without(small: Clone) -> None:
    uri = "http://127.0.0.1:9"
    done = small.run("python", "-m", "stages.featurize", check=False, MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 7
    assert uri in done.stderr and "env -u MLFLOW_TRACKING_URI make repro" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [("rounds", "twenty"), ("leafs", 3)],
)
def test_a_wrong_parameter_stops_with_its_name(small: Clone, name: str, value: Any) -> None:
    set_param(small, "train", name, value)
    done = small.run("dvc", "repro", check=False)
    restore(small)
    assert done.returncode != 0 and f"train.{name}" in done.stderr and "Traceback" not in done.stderr


def test_a_tampered_bundle_is_not_registered(small: Clone) -> None:
    path = small.path / "build/bundle/model.lgb"
    content = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(content.replace(b"leaf_value=", b"leaf_value=9", 1))
    done = small.run("python", "-m", "stages.register", check=False)
    path.write_bytes(content)
    assert done.returncode == 3 and "not the model of its manifest" in done.stderr


def test_a_weak_model_is_registered_but_not_promoted(small: Clone) -> None:
    done = small.run("python", "-m", "ops.cli", "model", "promote", check=False)
    assert done.returncode == 8 and "is refused" in done.stderr and "brier skill" in done.stderr
    assert json.loads((small.path / "build/receipt.json").read_bytes())["floors"] is False


def test_a_demand_for_production_names_the_command(small: Clone) -> None:
    done = small.run("python", "-m", "ops.cli", "model", "require", check=False)
    assert done.returncode == 4 and "make promote" in done.stderr
