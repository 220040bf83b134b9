"""Training from files: the model is that of the whole matrix, byte for byte, whatever the files."""

from __future__ import annotations

from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import pytest

from app.interface import CATEGORIES, FEATURE_NAMES, without
from stages import params
from stages.base.paths import FEATURES_DIR
from stages.features.feature_files import TARGET, matrix
from stages.training.boosting import Source, data_seed, dropout, fit, lightgbm_params
from tests.conftest import ROOT
from tests.support.promotion import flights

P = params.load(ROOT / "params.yaml").train.model_copy(update={"rounds": 8, "min_data_in_leaf": 20})


@pytest.fixture(scope="module", name="rows")
def made_up() -> pd.DataFrame:
    """Made-up flights, more than LightGBM samples for its bins in the test."""
    return flights(0)


def write(rows: pd.DataFrame, cuts: list[int]) -> None:
    """Write rows to files that end at these positions."""
    folder = FEATURES_DIR / "train"
    folder.mkdir(parents=True)
    for i, (first, last) in enumerate(zip([0, *cuts], [*cuts, len(rows)], strict=True)):
        rows.iloc[first:last].to_parquet(folder / f"{i:04d}-2013-{i + 1:02d}.parquet", index=False)


def in_memory(rows: pd.DataFrame) -> str:
    """Return the model that LightGBM trains on the whole matrix."""
    features = matrix(rows)
    for group, masked in dropout(len(rows), P).items():
        features = np.where(masked[:, None], without(group, features), features)
    data = lightgbm.Dataset(features, rows[TARGET], feature_name=[*FEATURE_NAMES], categorical_feature=[*CATEGORIES])
    return str(lightgbm.train(lightgbm_params(P), data, P.rounds).model_to_string())


@pytest.mark.parametrize("cuts", [[], [1], [700, 701, 2500]])
def test_the_model_is_that_of_the_matrix(
    rows: pd.DataFrame, cuts: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stages.training.boosting.Part.batch_size", 300)
    write(rows, cuts)
    source = Source.files("train")
    assert fit(source, P).model_to_string() == in_memory(rows)
    chosen = np.arange(len(rows)) % 3 > 0
    assert fit(source, P, chosen).model_to_string() == in_memory(rows[chosen])
    np.testing.assert_array_equal(source.features(chosen), matrix(rows[chosen]))


def test_the_sample_for_the_bins_is_that_of_the_matrix(rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    sampled = lightgbm_params(P) | {"bin_construct_sample_cnt": 500}
    monkeypatch.setattr("stages.training.boosting.lightgbm_params", lambda _: sampled)
    monkeypatch.setattr("tests.stages.training.test_boosting.lightgbm_params", lambda _: sampled)
    source = Source.frame(rows)
    assert fit(source, P).model_to_string() == in_memory(rows)
    del sampled["data_random_seed"]
    assert fit(source, P).model_to_string() != in_memory(rows)


@pytest.mark.parametrize("seed", [0, 1, 42, 2_000_000_000])
def test_seed_of_the_sample_is_that_of_lightgbm(seed: int) -> None:
    data = lightgbm.Dataset(np.random.default_rng(0).random((50, 1)), np.arange(50) % 2)
    model = lightgbm.train({"objective": "binary", "seed": seed, "verbosity": -1}, data, 1).model_to_string()
    assert f"[data_random_seed: {data_seed(seed)}]" in model
