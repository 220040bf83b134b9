"""*Monitoring itself*: whether what the other boards show, and what alerts, can be believed."""

from __future__ import annotations

from ops.monitoring.dashboards.panel import Board, Panel, Row, above, below

JOB = '{job=~"$job"}'
PROMETHEUS, ALERTMANAGER, RECEIVER = '{job="prometheus"}', '{job="alertmanager"}', '{job="receiver"}'
GROUPS = (  # without the path of their file
    f"label_replace(prometheus_rule_group_last_duration_seconds{PROMETHEUS}, "
    '"rule_group", "$1", "rule_group", ".*;(.*)")'
)

ALERTS = Row(
    "Alerts",
    (
        Panel(
            "Firing now",
            "Every alert that fires, the Watchdog left out.",
            "none",
            {
                "": 'max by (alertname, severity, job, instance, name, feature, slo) (ALERTS{alertstate="firing",'
                'severity!="none"}) or on () label_replace(vector(0), "alertname", "none", "", "")',
            },
            kind="table",
            width=16,
            height=7,
            columns=("alertname", "severity", "job", "instance", "name", "feature", "slo"),
        ),
        Panel(
            "Watchdog heard",
            "Time since the receiver last heard the alert that always fires. Silence means that no alert arrives; "
            "from three minutes on the receiver itself raises the alarm.",
            "s",
            {"": f"time() - max(receiver_watchdog_timestamp_seconds{RECEIVER})"},
            kind="stat",
            steps=above(180, 120),
            width=4,
            height=7,
        ),
        Panel(
            "Alertmanagers known",
            "Prometheus sends alerts to this many. Below 1: AlertmanagerMissing.",
            "short",
            {"": f"min(prometheus_notifications_alertmanagers_discovered{PROMETHEUS})"},
            kind="stat",
            steps=below(1),
            width=4,
            height=7,
        ),
        Panel(
            "Alerts by state",
            "How many alerts are pending and firing.",
            "short",
            {"{{alertstate}}": "count by (alertstate) (ALERTS)"},
        ),
        Panel(
            "Notifications",
            "Notifications per minute that Alertmanager has sent, and those that failed. Failures for five minutes: "
            "NotificationsFailing.",
            "short",
            {
                "{{integration}} sent": "60 * sum by (integration) "
                f"(rate(alertmanager_notifications_total{ALERTMANAGER}[$__rate_interval])) > 0",
                "failed": f"60 * sum(rate(alertmanager_notifications_failed_total{ALERTMANAGER}[$__rate_interval]))",
            },
        ),
    ),
)

TARGETS = Row(
    "Targets",
    (
        Panel(
            "Answering",
            "Whether each target answers Prometheus. Five minutes without an answer: TargetDown (the service: ApiDown, "
            "after one).",
            "bool_on_off",
            {"{{job}} {{instance}}": f"min by (job, instance) (up{JOB})"},
            kind="timeline",
            steps=below(1),
            height=9,
            high=1,
        ),
        Panel(
            "Time of a scrape",
            "How long each target takes to answer. At 10 s, Prometheus gives up.",
            "s",
            {"{{job}}": f"max by (job) (scrape_duration_seconds{JOB})"},
            steps=above(10, 5),
            height=9,
        ),
        Panel(
            "Series by target",
            "Samples in each scrape. The service is refused beyond 5,000: a label has then grown without bound.",
            "short",
            {"{{job}}": f"max by (job) (scrape_samples_post_metric_relabeling{JOB})"},
            steps=above(5000, 2500),
        ),
        Panel(
            "Series in Prometheus",
            "Series in memory; a steady climb is a label without bound.",
            "short",
            {"series": f"sum(prometheus_tsdb_head_series{PROMETHEUS})"},
        ),
    ),
)

RULES = Row(
    "Rules",
    (
        Panel(
            "Time of a rule group",
            "How long the slowest evaluation takes; it has to stay below the interval of 15 s.",
            "s",
            {"{{rule_group}}": f"max by (rule_group) ({GROUPS})"},
            steps=above(15, 5),
        ),
        Panel(
            "Failures",
            "Evaluations of rules and notifications that failed, per minute. Any for five minutes: RuleFailing.",
            "short",
            {
                "rules": f"60 * sum(rate(prometheus_rule_evaluation_failures_total{PROMETHEUS}[$__rate_interval]))",
                "notifications": f"60 * sum(rate(prometheus_notifications_errors_total{PROMETHEUS}[$__rate_interval]))",
                "dropped": f"60 * sum(rate(prometheus_notifications_dropped_total{PROMETHEUS}[$__rate_interval]))",
            },
            steps=above(1),
        ),
        Panel(
            "Configuration",
            "Whether the last reload of Prometheus and of Alertmanager was accepted. 0: ConfigurationRefused.",
            "bool_yes_no",
            {
                "Prometheus": f"min(prometheus_config_last_reload_successful{PROMETHEUS})",
                "Alertmanager": f"min(alertmanager_config_last_reload_successful{ALERTMANAGER})",
            },
            kind="stat",
            steps=below(1),
            high=1,
        ),
        Panel(
            "Retraining requests",
            "What the receiver did with alerts that ask for retraining, in the last day.",
            "short",
            {"{{result}}": f"sum by (result) (increase(receiver_retrain_total{RECEIVER}[1d]))"},
            kind="bargauge",
        ),
    ),
)

BOARD = Board(
    "on-time-monitoring",
    "On-time / Monitoring itself",
    "Whether targets are scraped, rules evaluated and alerts delivered. When this board is red, the green of the "
    "others means nothing.",
    (ALERTS, TARGETS, RULES),
    {"job": "label_values(up, job)"},
)
