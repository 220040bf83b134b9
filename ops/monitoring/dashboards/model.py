"""*Model and data*: what is predicted, on what input, how far from the reference, and how good it turned out."""

from __future__ import annotations

from ops.monitoring.dashboards.build import MLFLOW
from ops.monitoring.dashboards.panel import NEUTRAL, Board, Panel, Row, above

JOB = '{job=~"$job"}'
PREDICTIONS = f"sum(rate(model_predictions_total{JOB}[$__rate_interval]))"


def _threshold(check: str) -> str:
    return f'max(drift_threshold{{job="drift",check="{check}"}})'


def _per_limit(metric: str, check: str) -> str:
    limit = f'drift_threshold{{job="drift",check="{check}"}}'
    return f'sort_desc(max by (feature) ({metric}{{job="drift"}} / on (feature) group_left () ({limit} > 0)))'


SERVED = Row(
    "What is served",
    (
        Panel(
            "Versions",
            "What the service serves and what the registry names. Two versions under one alias for ten minutes is the "
            "alert WrongVersionServed.",
            "none",
            {
                "served": f"max by (job, name, version, alias) (model_info{JOB})",
                "registry": 'max by (job, name, version, alias) (registry_alias_info{job="drift"})',
            },
            kind="table",
            width=8,
            height=6,
            columns=("job", "name", "version", "alias"),
            link=(
                "Version in MLflow",
                f"{MLFLOW}/#/models/${{__data.fields.name}}/versions/${{__data.fields.version}}",
            ),
        ),
        Panel(
            "Champion history",
            "Which version was production, staging and previous, from when to when, as the registry says.",
            "none",
            {"{{alias}} {{version}}": 'max by (alias, version) (registry_alias_info{job="drift"})'},
            kind="timeline",
            steps=((0, "blue"),),
            width=8,
            height=6,
        ),
        Panel(
            "Age of the model",
            "Since the served version was registered. 90 days is the alert ModelOld.",
            "s",
            {"": f"time() - max(model_created_timestamp_seconds{JOB})"},
            kind="stat",
            steps=above(90 * 86400, 60 * 86400),
            width=4,
            height=6,
        ),
        Panel(
            "Age of the last drift run",
            "The rows on drift below are as old as this. Two periods of the monitor are the alert DriftRunStale.",
            "s",
            {
                "age": 'time() - max(drift_last_run_timestamp_seconds{job="drift"})',
                "limit": '2 * max(drift_interval_seconds{job="drift"})',
            },
            kind="stat",
            width=4,
            height=6,
        ),
    ),
)

PREDICTED = Row(
    "Predictions",
    (
        Panel(
            "Predictions by outcome",
            "Flights answered per second, with and without an alert.",
            "cps",
            {"{{outcome}}": f"sum by (outcome) (rate(model_predictions_total{JOB}[$__rate_interval]))"},
            stacked=True,
            width=8,
        ),
        Panel(
            "Distribution of the score",
            "Predictions per second by probability of not being on time.",
            "percentunit",
            {"{{le}}": f"sum by (le) (rate(model_probability_bucket{JOB}[$__rate_interval]))"},
            kind="heatmap",
            low=None,
            width=8,
        ),
        Panel(
            "Mean probability and share of alerts",
            "What the model says on average, and how often it alerts. Both follow the weather; a step without weather "
            "is a fault.",
            "percentunit",
            {
                "mean probability": f"sum(rate(model_probability_sum{JOB}[$__rate_interval])) "
                f"/ sum(rate(model_probability_count{JOB}[$__rate_interval]))",
                "alerts": f'sum(rate(model_predictions_total{{job=~"$job",outcome="alert"}}[$__rate_interval])) '
                f"/ {PREDICTIONS}",
            },
            width=8,
            high=1,
        ),
    ),
)

INPUT = Row(
    "Input, as it comes in",
    (
        Panel(
            "Missing values by feature",
            "Share of the flights that lack a feature, in the service's own count. Gusts, pressure and the distance to "
            "a holiday are often missing.",
            "percentunit",
            {
                "{{feature}}": "topk(8, sum by (feature) "
                f"(rate(model_feature_missing_total{JOB}[$__rate_interval])) / on () group_left () {PREDICTIONS})",
            },
            high=1,
        ),
        Panel(
            "Unseen categories by feature",
            "Share of the flights whose airline or airport the model was not trained on; it treats it as missing. "
            "1 % of a drift window is the alert UnseenCategory.",
            "percentunit",
            {
                "{{feature}}": f"sum by (feature) (rate(model_feature_unseen_total{JOB}[$__rate_interval])) "
                f"/ on () group_left () {PREDICTIONS}",
                "limit": _threshold("unseen_share"),
            },
            dashed=("limit",),
        ),
    ),
)

DRIFT = Row(
    "Drift: the last window of the journal against the reference of the model",
    (
        Panel(
            "Score drift",
            "Population stability index of the predictions. The limit comes from the weeks of the reference itself, as "
            "calm and stormy weeks differ a lot. Above it: ScoreDrift.",
            "short",
            {
                "version {{model_version}}": 'max by (model_version) (drift_score_psi{job="drift"})',
                "limit": _threshold("score_psi"),
            },
            dashed=("limit",),
            width=8,
        ),
        Panel(
            "Feature drift, in limits",
            "Population stability index of each feature divided by its own limit: 1 is more than any week of the "
            "reference, so a season stays below. Above 1: FeatureDrift.",
            "x",
            {"{{feature}}": _per_limit("drift_feature_psi", "feature_psi")},
            kind="bargauge",
            steps=above(1, 0.75),
            width=8,
            height=16,
            high=2,
        ),
        Panel(
            "Missing values, in limits",
            "Share of missing values in the window divided by the limit of the feature. Above 1: InputMissing.",
            "x",
            {"{{feature}}": _per_limit("drift_missing_share", "missing_share")},
            kind="bargauge",
            steps=above(1, 0.75),
            width=8,
            height=16,
            high=2,
        ),
        Panel(
            "Rows in the window",
            "Predictions compared, and those whose outcome is known. Below the limit nothing is compared, and the "
            "monitor says so.",
            "short",
            {
                "predictions": 'max(drift_window_rows{job="drift"})',
                "with outcome": 'max(live_rows{job="drift"})',
                "least": _threshold("min_rows"),
            },
            dashed=("least",),
            width=8,
        ),
    ),
)

QUALITY = Row(
    "Live quality, from outcomes",
    (
        Panel(
            "Calibration gap",
            "Mean probability minus the observed share of flights that were not on time. Below zero clients are warned "
            "too seldom. Beyond a limit: CalibrationOff.",
            "percentunit",
            {
                "gap": 'max(live_calibration_gap{job="drift"})',
                "limit, too low": f"-{_threshold('under_prediction')}",
                "limit, too high": _threshold("over_prediction"),
            },
            dashed=("limit.*",),
            steps=NEUTRAL,
            width=8,
            low=None,
        ),
        Panel(
            "Predicted and observed",
            "The two that the gap is the difference of.",
            "percentunit",
            {
                "mean probability": 'max(live_mean_probability{job="drift"})',
                "observed": 'max(live_observed_rate{job="drift"})',
            },
            width=8,
            high=1,
        ),
        Panel(
            "Log loss",
            "Of the flights whose outcome is known, beside that of always answering their observed rate: above that "
            "line the model is worse than a constant. Above the limit: LiveLossHigh.",
            "short",
            {
                "model": 'max(live_log_loss{job="drift"})',
                "constant": 'max(live_constant_log_loss{job="drift"})',
                "limit": _threshold("log_loss"),
            },
            dashed=("limit",),
            width=8,
        ),
        Panel(
            "Outcomes received",
            "Outcomes per second that clients have sent to POST /outcomes.",
            "cps",
            {"{{outcome}}": f"sum by (outcome) (rate(model_outcomes_total{JOB}[$__rate_interval]))"},
            stacked=True,
        ),
        Panel(
            "Reloads",
            "Attempts to follow the alias, per hour, by result. More than two failures in ten minutes: "
            "ModelReloadFailing.",
            "short",
            {"{{result}}": f"sum by (result) (increase(model_reloads_total{JOB}[1h]))"},
        ),
    ),
)

BOARD = Board(
    "on-time-model",
    "On-time / Model and data",
    "What the model predicts, on what, and how well. Seasons move the input every month: the limits are those of the "
    "weeks that the model was made from, and quality is measured as soon as outcomes are known.",
    (SERVED, PREDICTED, INPUT, DRIFT, QUALITY),
    {"job": 'label_values(model_info{job!=""}, job)'},
)
