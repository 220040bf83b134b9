"""Addresses of MLflow stores: their SQLite file, and their text without credentials."""

from __future__ import annotations

import re
from pathlib import Path


def sqlite_file(uri: str) -> Path | None:
    """Return the file of a SQLite address; None for one in memory and for other addresses."""
    match = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", uri)  # not by SQLAlchemy, whose import takes 0.5 s
    return Path(match[1]) if match and match[1] != ":memory:" else None


def without_password(text: str) -> str:
    """Return the text without the credentials of its URLs: user and password, and secrets in the query."""
    text = re.sub(r"://[^/?\s]*@", "://", text)  # up to the last @: a password may have one
    return re.sub(r"([?&][\w.-]*(?:pass|secret|token|key)[\w.-]*=)[^&\s'\")]+", r"\1***", text, flags=re.IGNORECASE)


def identity(uri: str) -> str:
    """Return what distinguishes a store from others: the absolute path of its file, or its URL without credentials."""
    file = sqlite_file(uri)
    return str(file.resolve()) if file else without_password(uri.rstrip("/"))
