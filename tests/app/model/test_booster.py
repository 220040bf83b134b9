"""LightGBM's library called by us: the numbers are those of its Python package, to the bit."""

from __future__ import annotations

from pathlib import Path

import lightgbm
import numpy as np
import pytest

from app.errors import BundleInvalid
from app.interface import FEATURE_NAMES
from app.model import bundles
from app.model.booster import Booster
from app.problem_kit.features import Floats

ROWS = 20_000


@pytest.fixture(scope="module")
def rows() -> Floats:
    """Rows as varied as can be: gaps, categories that the model does not know, numbers far outside."""
    rng = np.random.default_rng(3)
    rows = rng.normal(0, 1, (ROWS, len(FEATURE_NAMES))) * 10.0 ** rng.integers(-3, 6, (ROWS, len(FEATURE_NAMES)))
    rows[:, :3] = rng.integers(0, 5, (ROWS, 3))
    rows[:, FEATURE_NAMES.index("departure_minute")] = rng.integers(0, 1440, ROWS)
    rows[rng.random(rows.shape) < 0.2] = np.nan
    return rows


@pytest.fixture(scope="module")
def ours(bundle_dir: Path) -> Booster:
    """The small model, loaded by us."""
    return Booster((bundle_dir / bundles.MODEL_FILE).read_bytes())


@pytest.fixture(scope="module")
def theirs(bundle_dir: Path) -> lightgbm.Booster:
    """The small model, loaded by LightGBM's package."""
    return lightgbm.Booster(model_file=bundle_dir / bundles.MODEL_FILE)


def test_a_matrix_is_predicted_as_by_lightgbm(ours: Booster, theirs: lightgbm.Booster, rows: Floats) -> None:
    expected = theirs.predict(rows)
    assert len(np.unique(expected)) > 100
    assert ours.predict(rows).tobytes() == expected.tobytes()
    assert ours.predict(rows, num_threads=1).tobytes() == expected.tobytes()


def test_a_single_row_is_predicted_as_by_lightgbm(ours: Booster, theirs: lightgbm.Booster, rows: Floats) -> None:
    singles = np.array([ours.predict_single(row) for row in rows.tolist()])
    assert singles.tobytes() == theirs.predict(rows).tobytes()


def test_contributions_are_those_of_lightgbm(ours: Booster, theirs: lightgbm.Booster, rows: Floats) -> None:
    few = rows[:200]
    parts = ours.contributions(few)
    assert parts.tobytes() == theirs.predict(few, pred_contrib=True).tobytes()
    assert parts.sum(axis=1) == pytest.approx(theirs.predict(few, raw_score=True), abs=1e-9)


def test_model_with_other_features_is_refused() -> None:
    data = lightgbm.Dataset(np.random.default_rng(0).random((200, 3)), np.arange(200) % 2)
    text = lightgbm.train({"objective": "binary", "verbosity": -1}, data, 2).model_to_string()
    with pytest.raises(BundleInvalid, match="takes 3 features, not 26"):
        Booster(text.encode())


def test_refuses_what_is_no_model() -> None:
    with pytest.raises(BundleInvalid, match="LightGBM: "):
        Booster(b"tree\nversion=v4\nno model")
