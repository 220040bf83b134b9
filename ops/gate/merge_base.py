"""The two sides of a pull request: the reports of the working tree and of its merge base, and their test rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ops.gate.policy import Nested
from stages.base import git, yaml_files
from stages.base.paths import EVALUATION_FILE, METRICS_FILE

if TYPE_CHECKING:
    from stages.evaluation.metrics import Scored


@dataclass(frozen=True)
class Side:
    """What a commit or the working tree has measured: laid out as reports/metrics.json and evaluation.json."""

    metrics: Nested = field(default_factory=dict)
    evaluation: Nested = field(default_factory=dict)

    @property
    def slices(self) -> Nested:
        """Return the metrics by slice."""
        return groups(self.evaluation.get("slices"))

    @property
    def threshold(self) -> dict[str, Any]:
        """Return the decision threshold, and the share of alerts that follows from it."""
        return dict(self.evaluation.get("threshold", {}))

    @property
    def rows(self) -> dict[str, Any]:
        """Return which test rows these are."""
        return dict(groups(self.evaluation.get("rows")).get("test", {}))


@dataclass(frozen=True)
class Base:
    """The merge base that a candidate is compared with."""

    commit: str
    side: Side | None
    """None where the commit has measured nothing."""
    moved_from: dict[str, Any] = field(default_factory=dict)
    """The test rows of the commit, if they differ from the candidate's."""
    scored: Scored | None = None
    """The base's predictions of the candidate's rows, if it was scored again."""


def read_file(path: Path, commit: str = "") -> dict[str, Any]:
    """Return the content of a file, now or at the commit; none where it is missing, which the gate refuses."""
    text = None
    if commit:
        text = git.show(commit, path)
    elif path.exists():
        text = path.read_text(encoding="utf-8")
    content = {} if text is None else yaml_files.parse(text, path, commit[:9])
    return content if isinstance(content, dict) else {}


def groups(content: object) -> dict[str, Any]:
    """Return the groups of numbers in a report; skip other content, so that the gate refuses it as missing."""
    return {name: part for name, part in content.items() if isinstance(part, dict)} if isinstance(content, dict) else {}


def side(commit: str = "") -> Side:
    """Return the reports of a commit, by default of the working tree."""
    return Side(groups(read_file(METRICS_FILE, commit)), groups(read_file(EVALUATION_FILE, commit)))


def load_side(commit: str, now: Side) -> Base:
    """Return the merge base as it was measured; `moved_from` is set if that was on other rows than the candidate's."""
    if git.show(commit, METRICS_FILE) is None:
        return Base(commit, None)
    before = side(commit)
    if "sha256" not in now.rows or now.rows["sha256"] == before.rows.get("sha256"):
        return Base(commit, before)  # the gate refuses rows without a digest
    return Base(commit, before, before.rows or {"first": "unknown days", "last": "unknown days"})
