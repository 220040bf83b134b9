"""Pictures of the service: its page, and Swagger UI."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import httpx

from app.settings import Settings
from ops.docs.pictures import servers
from ops.docs.pictures.browser import Camera
from ops.monitoring import replay
from ops.registry import commands
from stages import params

TRAFFIC_SECONDS = 90
VIEWS = {  # by file: width and height of the window, color scheme, and what is shown of the page
    "page": (1280, 970, "light", ["header", "#answer"]),
    "page-dark": (1280, 970, "dark", ["header", "#answer"]),
    "page-narrow": (390, 970, "light", ["#answer"]),
}
LINKS = {"ONTIME_MLFLOW_URL": "http://127.0.0.1:5000", "ONTIME_GRAFANA_URL": "http://127.0.0.1:3000"}
OPERATION = "#operations-predictions-predict_predict_post"


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Run the service on the Production version, its journal in a folder, until the block ends; yield its address."""
    if not Settings.read().baked_model:
        commands.patiently(commands.require)
    port = servers.free_port()
    settings = LINKS | {
        "ONTIME_PORT": str(port),
        "ONTIME_JOURNAL_URL": f"sqlite:///{folder}/journal.db",
        "ONTIME_DRAIN_SECONDS": "0",
    }
    with servers.running("app", "/readyz", port, folder / "service.log", **settings) as base:
        yield base


def page(camera: Camera, base: str) -> None:
    """Take the page with the answer to its example, wide and narrow, light and dark; the model; an error."""
    for name, (width, height, scheme, shown) in VIEWS.items():
        with camera.page(f"{base}/", width, height, color_scheme=scheme) as opened:
            opened.wait_for_selector("#model-facts dl")
            opened.click("form#try button[type=submit]")
            opened.wait_for_selector("#answer .big")
            camera.take(opened, name, *shown)
    with camera.page(f"{base}/") as opened:
        opened.wait_for_selector("#model-facts dl")
        camera.take(opened, "page-model", "#model-title", "#model .card >> nth=0", "#model .charts", margin=16)
        opened.locator("form#try [aria-required=true]").first.fill("")
        opened.click("form#try button[type=submit]")
        opened.wait_for_selector("form#try .wrong:visible")
        camera.take(opened, "page-error", "#try", margin=16, most=420)


def live(camera: Camera, base: str) -> None:
    """Replay the first week of the test period in a minute and a half, then take the page's figures of that time."""
    first = params.load().test_period[0]
    week = replay.days(first, first + timedelta(days=replay.WEEK_DAYS - 1))
    requests = [request for day in week for request in day.requests]

    async def traffic() -> None:
        async with httpx.AsyncClient(base_url=base, timeout=60) as client:
            await replay.predict(client, requests, TRAFFIC_SECONDS)

    with ThreadPoolExecutor(1) as thread:  # this one has Playwright's event loop
        thread.submit(asyncio.run, traffic()).result()
    with camera.page(f"{base}/") as opened:
        opened.wait_for_selector("#live .tile")
        camera.take(opened, "page-live", "#live", margin=16)


def swagger(camera: Camera, base: str) -> None:
    """Take POST /predict in Swagger UI, executed with an explanation."""
    with camera.page(f"{base}/docs") as opened:
        operation = opened.locator(OPERATION)
        operation.locator(".opblock-summary").click()
        operation.locator('tr[data-param-name="explain"] select').select_option("true")
        body = operation.locator("textarea.body-param__text")
        body.evaluate("area => { area.style.height = `${area.scrollHeight + 10}px` }")  # no bar in the picture
        operation.locator(".execute").click()
        operation.locator(".live-responses-table .response").wait_for()
        camera.take(opened, "swagger", f"{OPERATION} .opblock-summary", f"{OPERATION} .live-responses-table")
