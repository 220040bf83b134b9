"""All pictures of the documentation, by their names."""

from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from ops.docs.pictures import browser, mlflow, reports, service
from ops.monitoring.dashboards import pictures as boards

OF_SERVICE = {"live": service.live, "page": service.page, "swagger": service.swagger}
OF_REPORTS = {"comment": reports.comment, "plots": reports.plots}


def take(names: Collection[str], folder: Path, base: str, prometheus: str, minutes: float) -> None:
    """Take these pictures; start the service and MLflow's UI on free ports, and stop them afterwards."""
    with TemporaryDirectory(prefix="on-time-pictures-") as scratch, ExitStack() as stack:
        temporary = Path(scratch)
        camera = stack.enter_context(browser.camera(folder))
        if any(name in OF_SERVICE for name in names):
            address = stack.enter_context(service.running(temporary))
            for name, picture in OF_SERVICE.items():
                if name in names:
                    picture(camera, address)
        if "mlflow" in names:
            mlflow.pictures(camera, stack.enter_context(mlflow.running(temporary)))
        for name, part in OF_REPORTS.items():
            if name in names:
                part(camera, base, temporary)
        if "boards" in names:
            draw_boards(prometheus, minutes)


def draw_boards(prometheus: str, minutes: float) -> None:
    """Draw the dashboards from what Prometheus has recorded; leave their pictures as they are if none runs."""
    try:
        httpx.get(f"http://{prometheus}/-/ready").raise_for_status()
    except httpx.HTTPError as err:
        reason = f"no Prometheus at {prometheus} ({err}); `on-time monitor local` runs one."
        print(f"{boards.OUT_DIR} stays as it is: {reason}")
        return
    boards.draw_all(prometheus, minutes, None, ())
