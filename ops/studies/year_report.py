"""The table and the picture of a year: three models, month by month."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from ops.gate.policy import table
from stages.evaluation import metrics
from stages.evaluation.metrics import MetricSettings, Scored
from stages.features.feature_files import DAY, TARGET
from stages.problem_kit.params import EvaluateParams

TABLE_FILE, PICTURE_FILE, SCORES = "year.md", "year.png", "scores"
MODELS = {"first": "first model", "loop": "the loop's", "oracle": "retrained each month"}
METRICS = {"log_loss": "log loss", "roc_auc": "ROC AUC"}
LINES = {"first": ("#c0c0c0", 4.0), "loop": ("#0969da", 1.5), "oracle": ("#2da44e", 1.5)}
"""Colour and width of each model's line; that of the first one is still seen below another that is the same."""
SHOWN = 2
"""Reasons in a cell."""

Month = dict[str, Any]
"""What is recorded of a month."""


def measured(scores: pd.DataFrame, name: str, p: EvaluateParams) -> dict[str, float]:
    """Return log loss and ROC AUC of a model's scores."""
    found = metrics.measure(_scored(scores, name), MetricSettings(p.ece_bins, p.riskiest_share))
    return {metric: found[metric] for metric in METRICS}


def _scored(scores: pd.DataFrame, name: str) -> Scored:
    return Scored(scores[TARGET].to_numpy(), scores[name].to_numpy(), scores[DAY].to_numpy())


def write_year(ledger: list[Month], folder: Path, p: EvaluateParams) -> str:
    """Write table and picture to the folder of a year; return the table."""
    known = [pd.read_parquet(folder / SCORES / f"{one['month']}.parquet") for one in ledger if "models" in one]
    text = as_table(ledger, pd.concat(known, ignore_index=True), p)
    (folder / TABLE_FILE).write_text(text + "\n", encoding="utf-8")
    draw([one for one in ledger if "models" in one], folder / PICTURE_FILE)
    return text


def as_table(ledger: list[Month], scores: pd.DataFrame, p: EvaluateParams) -> str:
    """Return the months as a Markdown table, with the whole, and what loop and oracle gain on the first model."""
    rows = []
    for one in ledger:
        decision = f"{one['action']}: {_short(one['reasons'])}"
        outcome = one.get("outcome", "")
        if "why" in one:
            outcome += f": {_short(one['why'])}"
        rows.append([one["month"], f"{one.get('rows', 0):,}", *_cells(one.get("models", {})), decision, outcome])
    whole = {name: measured(scores, name, p) for name in MODELS}
    rows.append(["all", f"{len(scores):,}", *_cells(whole), "", ""])
    head = [f"{metric}, {label}" for metric in METRICS.values() for label in MODELS.values()]
    lines = [table(["month", "rows", *head, "decision", "outcome"], rows), ""]
    counts = metrics.resample_groups(scores[DAY].to_numpy(), p.bootstrap, p.seed)
    losses = {name: metrics.group_means(_scored(scores, name), counts)["log_loss"] for name in MODELS}
    for name in ("loop", "oracle"):
        low, high = metrics.interval(losses[name] - losses["first"])
        gain = whole[name]["log_loss"] - whole["first"]["log_loss"]
        lines.append(f"Log loss, {MODELS[name]} − first model: {gain:+.4f} (95 % interval {low:+.4f} to {high:+.4f}).")
    return "\n".join(lines)


def _cells(models: dict[str, dict[str, float]]) -> list[str]:
    return [f"{models[name][metric]:.4f}" if models else "–" for metric in METRICS for name in MODELS]


def _short(reasons: list[str]) -> str:
    more = f"; {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
    return "; ".join(reasons[:SHOWN]) + more


def draw(ledger: list[Month], path: Path) -> None:
    """Draw log loss and ROC AUC month by month, with a line after each month in which a model was promoted."""
    from matplotlib.figure import Figure  # pylint: disable=import-outside-toplevel # most commands draw nothing

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    names = [one["month"] for one in ledger]
    ends = {"promoted": "#0969da", "refused by the gate": "#c0392b", "refused at promotion": "#c0392b"}
    for axis, (metric, title) in zip(figure.subplots(1, len(METRICS)), METRICS.items(), strict=True):
        for name, label in MODELS.items():
            values = [one["models"][name][metric] for one in ledger]
            colour, width = LINES[name]
            axis.plot(range(len(names)), values, marker="o", markersize=4, color=colour, linewidth=width, label=label)
        for i, one in enumerate(ledger):
            if one.get("outcome") in ends:
                axis.axvline(i + 0.5, color=ends[one["outcome"]], linewidth=0.8, linestyle=":")
        axis.set_title(f"{title} (dotted: blue promoted, red refused)", fontsize=10)
        axis.set_xticks(range(len(names)), names, rotation=45, fontsize=8)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=100)
