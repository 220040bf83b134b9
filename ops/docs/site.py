"""MkDocs' hooks: pages and links from outside docs/, and scripts from this site alone."""

import hashlib
import os
import re
import subprocess
import tarfile
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PAGES = {"CONTRIBUTING.md": "contributing.md", "reports/model_card.md": "model-card.md"}
"""Documents outside docs/ that are pages too."""
SCRIPTS = {  # by the name in the site: package and version of npm, its file, and the file's SHA-256
    "mermaid.js": (
        "mermaid@11.17.2",
        "dist/mermaid.min.js",
        "581ed7d74bd9048d0e3a91363927d72ef22942d7722546b27f7cc29e35390eb8",
    ),
    "iframe-worker.js": (
        "iframe-worker@1.0.4",
        "shim/index.js",
        "e8e412dbcfea9b7e31b5ffa288d7b6035915e714c542f4176a0cdbe262fc9609",
    ),
}
STYLE = """
.md-grid { max-width: 76rem; }
.md-typeset h1, .md-typeset h2 { color: inherit; font-weight: 600; letter-spacing: 0; }
.md-typeset td:first-child code { white-space: nowrap; }
[data-md-copying] :is(.gp, .go) { display: none; } /* the copy of a console is its commands */
"""
CACHE = Path("build/docs")
LINK = re.compile(r"(\]\()(?!https?:|#)([^)#\s]+)([^)\s]*\))")
DIAGRAM = 'class="mermaid"'


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/ and the scripts."""
    for source, name in PAGES.items():
        files.append(File.generated(config, name, abs_src_path=os.path.abspath(source)))
    for name in SCRIPTS:
        files.append(File.generated(config, f"assets/{name}", content=script(name)))
    files.append(File.generated(config, "assets/site.css", content=STYLE))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: object) -> str:
    """Turn links to files outside docs/ into links to their page or the repository."""
    name = page.file.src_uri
    source = next((path for path, target in PAGES.items() if target == name), f"docs/{name}")
    return LINK.sub(lambda link: link[1] + _target(link[2], source, name, config) + link[3], markdown)


def _target(link: str, source: str, name: str, config: MkDocsConfig) -> str:
    path = os.path.normpath(PurePosixPath(source).parent / link)
    if not os.path.exists(path):
        return link  # MkDocs warns of it
    if path in PAGES or path.startswith("docs/"):
        return os.path.relpath(PAGES.get(path, path.removeprefix("docs/")), PurePosixPath(name).parent)
    return f"{config.extra['repository']}/{'tree' if os.path.isdir(path) else 'blob'}/main/{path}"


def on_post_page(output: str, page: Page, **_: object) -> str:
    """Load Mermaid from this site, on the pages that have a diagram; the theme would load it from another host."""
    if DIAGRAM not in output:
        return output
    root = os.path.relpath(".", PurePosixPath(page.url).parent)
    return output.replace("</head>", f'<script src="{root}/assets/mermaid.js"></script></head>', 1)


def script(name: str) -> bytes:
    """Return a script of an npm package, from the cache or the registry; raise ValueError for another content."""
    package, member, digest = SCRIPTS[name]
    cached = CACHE / f"{digest[:16]}-{name}"
    if not cached.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", package, "--silent", "--pack-destination", str(CACHE)]
        archive = CACHE / subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        with tarfile.open(archive) as packed:
            found = packed.extractfile(f"package/{member}")
            assert found is not None
            cached.write_bytes(found.read())
        archive.unlink()
    content = cached.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        cached.unlink()
        raise ValueError(f"{package}: {member} has another SHA-256 than ops/docs/site.py.")
    return content
