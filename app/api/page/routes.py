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
from app.interface import DESCRIPTION, EXAMPLE, FEATURES, NAME, POSITIVE, ROWS, TITLE, Request
from app.model.served import ServedModel
from app.settings import Settings

STATIC = Path(__file__).parent / "static"
IMMUTABLE = "public, max-age=31536000, immutable"
CONTENT = {file.name: file.read_bytes() for file in sorted(STATIC.iterdir())}
DIGEST = hashlib.sha256(b"\0".join(part for name in CONTENT for part in (name.encode(), CONTENT[name]))).hexdigest()[
    :16
]
"""Part of the address of the static files, which therefore never change under their address."""

Encodings = Annotated[str, Header(alias="accept-encoding")]


def problem(settings: Settings) -> dict[str, Any]:
    """Return what the page needs to know of the problem and of the service, before any model is loaded."""
    return {
        "name": NAME,
        "rows": ROWS,
        "positive": POSITIVE,
        "schema": Request.model_json_schema(),
        "example": EXAMPLE,
        "features": {feature.name: feature._asdict() for feature in FEATURES},
        "keys": bool(settings.api_keys),
        "mlflow": settings.mlflow_url,
        "grafana": settings.grafana_url,
    }


def document(settings: Settings) -> bytes:
    """Return the page as HTML."""
    facts = json.dumps(problem(settings)).replace("<", "\\u003c")  # no end tag inside the element
    texts = {"title": TITLE, "description": DESCRIPTION, "base": f"{settings.root_path}/", "digest": DIGEST}
    filled = {name: html.escape(text) for name, text in texts.items()}
    links = {"Grafana": settings.grafana_url, "MLflow": settings.mlflow_url}
    filled["links"] = "".join(f'<li><a href="{html.escape(url)}">{name}</a></li>' for name, url in links.items() if url)
    return Template(CONTENT["index.html"].decode()).substitute(filled, problem=facts).encode()


def facts(served: ServedModel) -> dict[str, Any]:
    """Return what is known of the served model."""
    manifest = served.bundle.manifest
    return {
        "model": served.label.model_dump(),
        "alias": served.alias,
        "source": served.source,
        "run_id": served.run_id,
        "bundle_digest": served.bundle.digest,
        "threshold": served.bundle.threshold,
        "created": served.created,
        "loaded": served.loaded,
        "production": served.production.model_dump() if served.production else None,
        "rows": manifest.get("rows", {}),
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
    seen = app.state.recent

    @app.get("/", include_in_schema=False)
    async def index(encodings: Encodings = "") -> Response:
        return _sent(page, "text/html", encodings, "no-cache")

    @app.get("/page/static/{digest}/{name}", include_in_schema=False)
    async def static(digest: str, name: str, encodings: Encodings = "") -> Response:
        if name not in CONTENT or digest != DIGEST:
            raise HTTPException(404, f"The page has no file {name[:80]} of this release.")
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return _sent(CONTENT[name], kind, encodings, IMMUTABLE)

    @app.get("/page/model", include_in_schema=False)
    async def model(served: Served) -> dict[str, Any]:
        return facts(served)

    @app.get("/page/live", include_in_schema=False)
    async def recent() -> dict[str, Any]:
        found: dict[str, Any] = seen.facts()
        return found
