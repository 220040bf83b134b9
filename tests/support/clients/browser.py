"""The machine's own Chromium, driven by Playwright; every address but the service's is refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
in_a_browser = [
    pytest.mark.long,
    pytest.mark.skipif(
        CHROMIUM is None and not os.environ.get("CI"),
        reason="no Chromium on this machine (Debian: apt install chromium)",
    ),
]
"""The marks of tests that need Chromium."""
REFUSED = "responded with a status of 4"


@contextmanager
def browser() -> Iterator[Browser]:
    """Run the browser until the block ends."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield running
        finally:
            running.close()


@contextmanager
def tab(running: Browser, address: str, **context: Any) -> Iterator[Page]:
    """Open a page; fail afterwards if it sent a request elsewhere, or logged an error other than a refused request."""
    with running.new_context(**context) as session:
        page, wrong = session.new_page(), list[str]()
        base = "/".join(address.split("/")[:3])
        page.on("request", lambda r: None if r.url.startswith((base, "data:")) else wrong.append(r.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" and REFUSED not in m.text else None)
        page.goto(address)
        try:
            yield page
        finally:
            page.close()
        assert not wrong


def violations(page: Page) -> list[str]:
    """Return what axe-core finds to be inaccessible: the rule, and where."""
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {node['html'][:120]}" for one in found for node in one["nodes"]]
