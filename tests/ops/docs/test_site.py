"""The site of the documentation: built strictly, and whole without another host: fonts, search, diagrams."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.support.repositories.clone import ROOT, Clone, make_clone

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
EXTERNAL = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*(?:src|href)=\"?(?:https?:)?//[^>]*>")
browser_needed = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"), reason="no Chromium on this machine (Debian: apt install chromium)"
)


def build(root: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a checkout, as `make docs` does."""
    command = ["-m", "mkdocs", "build", "--config-file", "ops/docs/mkdocs.yml", "--site-dir", str(folder)]
    variables = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        [sys.executable, *command], cwd=root, env=variables, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def browser(site: Path) -> Iterator[Page]:
    """A browser on the site's files; it fails if a page requests anything else."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        tab = chromium.new_page()
        foreign: list[str] = []
        own = (site.as_uri(), "data:", "blob:")
        tab.on("request", lambda request: None if request.url.startswith(own) else foreign.append(request.url))
        yield tab
        assert not foreign
        chromium.close()


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    assert {page.name: found for page in pages if (found := EXTERNAL.findall(page.read_text(encoding="utf-8")))} == {}
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.findall(r"url\(\s*[\"']?(?:https?:)?//|@import", styles)


def test_script_of_another_host_would_be_found() -> None:
    assert EXTERNAL.search('<script async src="https://x.org/a.js">')
    assert EXTERNAL.search('<link rel="preconnect" href=//fonts.x.org>')
    assert not EXTERNAL.search('<a href="https://x.org">x</a><script src="a.js">')


def test_files_outside_docs_lead_to_the_repository(site: Path) -> None:
    index = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="contributing.html"' in index and 'href="model-card.html"' in index
    assert "https://github.com/OWNER/REPOSITORY/tree/main/reports" in index
    assert "Model card" in (site / "model-card.html").read_text(encoding="utf-8")
    assert "../params.yaml" not in (site / "reference/parameters.html").read_text(encoding="utf-8")


@browser_needed
def test_diagrams_are_drawn_from_the_sites_own_script(browser: Page, site: Path) -> None:
    browser.goto((site / "architecture.html").as_uri())
    browser.wait_for_selector("div.mermaid", state="attached")
    browser.wait_for_function("document.querySelectorAll('pre.mermaid').length === 0")
    assert browser.locator("div.mermaid").count() == 2


@browser_needed
def test_search_finds_a_page_without_a_server(browser: Page, site: Path) -> None:
    browser.goto((site / "index.html").as_uri())
    browser.fill("input.md-search__input", "JournalReplaced")
    browser.wait_for_selector("a.md-search-result__link[href*='runbook.html']")


def test_broken_link_or_navigation_fails_the_build(tmp_path: Path) -> None:
    clone: Clone = make_clone(tmp_path / "clone", data=False)
    (clone.path / "docs/stray.md").write_text("# A page\n", encoding="utf-8")
    with (clone.path / "docs/glossary.md").open("a", encoding="utf-8") as page:
        page.write("\n[a](nowhere.md) [b](serving.md#nowhere) [c](../nothing.md)\n")
    shutil.copytree(ROOT / "build/docs", clone.path / "build/docs")
    done = build(clone.path, tmp_path / "site")
    assert done.returncode != 0
    for named in ("stray.md", "nowhere.md", "serving.md#nowhere", "../nothing.md"):
        assert named in done.stderr + done.stdout, done.stderr
