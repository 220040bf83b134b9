"""The version behind an alias, without MLflow's client: by one request over HTTP, or by one query of a SQLite file."""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from contextlib import closing
from pathlib import Path

from app.errors import ModelUnavailable, VersionMissing
from app.registry.address import sqlite_file
from app.registry.version import Registered

SECONDS = 5
"""To wait for a reply over HTTP."""
LOCKED_SECONDS = 1
"""To wait for a locked SQLite file; MLflow's client waits longer."""
CLIENT_ONLY = [f"MLFLOW_TRACKING_{name}" for name in ("AUTH", "CLIENT_CERT_PATH", "INSECURE_TLS", "SERVER_CERT_PATH")]
"""Variables that only MLflow's client applies to a request."""
MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's error codes for a model or an alias that does not exist."""
QUERY = """
SELECT version.version, version.run_id, version.creation_time, tag.key, tag.value
FROM registered_model_aliases AS alias
JOIN model_versions AS version USING (workspace, name, version)
LEFT JOIN model_version_tags AS tag USING (workspace, name, version)
WHERE workspace = 'default' AND name = ? AND alias = ?
"""


def find(uri: str, name: str, alias: str) -> Registered | None:
    """Return the version with an alias; None where MLflow's client has to be used.

    Raises VersionMissing if an HTTP registry has none, ModelUnavailable if the request fails.
    """
    if uri.startswith(("http://", "https://")) and not any(variable in os.environ for variable in CLIENT_ONLY):
        return find_by_http(uri, name, alias)
    file = sqlite_file(uri)
    return find_in_file(file, name, alias) if file else None


def find_in_file(file: Path, name: str, alias: str) -> Registered | None:
    """Return the version with an alias from MLflow's tables.

    Returns None if there is none or the file cannot be read: MLflow's client finds and reports the cause.
    """
    try:
        address = f"{file.resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, timeout=LOCKED_SECONDS, uri=True)) as connection:
            rows = connection.execute(QUERY, (name, alias)).fetchall()
    except sqlite3.Error:
        return None
    if not rows:
        return None
    version, run_id, created, *_ = rows[0]
    return Registered.of(name, version, alias, run_id, created, {key: value or "" for *_, key, value in rows})


def find_by_http(uri: str, name: str, alias: str) -> Registered:
    """Return the version with an alias from MLflow's REST API; raise ModelUnavailable if the request fails."""
    query = urllib.parse.urlencode({"name": name, "alias": alias})
    request = urllib.request.Request(f"{uri.rstrip('/')}/api/2.0/mlflow/registered-models/alias?{query}")
    user, password, token = (os.environ.get(f"MLFLOW_TRACKING_{key}") for key in ("USERNAME", "PASSWORD", "TOKEN"))
    if user and password:
        request.add_header("Authorization", f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}")
    elif token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as response:
            found = json.load(response)["model_version"]
        tags = {tag["key"]: tag["value"] for tag in found.get("tags", [])}
        facts = found["name"], found["version"], alias, found.get("run_id"), found["creation_timestamp"]
        return Registered.of(*facts, tags)
    except urllib.error.HTTPError as err:
        kind = VersionMissing if _code(err) in MISSING else ModelUnavailable
        raise kind(f"MLflow returned HTTP status {err.code} for the alias {alias} of {name}.") from err
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise ModelUnavailable(f"the request to MLflow for the alias {alias} of {name} failed: {err!r}") from err


def _code(err: urllib.error.HTTPError) -> str:
    """Return MLflow's error code from the body of a response; empty if it has none."""
    try:
        return str(json.load(err)["error_code"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
