"""The summary that `make repro` ends with; MLflow is not imported, so that a run in which nothing changed is fast."""

import json
import os
from pathlib import Path

from tabulate import tabulate

from stages import git
from stages.files import EVALUATION_FILE, METRICS_FILE

RECEIPT = Path("build/receipt.json")
REGISTRATION = Path("build/registration.json")
NAMES = {"test": "model", "logistic": "logistic", "constant": "constant"}
COMMITTED = ["dvc.lock", "reports"]
DEFAULT_URI = "sqlite:///mlflow.db"  # as in app/settings.py, which takes too long to import here


def forget_foreign_receipt() -> None:
    """Remove the receipt of another MLflow, or of a SQLite file that is gone, so that `register` runs again."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    known = json.loads(REGISTRATION.read_text(encoding="utf-8"))["uri"] if REGISTRATION.exists() else None
    file_gone = uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists()
    if RECEIPT.exists() and (known != uri or file_gone):
        RECEIPT.unlink()


def text() -> str:
    """Return the metrics beside those of the baselines, the version, and what to do next."""
    metrics = json.loads(METRICS_FILE.read_text(encoding="utf-8"))
    registration = json.loads(REGISTRATION.read_text(encoding="utf-8"))
    receipt = json.loads(RECEIPT.read_text(encoding="utf-8"))
    first, last = json.loads(EVALUATION_FILE.read_text(encoding="utf-8"))["periods"]["test"]
    rows = [[name, *(metrics[column][name] for column in NAMES)] for name in metrics["test"]]
    floors = "reaches" if receipt["floors"] else "does not reach"
    lines = [
        tabulate(rows, [f"{first} to {last}", *NAMES.values()], tablefmt="plain", floatfmt=".4f"),
        "",
        f"Version {registration['version']} of {receipt['model']} is Staging in {registration['uri']}; "
        f"it {floors} the floors.",
        "Next: `make promote` makes it Production, `make serve` serves it, `make ui` shows runs and registry.",
    ]
    if git.run("status", "--porcelain", "--", *COMMITTED).stdout:
        lines.append(f"Changed, to be committed with what changed it: `git add {' '.join(COMMITTED)}`.")
    return "\n".join(lines)
