"""The routes of the page: its HTML, its static files by digest, and the JSON that it shows."""

from __future__ import annotations

import gzip
import hashlib
import html
import json
import mimetypes
from functools import cache
from pathlib import Path
from string import Template
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException, Response

from app.api.dependencies import Served
from app.interface import DESCRIPTION, EXAMPLE, FEATURES, NAME, POSITIVE, ROWS_NOUN, TITLE, Request
from app.model.served import ServedModel
from app.settings import Settings

CONTENT = {file.name: file.read_bytes() for file in sorted((Path(__file__).parent / "static").iterdir())}
DIGEST = hashlib.sha256(json.dumps({name: text.decode() for name, text in CONTENT.items()}).encode()).hexdigest()[:16]
"""Part of the address of the static files, which therefore never change under their address."""

Encodings = Annotated[str, Header(alias="accept-encoding")]


def document(settings: Settings) -> bytes:
    """Return the page as HTML, with the facts of the problem that do not depend on a model."""
    problem = {
        "name": NAME,
        "rows": ROWS_NOUN,
        "positive": POSITIVE,
        "schema": Request.model_json_schema(),
        "example": EXAMPLE,
        "features": {feature.name: feature._asdict() for feature in FEATURES},
        "keys": bool(settings.api_keys),
        "mlflow": settings.mlflow_url,
    }
    links = {"Grafana": settings.grafana_url, "MLflow": settings.mlflow_url}
    texts = {"title": TITLE, "description": DESCRIPTION, "base": f"{settings.root_path}/", "digest": DIGEST}
    filled = {name: html.escape(text) for name, text in texts.items()}
    filled["links"] = "".join(f'<li><a href="{html.escape(url)}">{name}</a></li>' for name, url in links.items() if url)
    filled["problem"] = json.dumps(problem).replace("<", "\\u003c")  # no end tag inside the element
    return Template(CONTENT["index.html"].decode()).substitute(filled).encode()


def facts(served: ServedModel) -> dict[str, Any]:
    """Return the facts of the served model."""
    return {
        "model": served.label.model_dump(),
        "alias": served.alias,
        "source": served.source,
        "bundle_digest": served.bundle.digest,
        "threshold": served.bundle.threshold,
        "created": served.created,
        "production": served.production.model_dump() if served.production else None,
        "rows": served.bundle.manifest.get("rows", {}),
        "vocabularies": served.bundle.lookups.vocabularies,
        "evaluation": served.evaluation,
    }


@cache
def _compressed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def _sent(content: bytes, kind: str, encodings: str, caching: str) -> Response:
    headers = {"Cache-Control": caching, "Vary": "Accept-Encoding"}
    if "gzip" in encodings:
        return Response(_compressed(content), media_type=kind, headers=headers | {"Content-Encoding": "gzip"})
    return Response(content, media_type=kind, headers=headers)


def install(app: FastAPI) -> None:
    """Add the routes of the page."""
    page = document(app.state.settings)
    live = app.state.recent

    @app.get("/", include_in_schema=False)
    async def index(encodings: Encodings = "") -> Response:
        return _sent(page, "text/html", encodings, "no-cache")

    @app.get("/page/static/{digest}/{name}", include_in_schema=False)
    async def static(digest: str, name: str, encodings: Encodings = "") -> Response:
        if name not in CONTENT or digest != DIGEST:
            raise HTTPException(404, f"The page has no file {name[:80]} of this release.")
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return _sent(CONTENT[name], kind, encodings, "public, max-age=31536000, immutable")

    @app.get("/page/model", include_in_schema=False)
    async def model(served: Served) -> dict[str, Any]:
        return facts(served)

    @app.get("/page/live", include_in_schema=False)
    async def recent() -> dict[str, Any]:
        return dict(live.facts())
