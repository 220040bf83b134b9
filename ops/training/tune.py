"""`on-time model tune`: search the parameters of `train` on the rolling-origin months; the test months are not read."""

import difflib
import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from statistics import NormalDist
from typing import Any

import mlflow
import numpy as np
import optuna
from mlflow.exceptions import MlflowException
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from ruamel.yaml import YAML

from app.interface import Lookups
from ops.gate.evidence import Resampled, compare_models, resampled
from ops.gate.policy import advantage, decide_not_worse, markdown
from stages import params
from stages.base import git, progress
from stages.base.paths import replace_text
from stages.evaluation import scores
from stages.evaluation.floors import Bound, Decision
from stages.evaluation.metrics import MetricSettings, pointwise
from stages.features import feature_files
from stages.features.feature_files import LOOKUPS_FILE
from stages.params import Params
from stages.problem_kit.params import PARAMS_FILE, TrainParams
from stages.tracking import mlflow_runs
from stages.training.backtest import folds, rolling_origin
from stages.training.boosting import Source

STORAGE = Path("build/tune.db")
MOST_LEAVES = "most leaves"
CONFIRMING_SEEDS = 3
DOUBT = 0.05  # probability of a false improvement over all trials together

SPACE: dict[str, BaseDistribution] = {
    "rounds": IntDistribution(100, 500, step=20),
    "learning_rate": FloatDistribution(0.02, 0.1, log=True),
    "num_leaves": IntDistribution(7, 127, log=True),
    "min_data_in_leaf": IntDistribution(50, 1600, log=True),
    "feature_fraction": FloatDistribution(0.3, 1.0),
    "bagging_fraction": FloatDistribution(0.4, 1.0),
    "lambda_l2": FloatDistribution(0.1, 100.0, log=True),
    "cat_smooth": FloatDistribution(5.0, 200.0, log=True),
    "cat_l2": FloatDistribution(1.0, 100.0, log=True),
    "min_data_per_group": IntDistribution(50, 1000, log=True),
}


def with_values(p: TrainParams, values: dict[str, Any]) -> TrainParams:
    """Return the parameters with a trial's values, rounded to four significant digits."""
    short = {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in values.items()}
    return TrainParams.model_validate(p.model_dump() | short)


def present(p: TrainParams) -> dict[str, Any]:
    """Return the values of the searched parameters."""
    return p.model_dump(include=set(SPACE))


def leaves(values: dict[str, Any]) -> int:
    """Return the maximum number of leaves of a model, which determines its size and latency."""
    return int(values["rounds"] * values["num_leaves"])


def open_study(p: TrainParams, size_ratio: float, storage: Path = STORAGE) -> optuna.Study:
    """Return the study of these training rows and of the parameters that are not searched, as far as it has come.

    A trial that was interrupted is queued again; the parameters in params.yaml are a trial too. One whose model has
    more than `size_ratio` times as many leaves cannot be the best: the promotion gate would refuse it.
    """
    most = size_ratio * leaves(present(p))
    inputs = {"rows": feature_files.digest("train"), "space": str(SPACE), "leaves": most}
    fixed = p.model_dump(exclude=set(SPACE)) | inputs
    name = hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:12]
    storage.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(storage=f"sqlite:///{storage}", study_name=name, load_if_exists=True)
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
    study.sampler = optuna.samplers.TPESampler(seed=p.seed + len(study.trials), multivariate=True)
    study.set_user_attr(MOST_LEAVES, most)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)
    study.enqueue_trial(present(p), skip_if_exists=True)
    return study


def ask(study: optuna.Study) -> optuna.Trial:
    """Return the next trial, marked as not allowed if its model is too large."""
    trial = study.ask(SPACE)
    trial.set_constraint(MOST_LEAVES, leaves(trial.params) - study.user_attrs[MOST_LEAVES])
    return trial


def search(study: optuna.Study, train: Source, p: TrainParams, trials: int) -> None:
    """Run trials up to this total, including pruned ones; each is a run nested in the active one."""
    ended = len(_ended(study))
    for done in progress.track(range(ended, trials), "trials", lines=False):
        trial = ask(study)
        with mlflow.start_run(run_name=f"trial {trial.number}", nested=True):
            tried = with_values(p, trial.params)
            mlflow.log_params(present(tried))
            mean = _mean_loss(trial, train, tried)
            mlflow.set_tags({mlflow_runs.STAGE_TAG: "trial", "state": "pruned" if mean is None else "complete"})
        study.tell(trial, mean, state=TrialState.PRUNED if mean is None else TrialState.COMPLETE)
        outcome = "pruned" if mean is None else f"log loss {mean:.5f}"
        best = f"best: trial {study.best_trial.number} with {study.best_value:.5f}"
        print(f"trial {done + 1} of {trials}: {outcome}, {best}", file=sys.stderr, flush=True)


def _ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))


def _mean_loss(trial: optuna.Trial, train: Source, p: TrainParams) -> float | None:
    """Return the mean log loss of the folds; None once it is worse than the median of the earlier trials."""
    losses: list[float] = []
    months = folds(train, p)
    for month in months:
        rolling, _ = rolling_origin(train, p, [month])
        losses.append(float(pointwise(scores.score(rolling, rolling["probability"]))["log_loss"].mean()))
        mean = float(np.mean(losses))
        mlflow.log_metrics({"fold_log_loss": losses[-1], "mean_log_loss": mean}, step=month % 12 + 1)
        trial.report(mean, len(losses))
        if len(losses) < len(months) and trial.should_prune():
            return None
    return mean


@contextmanager
def study_run(study: optuna.Study) -> Iterator[None]:
    """Continue the study's MLflow run, or start one if MLflow has none."""
    client, key = mlflow_runs.connect(), f"mlflow.run {mlflow_runs.tracking_uri()}"
    run_id = study.user_attrs.get(key)
    try:
        known = run_id if run_id and client.get_run(run_id) else None
    except MlflowException:
        known = None
    with mlflow.start_run(run_id=known, run_name=None if known else "tune") as parent:
        study.set_user_attr(key, parent.info.run_id)
        mlflow.set_tags({mlflow_runs.STAGE_TAG: "tune", "git.commit": git.commit(), "study": study.study_name})
        yield


def measure_parameters(train: Source, lookups: Lookups, p: Params, values: TrainParams) -> Resampled:
    """Measure parameters with the metrics of a promotion, on all folds together, as the mean over other seeds."""
    settings = MetricSettings(p.evaluate.ece_bins, p.evaluate.riskiest_share)
    measured = []
    for seed in range(values.seed + 1, values.seed + 1 + CONFIRMING_SEEDS):
        rolling, _ = rolling_origin(train, values.model_copy(update={"seed": seed}))
        found = scores.slices(feature_files.read("train").iloc[rolling["row"]], lookups)
        slices = {name: found[name] for name in p.gate.slices}
        measured.append(resampled(scores.score(rolling, rolling["probability"]), slices, p.gate.promotion, settings))
    return Resampled(
        {name: np.mean([one.metrics[name] for one in measured], axis=0) for name in measured[0].metrics},
        {
            name: {metric: np.mean([one.slices[name][metric] for one in measured], axis=0) for metric in part}
            for name, part in measured[0].slices.items()
        },
    )


def decide_parameters(challenger: Resampled, champion: Resampled, p: Params, trials: int) -> Decision:
    """Decide whether the best of this many trials is significantly better than the current parameters.

    The gain in log loss has to exceed what the best of `trials` worthless ones would show by chance, and nothing that
    the promotion gate guards may be worse. A slice that has too few rows in these months is not watched.
    """
    whole, parts, replicates = compare_models(challenger, champion, p.gate.promotion)
    policy = p.gate.model_copy(update={"slices": list(parts)})
    pair = whole["log_loss"]
    noise = NormalDist().inv_cdf(1 - DOUBT / trials) * float(np.std(replicates.metrics["log_loss"]))
    gain = advantage("log_loss", pair.challenger, pair.champion)
    check = Bound.at_least("log_loss", gain, noise, pair.challenger, pair.champion, rule="gain")
    return Decision((check,)) + decide_not_worse(whole, parts, policy)


def edited(text: str, values: dict[str, Any]) -> str:
    """Return params.yaml with other values under `train`; comments and quotes stay."""
    yaml, written = YAML(), StringIO()
    yaml.preserve_quotes = True
    content = yaml.load(text)
    content["train"].update(values)
    yaml.dump(content, written)
    return written.getvalue()


def propose(study: optuna.Study, train: Source, p: Params) -> tuple[Decision, dict[str, Any]]:
    """Return the decision on the study's best parameters, and the parameters that differ from the present ones."""
    best = with_values(p.train, study.best_params)
    changes = {name: value for name, value in present(best).items() if value != present(p.train)[name]}
    if not changes:
        return Decision((Bound.at_least("trials better than the present parameters", 0, 1),)), {}
    lookups = Lookups.from_json(json.loads(LOOKUPS_FILE.read_text(encoding="utf-8")))
    found, now = (measure_parameters(train, lookups, p, values) for values in (best, p.train))
    decision = decide_parameters(found, now, p, len(_ended(study)))
    mlflow.log_metrics({"log_loss_gain": decision.checks[0].value, "log_loss_gain_needed": decision.checks[0].bound})
    mlflow.set_tags({"decision": "proposed" if decision.accepted else "kept", "reasons": "; ".join(decision.reasons)})
    return decision, changes


def search_parameters(trials: int, apply: bool) -> None:
    """Search up to this number of trials; print the change of params.yaml that improves the model, if any."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    p, train = params.load(), Source.files("train")
    study = open_study(p.train, p.gate.promotion.max_size_ratio)
    with study_run(study):
        search(study, train, p.train, trials)
        decision, changes = propose(study, train, p)
    if changes:
        print(markdown(decision) + "\n")
    if not decision.accepted:
        print("params.yaml stays as it is: " + "; ".join(decision.reasons) + ".")
        return
    before = PARAMS_FILE.read_text(encoding="utf-8")
    after = edited(before, changes)
    print("".join(difflib.unified_diff(before.splitlines(True), after.splitlines(True), "params.yaml", "proposed")))
    if apply:
        replace_text(PARAMS_FILE, after)
        print("params.yaml is changed. `make repro` trains with it, `make gate` and `make promote` judge it.")
    else:
        print("`on-time model tune --apply` writes this, `make repro` trains with it.")
