"""`on-time monitor dashboards`: write the JSON of every board to ops/monitoring/config/grafana/dashboards."""

from __future__ import annotations

from pathlib import Path

from ops.monitoring.dashboards import containers, model, monitoring, service
from ops.monitoring.dashboards.build import to_json

OUT_DIR = Path("ops/monitoring/config/grafana/dashboards")
BOARDS = (service.BOARD, model.BOARD, containers.BOARD, monitoring.BOARD)


def write() -> None:
    """Write the files, and remove those of boards that are gone."""
    wanted = {OUT_DIR / f"{board.uid}.json": to_json(board) for board in BOARDS}
    for stale in set(OUT_DIR.glob("*.json")) - set(wanted):
        stale.unlink()
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")
        print(path)
