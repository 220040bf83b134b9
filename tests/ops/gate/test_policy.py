"""The gates' decisions: what is good enough passes, and every way to be worse, or unproven, is refused by name."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import yaml

from ops.gate import merge_base
from ops.gate.policy import Comparison, Evidence, decide_alerts, decide_promotion, decide_pull_request, markdown
from stages import params
from stages.base.errors import ParamsInvalid
from stages.evaluation.floors import Bound
from tests.conftest import ROOT

POLICY = params.load(ROOT / "params.yaml").gate
NOW = json.loads((ROOT / "reports/metrics.json").read_bytes())
SLICES = json.loads((ROOT / "reports/evaluation.json").read_bytes())["slices"]
NAN = float("nan")


def evidence(**changes: Any) -> Evidence:
    """Return a challenger that is a little better than its champion, with changes."""
    pairs = {"roc_auc": 0.71, "pr_auc": 0.53, "log_loss": 0.525, "brier": 0.173}
    good = {name: Comparison(v + (0.002 if "auc" in name else -0.002), v, 0.0) for name, v in pairs.items()}
    part = {"log_loss": Comparison(0.52, 0.521, -0.001), "roc_auc": Comparison(0.7, 0.7, -0.001)}
    parts = dict.fromkeys(POLICY.slices, part)
    return replace(Evidence(NOW, "", True, good, parts, (2e-4, 2e-4), (1e6, 1e6)), **changes)


def changed(name: str, **values: float) -> dict[str, Comparison]:
    """Return the good metrics with one of them changed."""
    metrics = dict(evidence().metrics)
    return metrics | {name: replace(metrics[name], **values)}


def in_united(metric: str, pair: Comparison) -> Any:
    """Return the good slices with one metric of carrier UA changed."""
    return evidence().slices | {"carrier=UA": evidence().slices["carrier=UA"] | {metric: pair}}


def without(mapping: Any, name: str) -> dict[str, Any]:
    """Return a mapping without one of its keys."""
    return {key: value for key, value in mapping.items() if key != name}


def test_equal_model_passes_the_pull_request() -> None:
    decision = decide_pull_request(NOW, NOW, SLICES, SLICES, POLICY)
    assert decision.accepted and markdown(decision).count("| pass") == len(decision.checks)


@pytest.mark.parametrize(
    ("metric", "value", "reason"),
    [
        ("roc_auc", NOW["test"]["roc_auc"] - 0.006, "roc_auc (regression) is 0.006"),
        ("log_loss", NOW["test"]["log_loss"] + 0.004, "log_loss (regression)"),
        ("roc_auc", NAN, "roc_auc (regression) is nan"),
        ("roc_auc", None, "roc_auc is nan"),
        ("roc_auc", "0.75", "roc_auc is nan"),
        ("roc_auc", math.inf, "roc_auc is inf"),
        ("roc_auc", True, "roc_auc is nan"),
        ("top_precision", NOW["test"]["top_precision"] - 0.021, "top_precision (regression)"),
        ("ece", 0.031, "ece is 0.031"),
    ],
)
def test_pull_request_is_refused_by_metric(metric: str, value: Any, reason: str) -> None:
    now = deepcopy(NOW)
    now["test"][metric] = value
    decision = decide_pull_request(now, NOW, SLICES, SLICES, POLICY)
    assert not decision.accepted and any(reason in line for line in decision.reasons)
    assert "**FAIL**" in markdown(decision)


@pytest.mark.parametrize("part", [{"rows": 0}, {}, SLICES["carrier=UA"] | {"roc_auc": 0.5}])
@pytest.mark.parametrize("base", [NOW, None])
def test_empty_or_broken_slice_is_refused(part: dict[str, Any], base: Any) -> None:
    decision = decide_pull_request(NOW, base, SLICES | {"carrier=UA": part}, SLICES, POLICY)
    assert not decision.accepted and "carrier=UA roc_auc" in decision.reasons[0]


@pytest.mark.parametrize("slices", [None, [], 3, {"carrier=UA": 1}])
def test_other_layout_of_slices_is_not_evidence(slices: object) -> None:
    assert not decide_pull_request(NOW, NOW, merge_base.groups(slices), SLICES, POLICY).accepted


@pytest.mark.parametrize(
    ("share", "accepted"), [(0.22, True), (0.25, True), (0.28, False), (None, False), (NAN, False)]
)
def test_share_of_alerts_has_a_limit(share: object, accepted: bool) -> None:
    assert decide_alerts({"alert_share": share}, {"alert_share": 0.22}, POLICY).accepted is accepted


def test_a_better_challenger_is_promoted() -> None:
    assert decide_promotion(evidence(), POLICY).accepted


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"metrics": changed("roc_auc", bound=-1.01 * POLICY.promotion.margins["roc_auc"])}, "roc_auc (not worse)"),
        ({"metrics": changed("log_loss", bound=NAN)}, "log_loss (not worse) is nan"),
        ({"metrics": without(evidence().metrics, "brier")}, "brier (not worse) is nan"),
        ({"metrics": {}}, "roc_auc (not worse) is nan"),
        ({"slices": without(evidence().slices, "carrier=UA")}, "carrier=UA log_loss (not worse) is nan"),
        ({"slices": in_united("log_loss", Comparison(0.75, 0.55, -0.19))}, "carrier=UA log_loss (not worse) is -0.19"),
        ({"slices": in_united("roc_auc", Comparison(0.5, 0.7, -0.21))}, "carrier=UA roc_auc (not worse) is -0.21"),
        ({"latency": (4e-4, 2e-4)}, "latency ratio is 2"),
        ({"latency": (NAN, 2e-4)}, "latency ratio is nan"),
        ({"latency": (2e-4, 0.0)}, "latency ratio is nan"),
        ({"size": (3e6, 1e6)}, "size ratio is 3"),
        ({"challenger": NOW | {"test": NOW["test"] | {"roc_auc": 0.78}}}, "leak ceiling"),
        ({"challenger": {"test": NOW["test"]}}, "brier skill against constant is nan"),
        ({"conditions": (Bound.at_least("days from the training", -3, 1),)}, "days from the training is -3"),
        ({"unusable": "has other features: dep_delay"}, "dep_delay"),
    ],
)
def test_promotion_is_refused_by_check(changes: dict[str, Any], reason: str) -> None:
    decision = decide_promotion(evidence(**changes), POLICY, allow_equal=True)
    assert not decision.accepted and any(reason in line for line in decision.reasons)


def test_tie_is_promoted_if_allowed() -> None:
    equal = {name: Comparison(pair.champion, pair.champion, 0.0) for name, pair in evidence().metrics.items()}
    refused = decide_promotion(evidence(metrics=equal), POLICY)
    assert refused.reasons == ["metrics better than the champion's is 0, must be ≥ 1"]
    assert decide_promotion(evidence(metrics=equal), POLICY, allow_equal=True).accepted


def test_without_a_champion_the_floors_decide() -> None:
    assert decide_promotion(Evidence(NOW), POLICY).accepted
    assert not decide_promotion(Evidence({}), POLICY).accepted


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("promotion", "margins", "roc_auc"), -0.01),
        (("promotion", "margins", "roc_auc"), NAN),
        (("promotion", "margins", "accuracy"), 0.01),
        (("promotion", "margins"), {}),
        (("promotion", "slice_margins", "log_loss"), math.inf),
        (("promotion", "confidence"), 1.0),
        (("promotion", "max_latency_ratio"), 0.0),
        (("pull_request", "max_regression", "roc_auc"), -math.inf),
        (("pull_request", "slice_floors"), {}),
        (("slices",), []),
        (("floors", "f1"), 0.5),
    ],
)
def test_policy_that_could_not_refuse_is_refused(keys: tuple[str, ...], value: Any, tmp_path: Any) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    section = content["gate"]
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = value
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ParamsInvalid, match=r"gate\." + keys[0]):
        params.load(tmp_path / "params.yaml")
