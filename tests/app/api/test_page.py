"""The page at `/`: how it is served, and what a person does with it in a real browser."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page, expect

from app.api.application import create_app
from app.interface import EXAMPLE
from app.settings import Settings
from tests.support.clients.browser import browser, in_a_browser, tab, violations
from tests.support.models import bake, measured
from tests.support.servers.service import Service, Start, started

FORBIDDEN = ("unsafe-inline", "unsafe-eval", "*", "http:", "https:")
KEYED = {"api_keys": (hashlib.sha256(b"secret").hexdigest(),)}
Open = Callable[..., TestClient]


@pytest.fixture
def client(baked: Path) -> Iterator[Open]:
    """Return a function that enters the application on a baked model, with these settings."""
    with ExitStack() as stack:

        def enter(**settings: object) -> TestClient:
            defaults = {"baked_model": baked, "journal_url": "none", "model_cache": "none"}
            return stack.enter_context(TestClient(create_app(Settings(**defaults | settings))))

        yield enter


def test_the_page_has_a_strict_policy_and_caching(client: Open) -> None:
    session = client()
    answer = session.get("/")
    policy = answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-cache" and "default-src 'none'" in policy
    assert not any(word in policy for word in FORBIDDEN)
    assert not re.search(r"<style|style=|\son\w+=|<script>", answer.text)
    files = re.findall(r'(?:src|href)="(page/static/[^"]+)"', answer.text)
    assert len(files) == 3
    for file in files:
        content = session.get(file)
        assert content.status_code == 200 and "immutable" in content.headers["cache-control"]
        assert content.headers["content-security-policy"] == policy
    assert session.get(files[0].replace("/static/", "/static/0")).status_code == 404
    assert session.get(f"page/static/{files[0].split('/')[2]}/..%2froutes.py").status_code == 404
    plain = session.get(files[1], headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    with session.stream("GET", files[1], headers={"Accept-Encoding": "gzip"}) as packed:
        assert gzip.decompress(b"".join(packed.iter_raw())) == plain.content


def test_without_docs_there_is_no_page(client: Open) -> None:
    session = client(docs=False)
    assert [session.get(path).status_code for path in ("/", "/page/model", "/page/live")] == [404] * 3


def test_under_a_prefix_all_addresses_have_it(client: Open) -> None:
    session = client(root_path="/risk")
    for path in ("/risk/", "/"):
        text = session.get(path).text
        assert '<base href="/risk/">' in text and not re.search(r'(src|href)="/(?!risk/")', text)
    file = re.findall(r'src="(page/static/[^"]+)"', text)[0]
    assert session.get(f"/risk/{file}").status_code == 200


def test_without_a_model_there_is_a_page(client: Open, tmp_path: Path) -> None:
    session = client(baked_model=tmp_path)
    assert session.get("/").status_code == 200 and session.get("/page/model").status_code == 503


def test_the_facts_need_the_key_and_the_page_does_not(client: Open) -> None:
    session = client(**KEYED)
    assert session.get("/").status_code == 200
    for path in ("/page/model", "/page/live"):
        assert session.get(path).status_code == 401
        assert session.get(path, headers={"X-API-Key": "secret"}).status_code == 200


def test_opening_the_page_changes_no_objective(client: Open) -> None:
    session = client()

    def counted() -> list[str]:
        return re.findall(r"^http_request_duration_highr_seconds_count .*", session.get("/metrics").text, re.MULTILINE)

    before = counted()
    for path in ("/", "/page/model", "/page/live"):
        session.get(path)
    assert counted() == before != []


@pytest.fixture(scope="module")
def service(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on a baked model with an evaluation, without a registry."""
    folder = tmp_path_factory.mktemp("page")
    baked = measured(bake(bundle_dir, "7", folder / "baked"))
    with started(folder, ONTIME_BAKED_MODEL=str(baked), ONTIME_MLFLOW_URL="https://mlflow.example") as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser."""
    with browser() as running:
        yield running


@pytest.fixture
def page(chromium: Browser, service: Service) -> Iterator[Page]:
    """The page, with the facts of the model loaded."""
    with tab(chromium, f"{service.base}/") as opened:
        opened.wait_for_selector("#model-facts dl")
        yield opened


class TestInABrowser:
    """What a person does with the page."""

    pytestmark = in_a_browser

    def test_the_contributions_add_up(self, page: Page, service: Service) -> None:
        page.click("button[type=submit]")
        expected = httpx.post(f"{service.base}/predict?explain=true&probe=true", json=EXAMPLE).json()
        expect(page.locator("#answer .big")).to_have_text(f"{100 * expected['probability']:.1f} %")
        values = [float(text) for text in page.locator("#answer tbody td:nth-child(3)").all_inner_texts()]
        assert len(values) == 11 and abs(sum(values[:-1]) - values[-1]) < 0.06  # ten rounded values
        assert abs(values[-1] - expected["explanation"]["log_odds"]) < 0.006

    def test_a_trial_is_recorded_only_on_request(self, page: Page, service: Service) -> None:
        page.click("button[type=submit]")
        page.wait_for_selector("#answer .big")
        counted = "model_probability_count"
        before = service.metric(f'{counted}{{model_version="7"}}')
        page.check("#record")
        with page.expect_response(re.compile("predict")):
            page.click("button[type=submit]")
        assert service.metric(f'{counted}{{model_version="7"}}') == before + 1

    def test_errors_are_shown_at_their_fields(self, page: Page) -> None:
        page.fill("#dest", "EWR")
        page.fill("[id='weather.0.humidity_pct']", "120")
        page.click("button[type=submit]")
        wrong = page.locator("[id='wrong-weather.0.humidity_pct']")
        expect(wrong).to_have_text("Input should be less than or equal to 100")
        expect(page.locator("[id='weather.0.humidity_pct']")).to_be_focused()
        page.fill("[id='weather.0.humidity_pct']", "20")
        page.click("button[type=submit]")
        expect(wrong).to_be_hidden()
        expect(page.locator("#wrong-dest")).to_have_text("must be another airport than origin")
        assert violations(page) == []
        page.fill("#dest", "")
        page.click("button[type=submit]")
        expect(page.locator("#wrong-dest")).to_have_text("Field required")
        page.click("#example")
        page.click("button[type=submit]")
        page.wait_for_selector("#answer .big")

    def test_the_optional_block_is_opened_and_closed(self, page: Page) -> None:
        add = page.locator("[id=weather]")
        add.click()
        expect(page.locator("#fields fieldset")).to_have_count(2)
        for _ in range(5):
            add.click()
        expect(add).to_be_hidden()  # seven hours at most
        for left in range(6, -1, -1):
            page.locator("#fields fieldset button").first.click()
            expect(page.locator("#fields fieldset")).to_have_count(left)
        page.click("button[type=submit]")
        page.wait_for_selector("#answer .big")
        assert '"weather"' not in page.locator("#curl").text_content()

    def test_the_request_as_code_is_the_request(self, page: Page, service: Service) -> None:
        page.click("#code summary")
        body = json.loads(re.findall(r"--json '(.*)'$", page.locator("#curl").inner_text(), re.DOTALL)[0])
        sent, meant = (httpx.post(f"{service.base}/predict?probe=true", json=one).json() for one in (body, EXAMPLE))
        assert sent["probability"] == meant["probability"]
        code, printed = page.locator("#python").inner_text(), list[dict[str, object]]()
        exec(code, {"print": printed.append})  # pylint: disable=exec-used # the code that users copy
        assert printed[0]["probability"] == sent["probability"] and service.base in code

    def test_the_keyboard_is_enough(self, page: Page) -> None:
        page.keyboard.press("Tab")
        expect(page.locator(".skip")).to_be_focused()
        page.focus("#carrier")
        page.keyboard.press("Control+A")
        page.keyboard.type("DL")
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.matches('#try [type=submit]')"):
                break
        page.keyboard.press("Enter")
        page.wait_for_selector("#answer .big")

    def test_a_key_is_entered_on_the_page(self, chromium: Browser, baked: Path, start: Start) -> None:
        service = start(baked_model=baked, journal_url="none", api_keys=hashlib.sha256(b"secret").hexdigest())
        with tab(chromium, f"{service.base}/") as page:
            expect(page.locator("#served")).to_have_text("An API key is required")
            page.click("button[type=submit]")
            expect(page.locator("#answer")).to_have_text("X-API-Key is missing or invalid.")
            page.fill("#api-key", "secret")
            page.press("#api-key", "Tab")
            page.wait_for_selector("#model-facts dl")
            page.click("button[type=submit]")
            page.wait_for_selector("#answer .big")
            assert "-H 'X-API-Key: KEY'" in page.locator("#curl").text_content()
            expect(page.locator(".tile:has(dt:text-is('Journal')) dd").first).to_have_text("off", timeout=15_000)

    def test_the_model_is_described_by_its_evaluation(self, page: Page, service: Service) -> None:
        def column() -> list[float]:
            cells = page.locator("table:has(th button) tbody td:nth-child(5)").all_inner_texts()
            return [float(text) for text in cells]

        evaluation = httpx.get(f"{service.base}/page/model").json()["evaluation"]
        text = page.locator("#model-facts").inner_text()
        assert f"{evaluation['test']['roc_auc']:.4f}" in text and evaluation["texts"]["limits"] in text
        assert "flight-delay, version 7" in page.inner_text("header")
        expect(page.locator("#model-facts svg[role=img]")).to_have_count(2)
        page.click("th button >> text=ROC AUC")
        rising = column()
        assert len(rising) > 10 and rising == sorted(rising)
        page.click("th button >> text=ROC AUC")
        assert column() == rising[::-1]

    def test_the_last_minutes_are_counted(self, page: Page, service: Service) -> None:
        tile = page.locator(".tile:has(dt:text-is('Predictions')) dd").first
        tile.wait_for(timeout=15_000)
        before = int(tile.inner_text())
        httpx.post(f"{service.base}/predict", json=EXAMPLE)
        expect(tile).to_have_text(str(before + 1), timeout=20_000)

    @pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (360, "light")])
    def test_it_is_accessible_and_fits(self, chromium: Browser, service: Service, width: int, scheme: str) -> None:
        viewport = {"width": width, "height": 900}
        with tab(chromium, f"{service.base}/", viewport=viewport, color_scheme=scheme) as page:
            page.wait_for_selector("#model-facts dl")
            page.click("button[type=submit]")
            page.wait_for_selector("#answer .big")
            page.click("#code summary")
            page.locator(".tile").first.wait_for(timeout=15_000)
            assert violations(page) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.evaluate("document.getElementById('answer').append(document.createElement('input'))")
            assert "label" in violations(page)[0]  # what must be found
