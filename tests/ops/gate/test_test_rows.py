"""The test rows of the gate: features by the lookups of another bundle, and folders that do not fit together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ops.gate import evidence
from stages import params
from stages.base.errors import DataInvalid
from stages.base.paths import write_json
from stages.features.feature_files import LOOKUPS_FILE, matrix
from tests.support.repositories.clone import Clone


def test_other_lookups_change_unknown_categories_only(small: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small.path)
    p, rows = params.load(), evidence.TestRows.load()
    known = rows.lookups.vocabularies["carrier"]
    fewer = replace(rows.lookups, vocabularies=rows.lookups.vocabularies | {"carrier": known[:-1]})
    expected = rows.frame.assign(carrier=rows.frame["carrier"].replace(len(known) - 1, np.nan))
    assert expected["carrier"].isna().any()
    np.testing.assert_array_equal(rows.features(fewer, p), matrix(expected))
    with pytest.raises(DataInvalid, match="^build/features/test has other rows than build/tables: `dvc repro` "):
        replace(rows, frame=rows.frame.iloc[1:]).features(fewer, p)


def test_absent_test_rows_or_lookups_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataInvalid, match="^build/features is not complete: .*lookups.json.*`dvc repro featurize` "):
        evidence.TestRows.load()
    LOOKUPS_FILE.parent.mkdir(parents=True)
    write_json(LOOKUPS_FILE, {})
    with pytest.raises(DataInvalid, match="^build/features/test is missing or empty. `dvc repro featurize` "):
        evidence.TestRows.load()
