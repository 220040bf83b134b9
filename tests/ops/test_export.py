"""A version as a folder, and the service on that folder with no registry."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from app.errors import ModelUnavailable
from app.interface import EXAMPLE
from app.registry import version as registry
from ops.registry import commands
from tests.support.promotion import Bench
from tests.support.service import started

FILES = ["manifest.json", "model.lgb", "version.json"]


def test_production_is_exported_and_a_service_with_no_registry_serves_it(bench: Bench, tmp_path: Path) -> None:
    commands.promote(bench.client, bench.params, bench.versions["good"])
    folder = tmp_path / "deep" / "copy"
    assert str(folder) in commands.export(bench.client, bench.params, folder, None)
    with started(tmp_path, ONTIME_BAKED_MODEL=str(folder)) as service:
        answer = httpx.post(f"{service.base}/predict", json=EXAMPLE).json()
        version = service.version()
    kept = registry.load(folder, "baked")
    assert answer["model"] == version["model"] == {"name": "flight-delay", "version": bench.versions["good"]}
    assert (version["source"], version["alias"]) == ("baked", "production")
    assert version["run_id"] == kept.run_id == bench.client.get_model_version(kept.name, kept.version).run_id
    assert version["bundle_digest"] == json.loads((folder / "version.json").read_text())["bundle_digest"]
    assert sorted(f.name for f in folder.iterdir()) == FILES


def test_a_version_that_is_not_production_is_exported_only_by_its_number(bench: Bench, tmp_path: Path) -> None:
    client, p = bench.client, bench.params
    with pytest.raises(ModelUnavailable, match="alias production"):
        commands.export(client, p, tmp_path / "copy", None)
    with pytest.raises(ModelUnavailable, match="no version 99"):
        commands.export(client, p, tmp_path / "copy", "99")
    assert not (tmp_path / "copy").exists()
    commands.export(client, p, tmp_path / "copy", bench.versions["weak"])
    kept = registry.load(tmp_path / "copy", "baked")
    assert (kept.version, kept.alias) == (bench.versions["weak"], "")
