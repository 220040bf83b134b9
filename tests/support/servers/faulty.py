"""The real service with faults to order: a share of errors, or a delay, read from a JSON file before each answer."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import uvicorn

from app.api.application import create_app
from app.settings import Settings

ORDERS = "FAULTS"
"""Variable with the path of the file: {"errors": share, "delay": seconds}."""


def main() -> None:
    """Serve."""
    settings = Settings()
    app = create_app(settings)
    answer = app.state.predictor.single

    def single(*arguments: Any, **options: Any) -> Any:
        orders = json.loads(Path(os.environ[ORDERS]).read_text(encoding="utf-8"))
        time.sleep(orders["delay"])
        if random.random() < orders["errors"]:
            raise RuntimeError("a fault that the test has ordered")
        return answer(*arguments, **options)

    app.state.predictor.single = single
    uvicorn.run(app, host=settings.host, port=settings.port, log_level="critical", access_log=False)


if __name__ == "__main__":
    main()
