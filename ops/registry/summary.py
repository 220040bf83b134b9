"""The summary that `make repro` ends with: what the registry holds of the bundle that was made."""

from mlflow.entities.model_registry import ModelVersion
from tabulate import tabulate

from app.addresses import without_password
from app.interface import NAME
from ops.registry.aliases import PRODUCTION, STAGING, read_aliases
from stages import params
from stages.base import git, yaml_files
from stages.base.paths import EVALUATION_FILE, METRICS_FILE, RECEIPT_FILE
from stages.evaluation import versions
from stages.evaluation.floors import decide_floors
from stages.tracking import mlflow_runs

NAMES = {"test": "model", "logistic": "logistic", "constant": "constant"}
COMMITTED = ["dvc.lock", "reports"]


def registered() -> ModelVersion:
    """Return the version of the receipt's bundle; register it if the registry lacks it, which DVC cannot know."""
    client, digest = mlflow_runs.connect(), yaml_files.load(RECEIPT_FILE)["bundle_digest"]
    version = versions.find_version(client, digest)
    if version is None or STAGING not in read_aliases(client, NAME):
        measured, p = yaml_files.load(METRICS_FILE), params.load()
        versions.register_bundle(p, digest, measured["test"], decide_floors(measured, p.gate))
        version = versions.find_version(client, digest)
    assert version is not None
    return version


def describe_version(version: ModelVersion) -> str:
    """Return the metrics beside the baselines, the state of the version in the registry, and the next commands."""
    metrics, receipt = yaml_files.load(METRICS_FILE), yaml_files.load(RECEIPT_FILE)
    test = yaml_files.load(EVALUATION_FILE)["rows"]["test"]
    rows = [[name, *(metrics[column][name] for column in NAMES)] for name in metrics["test"]]
    named, number = read_aliases(mlflow_runs.connect(), NAME), str(version.version)
    words = [alias.capitalize() for alias in (STAGING, PRODUCTION) if named.get(alias) == number]
    state = " and ".join(words) or f"registered (Staging is version {named.get(STAGING, 'unknown')})"
    promote = "`make promote` makes it Production, "
    serve = "`make serve` serves it, "
    if not words:  # without a number, `make promote` takes Staging
        promote = f"`make promote VERSION={number}` makes it Production, "
    elif named.get(PRODUCTION) == number:
        promote = ""
    floors = "it reaches the floors"
    if not receipt["floors"]:  # `make promote` would refuse it
        reasons = decide_floors(metrics, params.load().gate).reasons
        floors, promote, serve = f"it does not reach the floors: {'; '.join(reasons)}", "", ""
    lines = [
        tabulate(rows, [f"{test['first']} to {test['last']}", *NAMES.values()], tablefmt="plain", floatfmt=".4f"),
        "",
        f"Version {number} of {NAME} is {state} in {without_password(mlflow_runs.tracking_uri())}; {floors}.",
        f"Next: {promote}{serve}`make ui` shows runs and registry.",
    ]
    if git.run("status", "--porcelain", "--", *COMMITTED).stdout:
        lines.append(f"Changed, to be committed with what changed it: `git add {' '.join(COMMITTED)}`.")
    return "\n".join(lines)
