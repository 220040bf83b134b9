"""Pictures of what a pull request shows: the comment, and DVC's plots."""

from pathlib import Path
from string import Template

import vl_convert
from markdown_it import MarkdownIt
from playwright.sync_api import Route

from ops.ci import github
from ops.docs.pictures.browser import Camera
from ops.gate import comparison
from stages.git import git

COMMENT = Path(__file__).parent / "comment.html"
CDN = "https://cdn.jsdelivr.net/**"
COLUMNS = "body { display: grid; grid-template-columns: 1fr 1fr; gap: 16px; margin: 0; padding: 16px }"


def comment(camera: Camera, base: str, folder: Path) -> None:
    """Take the comment on a pull request: the gate's report on the working tree against the merge base."""
    report = comparison.text(base)
    run = {
        "run_number": 1,
        "html_url": "",
        "head_sha": git("rev-parse", "HEAD").strip(),
        "conclusion": "success" if report.startswith("### Gate: passed") else "failure",
    }
    body = MarkdownIt("commonmark").enable("table").render(github.body_of(run, report))
    page = folder / "comment.html"
    page.write_text(Template(COMMENT.read_text(encoding="utf-8")).substitute(body=body), encoding="utf-8")
    with camera.page(page.as_uri(), width=1000) as opened:
        camera.take(opened, "comment", "main", margin=16)


def plots(camera: Camera, base: str, folder: Path) -> None:
    """Take the page of `dvc plots diff`; Vega, which it loads from a CDN, is served from its Python package."""
    comparison.plots(base, folder)
    vega = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed")

    def serve(route: Route) -> None:
        route.fulfill(content_type="text/javascript", body=vega if "vega-embed" in route.request.url else "")

    with camera.page("about:blank") as opened:
        opened.context.route(CDN, serve)
        opened.set_content((folder / "index.html").read_text(encoding="utf-8"))
        opened.add_style_tag(content=COLUMNS)
        opened.wait_for_selector("canvas, svg")
        camera.take(opened, "plots-diff", "body")
