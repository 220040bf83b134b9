"""The machine's own Chromium, driven by Playwright."""

import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, FloatRect, Page, ViewportSize, sync_playwright

from ops.docs.pictures.image import PictureFailed, shrink

WIDTH, HEIGHT = 1280, 900
WAIT_SECONDS = 120


@dataclass(frozen=True)
class Camera:
    """A browser, and the folder for its pictures."""

    browser: Browser
    folder: Path

    @contextmanager
    def page(self, address: str, width: int = WIDTH, height: int = HEIGHT, **context: Any) -> Iterator[Page]:
        """Open an address in a window of its own; requests to other machines are refused."""
        window = ViewportSize(width=width, height=height)
        with self.browser.new_context(viewport=window, reduced_motion="reduce", **context) as session:
            session.set_default_timeout(1000 * WAIT_SECONDS)
            session.route("**/*", lambda route: route.continue_() if _local(route.request.url) else route.abort())
            page = session.new_page()
            page.goto(address)
            yield page

    def take(self, page: Page, name: str, *selectors: str, margin: int = 0, most: float = math.inf) -> None:
        """Write the window, or the rectangle around elements with a margin, at most so high, to a file (pixels)."""
        file = self.folder / f"{name}.png"
        page.mouse.move(0, 0)
        if selectors:
            page.evaluate("scrollTo(0, 0)")
            boxes = [box for selector in selectors if (box := page.locator(selector).first.bounding_box())]
            left = max(0.0, min(box["x"] for box in boxes) - margin)
            top = max(0.0, min(box["y"] for box in boxes) - margin)
            right = max(box["x"] + box["width"] for box in boxes) + margin
            bottom = max(box["y"] + box["height"] for box in boxes) + margin
            clip = FloatRect(x=left, y=top, width=right - left, height=min(bottom - top, most))
            page.screenshot(path=file, full_page=True, clip=clip, animations="disabled")
        else:
            page.screenshot(path=file, animations="disabled")
        shrink(file)


def _local(address: str) -> bool:
    return address.startswith(("http://127.0.0.1:", "data:", "blob:", "file:"))


@contextmanager
def camera(folder: Path) -> Iterator[Camera]:
    """Run the browser until the block ends."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise PictureFailed("Chromium is not installed: apt install chromium")
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield Camera(browser, folder)
        finally:
            browser.close()
