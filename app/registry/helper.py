"""`python -m app.registry.helper`: MLflow's client for `app.registry.client`, until its standard input ends."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from app.errors import OnTimeError
from app.registry import download, failures
from app.registry.registered import Registered


def execute(command: str, uri: str, name: str, *rest: str) -> Registered:
    """Carry out `find` (alias) or `export` (version, alias, folder) for a model in a registry."""
    if command == "find":
        (alias,) = rest
        return download.registered(download.find(uri, name, alias), alias)
    number, alias, folder = rest
    with failures.explaining(uri):
        version = download.connect(uri).get_model_version(name, number)
    return download.export(version, alias, uri, Path(folder))


def main() -> None:
    """Answer each line of standard input with one line on standard output."""
    replies, sys.stdout = sys.stdout, sys.stderr  # what libraries print is not a reply
    os.nice(5)  # requests come first
    os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")  # follows a file that is replaced
    for line in sys.stdin:
        try:
            reply = execute(*json.loads(line)).model_dump_json()
        except OnTimeError as err:
            reply = json.dumps({"error": type(err).__name__, "reason": str(err)})
        print(reply, file=replies, flush=True)


if __name__ == "__main__":
    main()
