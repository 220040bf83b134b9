"""The pipeline on a small cut of the data: what reruns after which change, and how it stops."""

from __future__ import annotations

import hashlib
import json

import pandas as pd
import pytest
import yaml

from tests.conftest import Clone, make_clone

FIRST, LAST = "2013-01-01", "2013-03-31"


def cut(clone: Clone) -> None:
    """Keep a quarter of the flights of January to March, and commit parameters that fit."""
    flights = pd.read_csv(clone.path / "data/flights.csv", dtype=str, keep_default_na=False)
    kept = flights[flights["month"].isin(["1", "2", "3"])].iloc[::4]
    weather = pd.read_csv(clone.path / "data/weather.csv", dtype=str, keep_default_na=False)
    hours = weather[weather["month"].isin(["1", "2", "3"])]
    p = yaml.safe_load((clone.path / "params.yaml").read_text())
    for name, table in (("flights", kept), ("weather", hours)):
        path = clone.path / "data" / f"{name}.csv"
        table.to_csv(path, index=False)
        p["data"]["tables"][name] = hashlib.sha256(path.read_bytes()).hexdigest()
    p["validate"] |= {"first_date": FIRST, "last_date": LAST, "flights_per_day": [1, 400]}
    p["validate"]["rows"] |= {"flights": [len(kept), len(kept)], "weather": [len(hours), len(hours)]}
    p["validate"]["missing_share"] |= {
        name: 0.1 for name in p["validate"]["missing_share"] if name.startswith("flights.")
    }
    p["featurize"] |= {"train": [FIRST, "2013-02-28"], "test": ["2013-03-01", LAST], "reference_rows": 500}
    p["train"] |= {"rounds": 20, "fold_months": [2], "min_data_in_leaf": 20, "threshold_rule": "alert_share"}
    p["evaluate"]["bootstrap"] = 50
    (clone.path / "params.yaml").write_text(yaml.safe_dump(p, sort_keys=False))
    clone.run("dvc", "add", "--quiet", "data")
    clone.run("git", "add", "--all")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone with the small cut, in which the pipeline has run."""
    clone = make_clone(tmp_path_factory.mktemp("small"))
    cut(clone)
    clone.run("dvc", "repro")
    clone.run("git", "add", "--all")
    clone.run("git", "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "--quiet", "-m", "A small cut")
    return clone


def set_param(clone: Clone, old: str, new: str) -> None:
    """Change params.yaml."""
    content = (clone.path / "params.yaml").read_text()
    assert old in content
    (clone.path / "params.yaml").write_text(content.replace(old, new))


def restore(clone: Clone) -> None:
    """Go back to what is committed, and to its outputs."""
    clone.run("git", "checkout", "--quiet", ".")
    clone.run("dvc", "checkout", "--quiet", "--force")


def executed(output: str) -> list[str]:
    """Return the stages that `dvc repro` ran."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def test_a_parameter_reruns_its_stage_and_what_follows(small: Clone) -> None:
    set_param(small, "num_leaves: 31", "num_leaves: 15")
    assert executed(small.run("dvc", "repro").stdout) == ["train", "evaluate", "register"]
    assert "num_leaves" in small.run("dvc", "params", "diff").stdout
    assert "roc_auc" in small.run("dvc", "metrics", "diff").stdout
    restore(small)


def test_a_parameter_of_the_measurement_does_not_retrain(small: Clone) -> None:
    set_param(small, "ece_bins: 15", "ece_bins: 10")
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
    ("old", "new", "named"),
    [("rounds: 20", "rounds: twenty", "train.rounds"), ("rounds: 20", "rounds: 20\n  leafs: 3", "train.leafs")],
)
def test_a_wrong_parameter_stops_with_its_name(small: Clone, old: str, new: str, named: str) -> None:
    set_param(small, old, new)
    done = small.run("dvc", "repro", check=False)
    restore(small)
    assert done.returncode != 0 and named in done.stderr and "Traceback" not in done.stderr


def test_a_tampered_bundle_is_not_registered(small: Clone) -> None:
    path = small.path / "build/bundle/model.lgb"
    content = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(content.replace(b"leaf_value=", b"leaf_value=9", 1))
    done = small.run("python", "-m", "stages.register", check=False)
    path.write_bytes(content)
    assert done.returncode == 3 and "not the model of its manifest" in done.stderr


def test_a_weak_model_is_registered_but_not_promoted(small: Clone) -> None:
    done = small.run("python", "-m", "ops.registry", "promote", check=False)
    assert done.returncode == 8 and "is refused" in done.stderr and "brier skill" in done.stderr
    assert json.loads((small.path / "build/receipt.json").read_bytes())["floors"] is False


def test_a_demand_for_production_names_the_command(small: Clone) -> None:
    done = small.run("python", "-m", "ops.registry", "require", check=False)
    assert done.returncode == 4 and "make promote" in done.stderr
