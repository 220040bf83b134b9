"""The metrics of the drift monitor."""

import math
import time

from prometheus_client import CollectorRegistry, Counter, Gauge

from ops.monitoring.drift.compare import Findings
from ops.monitoring.drift.reference import Reference

LIVE = {
    "log_loss": ("live_log_loss", "Log loss of the predictions whose outcome is known."),
    "constant_log_loss": ("live_constant_log_loss", "Log loss of a constant prediction of their observed rate."),
    "gap": ("live_calibration_gap", "Mean probability minus observed rate."),
    "mean_probability": ("live_mean_probability", "Mean probability of these predictions."),
    "observed_rate": ("live_observed_rate", "Share of these predictions whose outcome is positive."),
}
"""The metric of each measurement of the quality, and its help."""


class Gauges:  # pylint: disable=too-many-instance-attributes
    """The metrics of the monitor; a value that a run cannot measure is removed, not left at its last value."""

    def __init__(self, interval_seconds: float) -> None:
        self.registry = CollectorRegistry()
        self.score = self._gauge("drift_score_psi", "PSI of the predictions.", "model_version")
        self.feature = self._gauge("drift_feature_psi", "PSI of a feature.", "feature")
        self.missing = self._gauge("drift_missing_share", "Share of missing values.", "feature")
        self.unseen = self._gauge("drift_unseen_share", "Share of values that are not in the training data.", "feature")
        self.threshold = self._gauge("drift_threshold", "Value above which an alert fires.", "check", "feature")
        self.live = {name: self._gauge(metric, text, "model_version") for name, (metric, text) in LIVE.items()}
        self.live_rows = Gauge("live_rows", "Predictions of the window whose outcome is known.", registry=self.registry)
        self.rows = Gauge("drift_window_rows", "Predictions in the window.", registry=self.registry)
        self.last_run = Gauge("drift_last_run_timestamp_seconds", "End of the last run.", registry=self.registry)
        self.failures = Counter("drift_run_failures", "Runs that failed.", registry=self.registry)
        self.interval = Gauge("drift_interval_seconds", "Time between two runs.", registry=self.registry)
        text = "1 for each alias and its version in the registry."
        self.alias = self._gauge("registry_alias_info", text, "name", "alias", "version")
        self.interval.set(interval_seconds)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def aliases(self, name: str, versions: dict[str, str]) -> None:
        """Export the version of each alias."""
        self.alias.clear()
        for alias, version in versions.items():
            self.alias.labels(name, alias, version).set(1)

    def limits(self, reference: Reference) -> None:
        """Export the thresholds of the alerts."""
        policy = reference.policy
        self.threshold.clear()
        for check in ("min_rows", "unseen_share", "under_prediction", "over_prediction", "log_loss"):
            self.threshold.labels(check, "").set(getattr(policy, check))
        self.threshold.labels("score_psi", "").set(reference.score_limit)
        for name, limit in reference.psi_limits.items():
            self.threshold.labels("feature_psi", name).set(limit)
        for name, limit in reference.missing_limits.items():
            self.threshold.labels("missing_share", name).set(limit)

    def ran(self, rows: int, live_rows: int) -> None:
        """Export the end of a run and the size of its window."""
        self.rows.set(rows)
        self.live_rows.set(live_rows)
        self.last_run.set(time.time())
        for gauge in (self.score, self.feature, self.missing, self.unseen, *self.live.values()):
            gauge.clear()

    def found(self, version: str, found: Findings) -> None:
        """Export the findings of a run."""
        if math.isfinite(found.score_psi):
            self.score.labels(version).set(found.score_psi)
        features = ((self.feature, found.feature_psi), (self.missing, found.missing), (self.unseen, found.unseen))
        for gauge, values in features:
            for name, value in values.items():
                gauge.labels(name).set(value)
        if found.quality:
            for name, gauge in self.live.items():
                gauge.labels(version).set(getattr(found.quality, name))
