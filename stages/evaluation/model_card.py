"""The model card."""

from __future__ import annotations

from typing import Any

from tabulate import tabulate

from app.interface import NAME, ROWS_NOUN
from stages.evaluation.metrics import HIGHER_IS_BETTER
from stages.interface import CARD

METRIC_NAMES = {
    "roc_auc": "ROC AUC",
    "pr_auc": "PR AUC",
    "log_loss": "log loss",
    "brier": "Brier score",
    "ece": "ECE",
    "top_precision": "precision in the riskiest part",
}


def _table(rows: list[dict[str, str]]) -> str:
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def _headline(facts: dict[str, Any]) -> str:
    rows = []
    for name, label in METRIC_NAMES.items():
        low, high = facts["intervals"][name]
        rows.append(
            {
                "metric": label,
                "model": f"**{facts['test'][name]:.4f}**",
                "95 % interval": f"{low:.4f} to {high:.4f}",
                "logistic regression": f"{facts['baselines']['logistic'][name]:.4f}",
                "constant": f"{facts['baselines']['constant'][name]:.4f}",
                "better": "higher" if HIGHER_IS_BETTER[name] else "lower",
            }
        )
    return _table(rows)


def _by(facts: dict[str, dict[str, Any]], label: str) -> str:
    rows = [
        {
            label: name,
            ROWS_NOUN: f"{v['rows']:,}",
            "rate": f"{v['rate']:.3f}",
            "mean probability": f"{v['mean_probability']:.3f}",
            **{METRIC_NAMES[metric]: f"{v[metric]:.3f}" for metric in ("roc_auc", "pr_auc", "log_loss", "ece")},
        }
        for name, v in facts.items()
        if "rate" in v
    ]
    return _table(rows)


def _period(facts: dict[str, Any], name: str) -> str:
    rows = facts["rows"][name]
    return f"{rows['rows']:,} {ROWS_NOUN} from {rows['first']} to {rows['last']} ({facts['rate'][name]:.1%} positive)"


def model_card(facts: dict[str, Any]) -> str:
    """Return the model card as Markdown; every number is taken from the evaluation."""
    threshold, small = facts["threshold"], [name for name, v in facts["slices"].items() if "rate" not in v]
    return f"""# Model card: {NAME}

Written by `dvc repro evaluate` from `reports/evaluation.json`; bundle `{facts["bundle_digest"][:16]}`.

**Prediction.** {CARD["predicts"]} The model is a gradient-boosted tree model (LightGBM).

**Data.** {CARD["data"]} Training: {_period(facts, "train")}. Test: {_period(facts, "test")}.

## On the test period

{_headline(facts)}

Intervals: bootstrap over groups of {ROWS_NOUN}. {CARD["intervals"]} An alert is a probability of {threshold["value"]:.3f} or more:
{threshold["alert_share"]:.1%} of the {ROWS_NOUN} have one, {threshold["precision"]:.1%} of the alerts are right, and {threshold["recall"]:.1%} of the positives get one.

## By month

Each month of the training period is predicted by a model of the months before it, the test period by the final model.

{_by(facts["backtest"], "month")}

## With damaged inputs

{CARD["scenarios"]}

{_by(facts["scenarios"], "scenario")}

## By slice

{_by(facts["slices"], "slice")}

Too few {ROWS_NOUN} to measure: {", ".join(small) or "none"}.

## Limits

{CARD["limits"]}
"""
