"""`on-time ci pictures`: pictures of the real service on a small model, small files, nothing left running."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import psutil
import pytest
from PIL import Image

from ops.docs.pictures import NAMES, browser, reports, servers, take
from ops.docs.pictures.image import MOST_BYTES, PictureFailed, shrink
from ops.gate import comparison
from tests.conftest import ROOT
from tests.support.browser import in_a_browser
from tests.support.models import bake, measured
from tests.support.processes import free_port, run

REPORT = "### Gate: passed\n\n| metric | base | now |\n|---|--:|--:|\n| roc_auc | 0.7 | 0.8 |\n"
FILES = {"page", "page-dark", "page-narrow", "page-model", "page-error", "swagger"}


def command(*arguments: str | Path) -> list[str | Path]:
    """Return the command with arguments."""
    return [sys.executable, "-m", "ops.cli", "ci", "pictures", *arguments]


class TestInABrowser:
    """What needs Chromium."""

    pytestmark = in_a_browser

    def test_page_and_swagger_are_taken_from_the_service_and_nothing_stays(
        self, bundle_dir: Path, tmp_path: Path
    ) -> None:
        baked = measured(bake(bundle_dir, "7", tmp_path / "baked"))
        environment = os.environ | {"ONTIME_BAKED_MODEL": str(baked), "MLFLOW_TRACKING_URI": ""}
        line = command("--only", "page", "--only", "swagger", "--folder", tmp_path / "pictures")
        done = run(line, ROOT, environment)
        assert done.returncode == 0, done.stderr
        files = sorted((tmp_path / "pictures").iterdir())
        assert {file.stem for file in files} == FILES and done.stdout.count(" kB") == len(FILES)
        for file in files:
            with Image.open(file) as image:
                assert image.width >= 350 and image.height >= 350
                assert len(image.convert("RGB").getcolors(256) or []) > 20  # not an empty window
            assert file.stat().st_size <= MOST_BYTES
        assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]

    def test_the_comment_is_the_report_as_github_shows_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(comparison, "text", lambda _: REPORT)
        with browser.camera(tmp_path) as camera:
            reports.comment(camera, "main", tmp_path)
        page = (tmp_path / "comment.html").read_text(encoding="utf-8")
        assert '<td style="text-align:right">0.8</td>' in page and "<strong>success</strong>" in page
        assert (tmp_path / "comment.png").stat().st_size > 5000

    def test_requests_to_other_machines_are_refused(self, tmp_path: Path) -> None:
        with browser.camera(tmp_path) as camera, camera.page("about:blank") as page:
            page.set_content("<img src='http://192.0.2.1/a.png' onerror='document.title = \"refused\"'>")
            page.wait_for_function("document.title === 'refused'")


def test_a_server_that_ends_is_reported_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(servers.ServerFailed, match="`python -m json.tool /nothing` ended with 2; .*No such file"):
        with servers.running("json.tool /nothing", "/", free_port(), tmp_path / "log"):
            pass


def test_without_chromium_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PictureFailed, match="apt install chromium"), browser.camera(tmp_path):
        pass


def test_without_prometheus_the_boards_stay(capsys: pytest.CaptureFixture[str]) -> None:
    take.draw_boards(f"127.0.0.1:{free_port()}", 1)
    assert capsys.readouterr().out.startswith("docs/boards stays as it is: no Prometheus")


def test_a_picture_that_stays_large_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "noise.png"
    Image.frombytes("RGB", (700, 700), random.Random(1).randbytes(3 * 700 * 700)).save(file)
    with pytest.raises(PictureFailed, match="more than 300000"):
        shrink(file)


def test_each_name_has_a_function() -> None:
    assert {*take.OF_SERVICE, *take.OF_REPORTS, "mlflow", "boards"} == set(NAMES)
