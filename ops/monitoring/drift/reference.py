"""The reference sample of a model, and the drift limits that its own weeks give."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from app.errors import BundleInvalid
from app.interface import CATEGORIES, FEATURE_NAMES
from app.model.bundles import REFERENCE_FILE
from app.problem_kit.features import Floats
from stages.features.feature_files import DAY
from stages.problem_kit.params import DriftParams

SCORE = "probability"
WEEK_DAYS = 7
STRIDE_DAYS = 3
FEW_VALUES = 20
"""A number with more different values than this is compared by intervals."""
LEAST_ROWS = 50
"""A week with fewer rows is too noisy for a limit."""


def psi(reference: pd.Series, window: pd.Series) -> float:
    """Return the population stability index of the values that are not missing; NaN when one side has none.

    It is the sum over bins of (p - q) ln(p / q), with the shares p of the reference and q of the window. The bins are
    evidently's, whose page shows the same numbers: by Sturges' rule, or each value if the reference has few of them.
    """
    there, now = reference.dropna(), window.dropna()
    if there.empty or now.empty:
        return float("nan")
    if pd.api.types.is_numeric_dtype(reference) and there.nunique() > FEW_VALUES:
        edges = np.histogram_bin_edges(np.concatenate([there, now]), bins="sturges")
        counts = [np.histogram(values, edges)[0] for values in (there, now)]
    else:
        known = there.value_counts().index.union(now.unique())
        counts = [values.value_counts().reindex(known, fill_value=0).to_numpy() for values in (there, now)]
    p, q = map(_shares, counts)
    return float(np.sum((p - q) * np.log(p / q)))


def _shares(counts: npt.NDArray[np.int64]) -> Floats:
    """Return the shares of bins; an empty bin has a small one instead, as evidently sets it."""
    shares = counts / counts.sum()
    least = float(shares[shares > 0].min())
    return np.where(shares == 0, least / 1e6 if least <= 1e-4 else 1e-4, shares)


def words(codes: pd.DataFrame, vocabularies: dict[str, list[str]]) -> pd.DataFrame:
    """Return features whose categories are words instead of codes, as the journal has them."""
    lists = {name: np.array([*vocabularies[name], None], dtype=object) for name in CATEGORIES}
    texts = {name: lists[name][codes[name].fillna(-1).astype(int)] for name in CATEGORIES}
    return codes.assign(**texts)


@dataclass(frozen=True)
class Reference:
    """The training data of a model: a sample of its features and out-of-fold scores, with days, categories as words."""

    version: str
    frame: pd.DataFrame
    policy: DriftParams

    @cached_property
    def _weeks(self) -> list[pd.DataFrame]:
        """The rows of overlapping weeks."""
        days = self.frame[DAY].to_numpy()
        starts = range(int(days.min()), int(days.max()) - WEEK_DAYS + 2, STRIDE_DAYS)
        weeks = [self.frame[(days >= start) & (days < start + WEEK_DAYS)] for start in starts]
        return [rows for rows in weeks if len(rows) >= LEAST_ROWS] or [self.frame]  # of few rows a week

    def _limit(self, column: str) -> float:
        """Return the largest PSI of a week, with a margin, so that seasons stay below it."""
        weeks = [psi(self.frame[column], rows[column]) for rows in self._weeks]
        usual = max((value for value in weeks if np.isfinite(value)), default=0.0)
        return max(self.policy.psi_floor, self.policy.psi_factor * usual)

    @cached_property
    def psi_limits(self) -> dict[str, float]:
        """The PSI limit of each feature."""
        return {name: self._limit(name) for name in FEATURE_NAMES}

    @cached_property
    def score_limit(self) -> float:
        """The PSI limit of the score."""
        return self._limit(SCORE)

    @cached_property
    def missing_limits(self) -> dict[str, float]:
        """The limit of the share of missing values of each feature."""
        shares = pd.DataFrame([rows[list(FEATURE_NAMES)].isna().mean() for rows in self._weeks])
        return {str(name): float(share) + self.policy.missing_margin for name, share in shares.max().items()}


def load_reference(folder: Path, version: str, digest: str, policy: DriftParams) -> Reference:
    """Read the reference from a downloaded bundle; raise BundleInvalid if its digest is not the registered one."""
    try:
        content = (folder / "manifest.json").read_bytes()
        manifest = json.loads(content)
        sample = (folder / REFERENCE_FILE).read_bytes()
        expected, vocabularies = manifest["reference_sha256"], manifest["lookups"]["vocabularies"]
    except (OSError, ValueError, KeyError) as err:
        raise BundleInvalid(f"version {version} has no reference sample: {err!r}. `make repro` registers one.") from err
    if hashlib.sha256(content).hexdigest() != digest or hashlib.sha256(sample).hexdigest() != expected:
        raise BundleInvalid(f"the reference sample of version {version} does not match the registry.")
    return Reference(version, words(pd.read_parquet(folder / REFERENCE_FILE), vocabularies), policy)
