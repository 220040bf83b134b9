"""`on-time ci pictures`: pictures of the real service on a small model, small files, nothing left running."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from PIL import Image

from ops.docs import pictures
from ops.studies.speed.server import ServerFailed, running
from tests.ops.docs.test_docs import MOST_BYTES
from tests.support.clients.browser import in_a_browser
from tests.support.models import bake, measured

FILES = {"page", "page-dark", "page-narrow", "page-model", "page-error", "swagger"}


class TestInABrowser:
    """What needs Chromium."""

    pytestmark = in_a_browser

    def test_page_and_swagger_are_taken_from_the_service(self, bundle_dir: Path, tmp_path: Path) -> None:
        baked = measured(bake(bundle_dir, "7", tmp_path / "baked"))
        settings = {"ONTIME_BAKED_MODEL": str(baked), "ONTIME_JOURNAL_URL": "none"}
        with pictures.chromium() as browser, running("app", "/readyz", **settings) as service:
            pictures.take_page(browser, service.address, tmp_path)
            pictures.take_swagger(browser, service.address, tmp_path)
        assert not service.process.is_running() or service.process.status() == psutil.STATUS_ZOMBIE
        files = sorted(tmp_path.glob("*.png"))
        assert {file.stem for file in files} == FILES
        for file in files:
            with Image.open(file) as image:
                assert image.width >= 350 and image.height >= 350
                assert len(image.convert("RGB").getcolors(256) or []) > 20  # not an empty window
            assert file.stat().st_size <= MOST_BYTES


def test_a_server_that_ends_is_reported() -> None:
    with pytest.raises(ServerFailed, match="`python -m json.tool /nothing` did not start"):
        with running("json.tool /nothing", "/"):
            pass


def test_without_chromium_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pictures.BrowserMissing, match="apt install chromium"), pictures.chromium():
        pass
