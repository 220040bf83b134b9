"""Pictures of MLflow's UI: the runs of the pipeline, and the Production version in the registry."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient

from app.interface import NAME
from ops.docs.pictures import servers
from ops.docs.pictures.browser import Camera
from ops.registry import commands

WIDTH, HEIGHT = 1360, 460
COLUMNS = (
    "metrics.`test.log_loss`",
    "metrics.`test.roc_auc`",
    "params.`train.num_leaves`",
    "tags.`model.version`",
)
SETTINGS = {  # what a visitor has chosen before: the UI's own entries of the browser's local storage
    "mlflow.workflowType_v1": "machine_learning",
    "mlflow.assistant.panelOpen_v1": False,
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True,
}


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Run `on-time model ui` until the block ends; yield its address."""
    port = servers.free_port()
    with servers.running(f"ops.cli model ui --port {port}", "/health", port, folder / "mlflow.log") as base:
        yield base


def pictures(camera: Camera, base: str) -> None:
    """Take the list of pipeline runs with their metrics, and the page of the Production version."""
    version = commands.patiently(commands.require)
    number = MlflowClient().get_run(str(version.run_id)).info.experiment_id
    view = f'MLflowLocalStorage-1.1-ExperimentPage-["{number}"]-ReactComponentState'
    stored = SETTINGS | {view: {"selectedColumns": COLUMNS}}
    script = "for (const [name, value] of Object.entries(%s)) localStorage.setItem(name, JSON.stringify(value))"
    with camera.page(f"{base}/version", WIDTH, HEIGHT) as opened:
        opened.add_init_script(script % json.dumps(stored))
        for name, path, text in (
            ("mlflow-runs", f"experiments/{number}/runs", "pipeline"),
            ("mlflow-registry", f"models/{NAME}/versions/{version.version}", "@ production"),
        ):
            opened.goto(f"{base}/#/{path}")
            opened.locator(f"text={text} >> visible=true").first.wait_for()
            for edge in opened.locator(".ag-header-cell .ag-header-cell-resize >> visible=true").all():
                edge.dblclick()  # the column becomes as wide as its name
            opened.wait_for_timeout(2000)  # its layout follows its text
            camera.take(opened, name)
