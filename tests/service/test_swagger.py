"""Swagger UI in a real browser, with every address but the service's refused."""

from __future__ import annotations

import json
from pathlib import Path

from playwright.sync_api import Locator

from app.interface import EXAMPLE
from tests.support.clients.browser import browser, in_a_browser, tab
from tests.support.servers.service import Start

pytestmark = in_a_browser


def execute(operation: Locator, body: str | None = None) -> tuple[str, str]:
    """Press Execute, with a body or the one that stands there; return status and answer."""
    if body is not None:
        operation.locator("textarea.body-param__text").fill(body)
    if operation.locator(".btn-clear").count():
        operation.locator(".btn-clear").click()
    operation.locator(".execute").click()
    answer = operation.locator(".live-responses-table .response")
    answer.wait_for()
    status = answer.locator(".response-col_status").inner_text().split()[0]
    return status, answer.locator(".microlight").first.inner_text()


def test_predictions_can_be_tried(baked: Path, start: Start) -> None:
    base = start(baked_model=baked, journal_url="none").base
    with browser() as running, tab(running, f"{base}/docs", viewport={"width": 1200, "height": 1400}) as page:
        operation = page.locator("#operations-predictions-predict_predict_post")
        operation.locator(".opblock-summary").click()
        status, answer = execute(operation)  # the example as it stands
        assert status == "200" and 0 < json.loads(answer)["probability"] < 1
        status, answer = execute(operation, '{"carrier": "UA", "origin": "BOS"}')
        assert status == "422" and '"origin"' in answer
        operation.locator('tr[data-param-name="explain"] select').select_option("true")
        status, answer = execute(operation, json.dumps(EXAMPLE, indent=2))
    explanation = json.loads(answer)["explanation"]
    total = explanation["baseline"] + sum(part["contribution"] for part in explanation["contributions"])
    assert status == "200" and abs(total - explanation["log_odds"]) < 1e-9
    assert len(explanation["contributions"]) == 26
