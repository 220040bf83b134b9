"""Prediction by LightGBM's C library without its Python package, whose import of SciPy takes a second and 60 MB.

Results are bit-identical to `lightgbm.Booster.predict`, which calls the same functions.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import BundleInvalid
from app.interface import FEATURE_NAMES
from app.problem_kit.features import Floats

_FLOAT64, _ROW_MAJOR, _ALL_TREES = 1, 1, -1
_PROBABILITY, _CONTRIBUTIONS = 0, 3  # LightGBM's prediction types
_ONE_THREAD = b"num_threads=1"


@cache
def _library() -> ctypes.CDLL:
    package = importlib.util.find_spec("lightgbm")
    assert package is not None and package.origin is not None
    library = ctypes.CDLL(str(Path(package.origin).parent / "lib" / "lib_lightgbm.so"))
    library.LGBM_GetLastError.restype = ctypes.c_char_p
    return library


def _call(function: str, *arguments: Any) -> None:
    if getattr(_library(), function)(*arguments) != 0:
        raise BundleInvalid(f"LightGBM: {_library().LGBM_GetLastError().decode(errors='replace')}")


class Booster:
    """A model loaded from LightGBM's text format."""

    def __init__(self, text: bytes) -> None:
        """Load the model; raise BundleInvalid when LightGBM cannot read it."""
        self._handle, self._single = ctypes.c_void_p(), ctypes.c_void_p()
        _call("LGBM_BoosterLoadModelFromString", text, ctypes.byref(ctypes.c_int()), ctypes.byref(self._handle))
        features = ctypes.c_int()
        _call("LGBM_BoosterGetNumFeature", self._handle, ctypes.byref(features))
        if features.value != len(FEATURE_NAMES):
            raise BundleInvalid(f"The model takes {features.value} features, not {len(FEATURE_NAMES)}.")
        setting = (_PROBABILITY, 0, _ALL_TREES, _FLOAT64, len(FEATURE_NAMES), _ONE_THREAD)
        _call("LGBM_BoosterPredictForMatSingleRowFastInit", self._handle, *setting, ctypes.byref(self._single))
        self._row, self._probability = (ctypes.c_double * len(FEATURE_NAMES))(), ctypes.c_double()
        self._predict_single = _library().LGBM_BoosterPredictForMatSingleRowFast
        output = ctypes.byref(ctypes.c_int64()), ctypes.byref(self._probability)
        self._arguments = self._single, ctypes.byref(self._row), *output

    def __del__(self) -> None:
        if self._single:
            _library().LGBM_FastConfigFree(self._single)
        if self._handle:
            _library().LGBM_BoosterFree(self._handle)

    def predict(self, features: Floats, num_threads: int = 0) -> Floats:
        """Return the probability of each row, shape (n,); with 0 threads, OpenMP's default number."""
        return self._matrix(features, _PROBABILITY, num_threads)

    def contributions(self, features: Floats) -> Floats:
        """Return the contributions of the features to the log-odds and, last, the baseline, shape (n, k + 1)."""
        return self._matrix(features, _CONTRIBUTIONS, 1).reshape(len(features), -1)

    def predict_single(self, row: list[float]) -> float:
        """Return the probability of one row; not thread-safe, because calls share one buffer."""
        self._row[:] = row  # type: ignore[assignment] # accepts a list of floats
        if self._predict_single(*self._arguments) != 0:
            raise RuntimeError(_library().LGBM_GetLastError().decode(errors="replace"))
        return self._probability.value

    def _matrix(self, features: Floats, kind: int, num_threads: int) -> Floats:
        features = np.ascontiguousarray(features, dtype=np.float64)
        columns = len(FEATURE_NAMES) + 1 if kind == _CONTRIBUTIONS else 1
        predicted = np.empty(len(features) * columns)
        _call(
            "LGBM_BoosterPredictForMat",
            self._handle,
            features.ctypes.data_as(ctypes.c_void_p),
            *(_FLOAT64, *features.shape, _ROW_MAJOR, kind, 0, _ALL_TREES),
            f"num_threads={num_threads}".encode(),
            ctypes.byref(ctypes.c_int64()),
            predicted.ctypes.data_as(ctypes.c_void_p),
        )
        return predicted
