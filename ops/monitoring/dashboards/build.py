"""From a board as data to Grafana's JSON, by the Grafana Foundation SDK."""

from __future__ import annotations

import json
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, dashboard, heatmap, prometheus, stat, statetimeline
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from ops.monitoring.dashboards.panel import Board, Panel

DATASOURCE = models.DataSourceRef("prometheus", "${datasource}")
TAG = "on-time"
MLFLOW = "http://localhost:5000"

DEPLOYMENTS = (
    'model_loaded_timestamp_seconds{job="api"} * on (job, instance) group_left (version) model_info{job="api"} * 1000'
)
FIRING = 'max by (alertname, severity, instance, name, feature, slo) (ALERTS{alertstate="firing",severity!="none"})'


def to_json(board: Board) -> str:
    """Return the dashboard as text that is the same for the same board."""
    built = _dashboard(board).build()
    content = json.loads(JSONEncoder(sort_keys=True, indent=1).encode(built))
    for number, panel in enumerate(content["panels"], start=1):
        panel["id"] = number
    _close_gaps([panel["gridPos"] for panel in content["panels"]])
    content["annotations"] = {"list": _annotations()}
    return json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def _close_gaps(places: list[dict[str, int]]) -> None:
    """Move each panel up as far as there is room, as Grafana does when it opens a board."""
    for i, place in enumerate(places):
        above = [
            p["y"] + p["h"] for p in places[:i] if p["x"] < place["x"] + place["w"] and place["x"] < p["x"] + p["w"]
        ]
        place["y"] = max(above, default=0)


def _dashboard(board: Board) -> dashboard.Dashboard:
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags([TAG])
        .readonly()
        .time("now-6h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .link(
            dashboard.DashboardLink("Boards")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .keep_time(True)
        )
        .link(dashboard.DashboardLink("MLflow").type(models.DashboardLinkType.LINK).url(MLFLOW).target_blank(True))
    )
    for name, query in board.variables.items():
        made.with_variable(_variable(name, query))
    for row in board.rows:
        made.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            made.with_panel(_panel(panel))
    return made


def _variable(name: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(name.capitalize())
        .datasource(DATASOURCE)
        .query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def _annotations() -> list[dict[str, Any]]:
    """Return the marks of deployments and of alerts; the SDK has no builder for Prometheus's own fields."""
    common_fields = {"datasource": {"type": "prometheus", "uid": "${datasource}"}, "enable": True, "hide": False}
    return [
        common_fields
        | {
            "name": "Deployments",
            "iconColor": "blue",
            "expr": DEPLOYMENTS,
            "step": "60s",
            "useValueForTime": True,
            "titleFormat": "Version {{version}} loaded",
            "textFormat": "{{instance}}",
            "tagKeys": "version",
        },
        common_fields
        | {
            "name": "Firing alerts",
            "iconColor": "red",
            "expr": FIRING,
            "step": "60s",
            "titleFormat": "{{alertname}}",
            "textFormat": "{{severity}} {{instance}} {{name}} {{feature}} {{slo}}",
            "tagKeys": "alertname,severity",
        },
    ]


def _panel(panel: Panel) -> Any:
    made = _STYLES[panel.kind](panel)
    made = made.title(panel.title).description(panel.description).datasource(DATASOURCE)
    made = made.span(panel.width).height(panel.height).unit(panel.unit).thresholds(_thresholds(panel))
    if panel.low is not None:
        made = made.min(panel.low)
    if panel.high is not None:
        made = made.max(panel.high)
    for i, (legend, expr) in enumerate(panel.queries.items()):
        query = prometheus.Dataquery().expr(expr).legend_format(legend).ref_id(chr(ord("A") + i))
        if panel.kind == "heatmap":
            query = query.format(PromQueryFormat.HEATMAP)
        if panel.kind == "table":
            query = query.format(PromQueryFormat.TABLE)
        made = made.with_target(query.instant() if panel.kind in ("table", "bargauge") else query.range())
    if panel.link:
        link = dashboard.DashboardLink(panel.link[0]).url(panel.link[1]).target_blank(True)
        made = made.data_links([link])
    return made


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    steps = [models.Threshold(value if i else None, colour) for i, (value, colour) in enumerate(panel.steps)]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _timeseries(panel: Panel) -> Any:
    lines = len(panel.steps) > 1
    style = kinds.GraphThresholdsStyleMode.DASHED if lines else kinds.GraphThresholdsStyleMode.OFF
    made = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(25 if panel.stacked else 5)
        .show_points(kinds.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(kinds.LegendDisplayMode.TABLE)
            .placement(kinds.LegendPlacement.RIGHT if panel.width > 12 else kinds.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING))
        .thresholds_style(common.GraphThresholdsStyleConfig().mode(style))
    )
    if panel.stacked:
        made = made.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL).group("A"))
    dash = {"fill": "dash", "dash": [6, 6]}
    for pattern in panel.dashed:
        made = made.override_by_regexp(
            pattern,
            [
                models.DynamicConfigValue("custom.lineStyle", dash),
                models.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": "red"}),
            ],
        )
    return made


def _stat(panel: Panel) -> Any:
    return (
        stat.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_mode(kinds.BigValueColorMode.VALUE)
        .graph_mode(kinds.BigValueGraphMode.AREA)
        .text_mode(kinds.BigValueTextMode.AUTO if len(panel.queries) == 1 else kinds.BigValueTextMode.VALUE_AND_NAME)
    )


def _bargauge(_: Panel) -> Any:
    return (
        bargauge.Panel()
        .orientation(kinds.VizOrientation.HORIZONTAL)
        .display_mode(kinds.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )


def _heatmap(panel: Panel) -> Any:
    return heatmap.Panel().y_axis(heatmap.YAxisConfig().unit(panel.unit)).show_legend()


def _table(panel: Panel) -> Any:
    names = {name: i for i, name in enumerate(panel.columns)}
    keep = {"include": {"names": list(panel.columns)}}
    return (
        tables.Panel()
        .with_transformation(models.DataTransformerConfig(id_val="labelsToFields", options={}))
        .with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(models.DataTransformerConfig(id_val="filterFieldsByName", options=keep))
        .with_transformation(models.DataTransformerConfig(id_val="organize", options={"indexByName": names}))
    )


def _timeline(_: Panel) -> Any:
    return (
        statetimeline.Panel()
        .merge_values(True)
        .show_value(kinds.VisibilityMode.NEVER)
        .legend(common.VizLegendOptions().show_legend(False).placement(kinds.LegendPlacement.BOTTOM))
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
    )


_STYLES = {
    "timeseries": _timeseries,
    "stat": _stat,
    "bargauge": _bargauge,
    "heatmap": _heatmap,
    "table": _table,
    "timeline": _timeline,
}
