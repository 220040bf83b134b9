"""Swagger UI in a real browser, with every address but the service's refused."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from app.interface import EXAMPLE
from tests.support.browser import browser, in_a_browser, tab

pytestmark = in_a_browser


@pytest.fixture(scope="module")
def page(small_service: str) -> Iterator[Page]:
    """A browser on the service's Swagger UI, which cannot reach anything else."""
    with (
        browser() as running,
        tab(running, f"{small_service}/docs", viewport={"width": 1200, "height": 1400}) as opened,
    ):
        opened.wait_for_selector("#operations-predictions-predict_predict_post")
        yield opened


def execute(page: Page, body: str | None = None) -> tuple[str, str]:
    """Press Execute on POST /predict, with a body or the one that stands there; return status and answer."""
    operation = page.locator("#operations-predictions-predict_predict_post")
    if operation.locator(".execute").count() == 0:
        operation.locator(".opblock-summary").click()
    if body is not None:
        operation.locator("textarea.body-param__text").fill(body)
    if operation.locator(".btn-clear").count():
        operation.locator(".btn-clear").click()
    operation.locator(".execute").click()
    answer = operation.locator(".live-responses-table .response")
    answer.wait_for()
    return (
        answer.locator(".response-col_status").inner_text().split()[0],
        answer.locator(".microlight").first.inner_text(),
    )


def test_the_example_is_answered_as_it_stands(page: Page) -> None:
    status, answer = execute(page)
    assert status == "200"
    assert 0 < json.loads(answer)["probability"] < 1


def test_a_bad_value_is_answered_with_its_field(page: Page) -> None:
    status, answer = execute(page, '{"carrier": "UA", "origin": "BOS"}')
    assert status == "422" and '"origin"' in answer


def test_an_explanation_is_a_choice_away(page: Page) -> None:
    operation = page.locator("#operations-predictions-predict_predict_post")
    operation.locator('tr[data-param-name="explain"] select').select_option("true")
    status, answer = execute(page, json.dumps(EXAMPLE, indent=2))
    assert status == "200"
    found = json.loads(answer)["explanation"]
    total = found["baseline"] + sum(part["contribution"] for part in found["contributions"])
    assert len(found["contributions"]) == 26 and abs(total - found["log_odds"]) < 1e-9
