"""*Service*: is it up, is it within its objectives, and where does the time go."""

from __future__ import annotations

from ops.monitoring.dashboards.build import MLFLOW
from ops.monitoring.dashboards.panel import Board, Panel, Row, above, below

JOB = '{job=~"$job"}'
REQUESTS = f"sum by (job) (rate(http_requests_total{JOB}[$__rate_interval]))"


def _of_status(status: str) -> str:
    """Return the share of requests with this status; 0, not nothing, when there never was one."""
    some = f'sum by (job) (rate(http_requests_total{{job=~"$job",status="{status}"}}[$__rate_interval]))'
    return f"({some} or 0 * {REQUESTS}) / ({REQUESTS} > 0)"


def _quantile(q: float, by: str = "le", metric: str = "http_request_duration_highr_seconds") -> str:
    return f"histogram_quantile({q}, sum by ({by}) (rate({metric}_bucket{JOB}[$__rate_interval])))"


def _mean(metric: str) -> str:
    return f"sum(rate({metric}_sum{JOB}[$__rate_interval])) / sum(rate({metric}_count{JOB}[$__rate_interval]))"


def _burn(window: str) -> str:
    ratio = f"job_slo:bad_requests:ratio_rate{window}{JOB}"
    return f"max by (slo) ({ratio} / on (slo) group_left () slo:error_budget:ratio)"


OBJECTIVES = Row(
    "Is it up, and within its objectives?",
    (
        Panel(
            "Up",
            "Whether Prometheus reaches every process of the service. 0 for a minute is the alert ApiDown.",
            "bool_on_off",
            {"": f"min(up{JOB})"},
            kind="stat",
            steps=below(1),
            width=4,
            height=4,
            high=1,
        ),
        Panel(
            "Probes",
            "Whether the service answers a client: a request to /readyz and a real prediction, from outside. "
            "0 for a minute is the alert ApiProbeFailed.",
            "bool_yes_no",
            {"{{job}}": 'min by (job) (probe_success{job=~"probe-.*"})'},
            kind="stat",
            steps=below(1),
            width=4,
            height=4,
            high=1,
        ),
        Panel(
            "Availability, 30 days",
            "Share of requests of 30 days that did not end in a 5xx, weighted by traffic. The objective is 99.5 %.",
            "percentunit",
            {"": '1 - max(job_slo:bad_requests:ratio_30d{job=~"$job",slo="availability"})'},
            kind="stat",
            steps=below(0.995),
            width=4,
            height=4,
            low=None,
        ),
        Panel(
            "Error budget left",
            "What is left of the bad requests that 30 days allow: 0.5 % with a 5xx, 1 % slower than 0.1 s. "
            "At 0 the objective is missed.",
            "percentunit",
            {"{{slo}}": f"min by (slo) (job_slo:error_budget_left:ratio{JOB})"},
            kind="stat",
            steps=below(0.25, 0),
            width=4,
            height=4,
            low=None,
        ),
        Panel(
            "Burn rate, 1 hour",
            "How many times faster than allowed the budget of 30 days is used. 1 uses it up in 30 days; "
            "14.4 in two days, which pages.",
            "x",
            {"{{slo}}": _burn("1h")},
            kind="stat",
            steps=above(14.4, 1),
            width=4,
            height=4,
        ),
        Panel(
            "Latency within 0.1 s",
            "Share of the requests of the last five minutes that took 0.1 s or less. The objective is 99 %.",
            "percentunit",
            {"": '1 - max(job_slo:bad_requests:ratio_rate5m{job=~"$job",slo="latency"})'},
            kind="stat",
            steps=below(0.99),
            width=4,
            height=4,
            low=None,
        ),
        Panel(
            "Version served",
            "The model that each process serves, and whether it came from the registry or from the copy in the image. "
            "A version leads to its page in MLflow.",
            "none",
            {"": f"max by (instance, name, version, alias, source, run_id) (model_info{JOB})"},
            kind="table",
            width=12,
            height=6,
            columns=("instance", "name", "version", "alias", "source", "run_id"),
            link=(
                "Version in MLflow",
                f"{MLFLOW}/#/models/${{__data.fields.name}}/versions/${{__data.fields.version}}",
            ),
        ),
        Panel(
            "Burn rates",
            "The windows that the alerts look at: a page at 14.4 (1 h) and 6 (6 h), a ticket at 3 (1 d) and 1 (3 d). "
            "Everything below 1 is within the objective.",
            "x",
            {f"{{{{slo}}}} {window}": _burn(window) for window in ("1h", "6h", "1d", "3d")},
            steps=above(14.4, 1),
            width=12,
            height=6,
        ),
    ),
)

RED = Row(
    "Requests and errors on the left, latency on the right",
    (
        Panel(
            "Requests by handler and status",
            "Requests per second, by route and class of status. /metrics, /livez and /readyz are not counted; "
            "`none` is any path that does not exist.",
            "reqps",
            {
                "{{handler}} {{status}}": "sum by (handler, status) "
                f"(rate(http_requests_total{JOB}[$__rate_interval]))",
            },
            stacked=True,
        ),
        Panel(
            "Latency",
            "Quantiles of the time from request to answer, over all routes. p95 above 250 ms for five minutes pages "
            "(ApiSlow).",
            "s",
            {f"p{q * 100:g}": _quantile(q) for q in (0.5, 0.95, 0.99)},
            steps=above(0.25, 0.1),
        ),
        Panel(
            "Error ratio",
            "Share of requests that ended in a 5xx (ours; above 5 % for five minutes pages, ApiErrors) or a 4xx (the "
            "client's).",
            "percentunit",
            {"5xx": _of_status("5xx"), "4xx": _of_status("4xx")},
            steps=above(0.05, 0.005),
        ),
        Panel(
            "Latency, distribution",
            "Requests per second by time taken. Two bands are two kinds of requests: single flights and batches, say.",
            "s",
            {"{{le}}": f"sum by (le) (rate(http_request_duration_highr_seconds_bucket{JOB}[$__rate_interval]))"},
            kind="heatmap",
            low=None,
        ),
        Panel(
            "Rejected by reason",
            "Requests that were turned away before a model saw them: too large, too many at once (503), too slow "
            "(504), without a key, with a strange method.",
            "reqps",
            {"{{reason}}": f"sum by (reason) (rate(http_requests_rejected_total{JOB}[$__rate_interval]))"},
            stacked=True,
        ),
        Panel(
            "Latency p95 by handler",
            "The slowest twentieth of each route.",
            "s",
            {"{{handler}}": _quantile(0.95, "handler, le", "http_request_duration_seconds")},
            steps=above(0.25, 0.1),
        ),
    ),
)

SATURATION = Row(
    "Saturation",
    (
        Panel(
            "In flight",
            "Requests that are being answered, by process. From 512 on (ONTIME_MAX_IN_FLIGHT) they are turned away "
            "with 503.",
            "short",
            {"{{instance}}": f"max by (instance) (http_requests_in_progress{JOB})"},
            steps=above(512, 256),
            width=8,
        ),
        Panel(
            "Inference share of latency",
            "How much of the time of a request the model itself takes, on average; the rest is reading, checking, "
            "waiting and writing.",
            "percentunit",
            {"share": f"({_mean('model_inference_seconds')}) / ({_mean('http_request_duration_highr_seconds')})"},
            width=8,
        ),
        Panel(
            "Inference time",
            "Time from parsed request to probabilities. p95 at three times its mean of seven days is the alert "
            "InferenceSlow.",
            "s",
            {
                "p50": _quantile(0.5, metric="model_inference_seconds"),
                "p95": _quantile(0.95, metric="model_inference_seconds"),
                "limit": f"3 * avg_over_time(job:model_inference_seconds:p95_rate5m{JOB}[7d])",
            },
            width=8,
            dashed=("limit",),
        ),
        Panel(
            "Journal queue",
            "Share of the journal's queue that is full. When it is full, predictions are dropped from the journal, "
            "not from the answers.",
            "percentunit",
            {"{{instance}}": f"max by (instance) (journal_queue_depth{JOB} / journal_queue_capacity{JOB})"},
            steps=above(0.8, 0.5),
            high=1,
        ),
        Panel(
            "Journal",
            "Predictions written to the journal and dropped, per second. Any drop is the alert JournalDropping.",
            "cps",
            {
                "written": f"sum(rate(journal_written_total{JOB}[$__rate_interval]))",
                "dropped": f"sum(rate(journal_dropped_total{JOB}[$__rate_interval]))",
            },
        ),
    ),
)

BOARD = Board(
    "on-time-service",
    "On-time / Service",
    "Rate, errors and duration of the service against its objectives (99.5 % without a 5xx, 99 % within 0.1 s, over "
    "30 days). Alerts lead here; the runbook says what to do.",
    (OBJECTIVES, RED, SATURATION),
    {"job": 'label_values(http_requests_total{job!=""}, job)'},
)
