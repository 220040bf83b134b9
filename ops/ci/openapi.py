"""`on-time ci openapi`: write openapi.json, the contract with clients, whose changes are to be reviewed."""

from __future__ import annotations

from pathlib import Path

from app.api.application import create_app
from app.api.contract import text
from app.settings import Settings

FILE = Path("openapi.json")


def write() -> str:
    """Write the OpenAPI document of a service with default settings; return a message."""
    FILE.write_text(text(create_app(Settings())), encoding="utf-8")
    return f"{FILE} is written; `git diff {FILE}` shows what changed for clients."
