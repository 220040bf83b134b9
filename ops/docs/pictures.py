"""`on-time ci pictures`: the pictures of the documentation, taken from the running product by Chromium."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, ViewportSize, sync_playwright

from app.errors import OnTimeError
from app.interface import NAME
from ops.registry import commands
from ops.studies.speed.server import running

WIDE, NARROW = ViewportSize(width=1280, height=970), ViewportSize(width=390, height=970)
CHOSEN = {  # entries of the browser's local storage: settings of MLflow's UI
    "mlflow.workflowType_v1": "machine_learning",
    "mlflow.assistant.panelOpen_v1": False,
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True,
}
COLUMNS = ("metrics.`test.log_loss`", "metrics.`test.roc_auc`", "params.`train.num_leaves`", "tags.`model.version`")


class BrowserMissing(OnTimeError):
    """Chromium is not installed."""


def take(folder: Path) -> None:
    """Write all pictures to a folder, of the service and of MLflow's UI on free ports."""
    commands.patiently(commands.require)  # before a server waits for it
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch, chromium() as browser:
        with running("app", "/readyz", ONTIME_JOURNAL_URL=f"sqlite:///{scratch}/journal.db") as service:
            take_page(browser, service.address, folder)
            take_swagger(browser, service.address, folder)
        with running("ops.cli model ui --port {port}", "/health") as mlflow:
            take_mlflow(browser, mlflow.address, folder)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the machine's Chromium until the block ends; raise BrowserMissing if there is none."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise BrowserMissing("Chromium is not installed: apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


def take_page(browser: Browser, address: str, folder: Path) -> None:
    """Take the page with the answer to its example, wide and narrow, light and dark; the model; an error."""
    page = browser.new_page(viewport=WIDE)
    page.goto(address)
    page.wait_for_selector("#model-facts dl")
    page.click("form#try button[type=submit]")
    page.wait_for_selector("#answer .big")
    _scroll(page, "header")
    _save(page, folder / "page.png")
    page.emulate_media(color_scheme="dark")
    _save(page, folder / "page-dark.png")
    page.emulate_media(color_scheme="light")
    _scroll(page, "#model")
    _save(page, folder / "page-model.png")
    page.locator("form#try [aria-required=true]").first.fill("")
    page.click("form#try button[type=submit]")
    page.wait_for_selector("form#try .wrong:visible")
    _scroll(page, "header")
    _save(page, folder / "page-error.png")
    page.set_viewport_size(NARROW)
    page.click("#example")
    page.click("form#try button[type=submit]")
    page.wait_for_selector("#answer .big")
    _save(page.locator("#answer"), folder / "page-narrow.png")


def _scroll(page: Page, top: str) -> None:
    page.locator(top).first.evaluate("element => element.scrollIntoView({behavior: 'instant'})")


def _save(shown: Page | Locator, file: Path) -> None:
    """Write a window or an element as a PNG file of 256 colours, a third of the size."""
    shown.screenshot(path=file, animations="disabled")
    with Image.open(file) as image:
        image.convert("RGB").quantize(dither=Image.Dither.NONE).save(file, optimize=True)


def take_swagger(browser: Browser, address: str, folder: Path) -> None:
    """Take POST /predict in Swagger UI, executed with an explanation."""
    page = browser.new_page(viewport=WIDE)
    page.goto(f"{address}/docs")
    operation = page.locator("#operations-predictions-predict_predict_post")
    operation.locator(".opblock-summary").click()
    operation.locator('tr[data-param-name="explain"] select').select_option("true")
    operation.locator(".execute").click()
    operation.locator(".live-responses-table .response").wait_for()
    page.add_style_tag(content=".responses-table:not(.live-responses-table) { display: none }")
    _save(operation, folder / "swagger.png")


def take_mlflow(browser: Browser, address: str, folder: Path) -> None:
    """Take the list of pipeline runs with their metrics, and the page of the Production version."""
    version = commands.patiently(commands.require)
    number = MlflowClient().get_run(str(version.run_id)).info.experiment_id
    view = f'MLflowLocalStorage-1.1-ExperimentPage-["{number}"]-ReactComponentState'
    page = browser.new_page(viewport=ViewportSize(width=1360, height=460))
    for name, value in (CHOSEN | {view: {"selectedColumns": COLUMNS}}).items():
        page.add_init_script(f"localStorage.setItem({json.dumps(name)}, {json.dumps(json.dumps(value))})")
    for name, path, text in (
        ("mlflow-runs", f"experiments/{number}/runs", "pipeline"),
        ("mlflow-registry", f"models/{NAME}/versions/{version.version}", "@ production"),
    ):
        page.goto(f"{address}/#/{path}")
        page.locator(f"text={text} >> visible=true").first.wait_for()
        for edge in page.locator(".ag-header-cell .ag-header-cell-resize >> visible=true").all():
            edge.dblclick()  # the column becomes as wide as its name
        page.wait_for_timeout(2000)  # its layout follows its text
        _save(page, folder / f"{name}.png")
