"""Stage register: register the bundle as a model version, once, with the alias `staging`."""

from __future__ import annotations

from app.interface import NAME
from app.model import bundles
from stages import params
from stages.base import yaml_files
from stages.base.errors import run
from stages.base.paths import BUNDLE_DIR, METRICS_FILE, RECEIPT_FILE, write_json
from stages.evaluation.floors import decide_floors
from stages.evaluation.versions import register_bundle


def main() -> None:
    """Read bundle and metrics, register the bundle, and write the receipt, which is the same on every machine."""
    p = params.load()
    digest = bundles.load(BUNDLE_DIR / bundles.MODEL_FILE, BUNDLE_DIR / bundles.MANIFEST_FILE).digest
    measured = yaml_files.load(METRICS_FILE)
    decision = decide_floors(measured, p.gate)
    register_bundle(p, digest, measured["test"], decision)
    write_json(RECEIPT_FILE, {"model": NAME, "bundle_digest": digest, "floors": decision.accepted})


if __name__ == "__main__":
    run(main)
