"""`make openapi`: write openapi.json, the contract that clients build on; a change of it belongs into the review."""

from __future__ import annotations

from pathlib import Path

from app.api.application import create_app
from app.api.contract import text
from app.settings import Settings

FILE = Path("openapi.json")


def main() -> None:
    """Write the contract of a service with default settings."""
    FILE.write_text(text(create_app(Settings())), encoding="utf-8")
    print(f"{FILE} is written; `git diff {FILE}` shows what changed for clients.")


if __name__ == "__main__":
    main()
