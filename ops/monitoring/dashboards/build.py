"""`on-time monitor dashboards`: Grafana's JSON, made by the Grafana Foundation SDK from the YAML files beside this."""

import json
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, dashboard, heatmap, prometheus, stat, statetimeline
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from ops.monitoring.dashboards.board import Board, Panel, load

OUT_DIR = Path("ops/monitoring/config/grafana/dashboards")
DATASOURCE = models.DataSourceRef("prometheus", "${datasource}")
LAST = common.ReduceDataOptions().calcs(["lastNotNull"])
TAG = "on-time"
MLFLOW = "http://localhost:5000"

DEPLOYMENTS = (
    'model_loaded_timestamp_seconds{job="api"} * on (job, instance) group_left (version) model_info{job="api"} * 1000'
)
FIRING = 'max by (alertname, severity, instance, name, feature, slo) (ALERTS{alertstate="firing",severity!="none"})'
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
ANNOTATION = {"datasource": SOURCE, "enable": True, "hide": False, "step": "60s"}
ANNOTATIONS = [  # the SDK has no builder for the fields of Prometheus
    ANNOTATION
    | {
        "name": "Deployments",
        "iconColor": "blue",
        "expr": DEPLOYMENTS,
        "useValueForTime": True,
        "titleFormat": "Version {{version}} loaded",
        "textFormat": "{{instance}}",
        "tagKeys": "version",
    },
    ANNOTATION
    | {
        "name": "Firing alerts",
        "iconColor": "red",
        "expr": FIRING,
        "titleFormat": "{{alertname}}",
        "textFormat": "{{severity}} {{instance}} {{name}} {{feature}} {{slo}}",
        "tagKeys": "alertname,severity",
    },
]


def to_json(board: Board) -> str:
    """Return the dashboard as text that is the same for the same board."""
    content = json.loads(JSONEncoder().encode(_dashboard(board).build()))
    for number, panel in enumerate(content["panels"], start=1):
        panel["id"] = number
    _close_gaps([panel["gridPos"] for panel in content["panels"]])
    content["annotations"] = {"list": ANNOTATIONS}
    return json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def _close_gaps(places: list[dict[str, int]]) -> None:
    """Move each panel up as far as there is room, as Grafana does when it opens a board."""
    for i, place in enumerate(places):
        x, end = place["x"], place["x"] + place["w"]
        above = [p["y"] + p["h"] for p in places[:i] if p["x"] < end and x < p["x"] + p["w"]]
        place["y"] = max(above, default=0)


def _dashboard(board: Board) -> dashboard.Dashboard:
    boards = dashboard.DashboardLink("Boards").type(models.DashboardLinkType.DASHBOARDS).tags([TAG])
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
        .link(boards.as_dropdown(True).keep_time(True))
        .link(dashboard.DashboardLink("MLflow").type(models.DashboardLinkType.LINK).url(MLFLOW).target_blank(True))
    )
    for name, query in board.variables.items():
        made.with_variable(
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
    for row in board.rows:
        made.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            made.with_panel(_panel(panel))
    return made


def _panel(panel: Panel) -> Any:
    steps = [models.Threshold(value if i else None, name) for i, (name, value) in enumerate(panel.steps.items())]
    made = _STYLES[panel.kind](panel)
    made = made.title(panel.title).description(panel.description).datasource(DATASOURCE)
    made = made.span(panel.width).height(panel.height).unit(panel.unit)
    made = made.thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
    if panel.low is not None:
        made = made.min(panel.low)
    if panel.high is not None:
        made = made.max(panel.high)
    formats = {"heatmap": PromQueryFormat.HEATMAP, "table": PromQueryFormat.TABLE}
    for i, (legend, expr) in enumerate(panel.queries.items()):
        query = prometheus.Dataquery().expr(expr).legend_format(legend).ref_id(chr(ord("A") + i))
        if panel.kind in formats:
            query = query.format(formats[panel.kind])
        made = made.with_target(query.instant() if panel.kind in ("table", "bargauge") else query.range())
    if panel.link:
        made = made.data_links([dashboard.DashboardLink(panel.link.title).url(panel.link.url).target_blank(True)])
    return made


def _timeseries(panel: Panel) -> Any:
    style = kinds.GraphThresholdsStyleMode.DASHED if len(panel.steps) > 1 else kinds.GraphThresholdsStyleMode.OFF
    place = kinds.LegendPlacement.RIGHT if panel.width > 12 else kinds.LegendPlacement.BOTTOM
    legend = common.VizLegendOptions().display_mode(kinds.LegendDisplayMode.TABLE).placement(place).show_legend(True)
    made = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(25 if panel.stacked else 5)
        .show_points(kinds.VisibilityMode.NEVER)
        .legend(legend.calcs(["lastNotNull", "max"]))
        .tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING))
        .thresholds_style(common.GraphThresholdsStyleConfig().mode(style))
    )
    if panel.stacked:
        made = made.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL).group("A"))
    dash = models.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [6, 6]})
    red = models.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": "red"})
    for pattern in panel.dashed:
        made = made.override_by_regexp(pattern, [dash, red])
    return made


def _stat(panel: Panel) -> Any:
    mode = kinds.BigValueTextMode.AUTO if len(panel.queries) == 1 else kinds.BigValueTextMode.VALUE_AND_NAME
    made = stat.Panel().reduce_options(LAST).color_mode(kinds.BigValueColorMode.VALUE)
    return made.graph_mode(kinds.BigValueGraphMode.AREA).text_mode(mode)


def _bargauge(_: Panel) -> Any:
    made = bargauge.Panel().reduce_options(LAST).display_mode(kinds.BarGaugeDisplayMode.BASIC)
    return made.orientation(kinds.VizOrientation.HORIZONTAL)


def _heatmap(panel: Panel) -> Any:
    return heatmap.Panel().y_axis(heatmap.YAxisConfig().unit(panel.unit)).show_legend()


def _table(panel: Panel) -> Any:
    made = tables.Panel()
    for name, options in {
        "labelsToFields": {},
        "merge": {},
        "filterFieldsByName": {"include": {"names": list(panel.columns)}},
        "organize": {"indexByName": {name: i for i, name in enumerate(panel.columns)}},
    }.items():
        made = made.with_transformation(models.DataTransformerConfig(id_val=name, options=options))
    return made


def _timeline(_: Panel) -> Any:
    legend = common.VizLegendOptions().show_legend(False).placement(kinds.LegendPlacement.BOTTOM)
    made = statetimeline.Panel().merge_values(True).show_value(kinds.VisibilityMode.NEVER).legend(legend)
    return made.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))


_STYLES = {
    "timeseries": _timeseries,
    "stat": _stat,
    "bargauge": _bargauge,
    "heatmap": _heatmap,
    "table": _table,
    "timeline": _timeline,
}


def write() -> None:
    """Write the files, and remove those of boards that are gone."""
    wanted = {OUT_DIR / f"{board.uid}.json": to_json(board) for board in load()}
    for stale in set(OUT_DIR.glob("*.json")) - set(wanted):
        stale.unlink()
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")
        print(path)
