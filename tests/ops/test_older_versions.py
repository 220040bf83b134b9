"""Versions whose manifest has no rows: the commit tells until when they were trained, or nothing does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click
import pytest
import yaml

from app.interface import NAME
from app.model import bundle as model
from ops.registry import commands as registry
from ops.registry.commands import PromotionRefused
from stages.files import write_json
from tests.support import scratch
from tests.support.promotion import Bench, fill


@pytest.mark.long
def test_the_commit_tells_what_an_older_version_was_trained_on(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "project"
    path.mkdir()
    for name in ("build", "params.yaml", "reports"):
        copy = shutil.copytree if (bench.path / name).is_dir() else shutil.copy
        copy(bench.path / name, path / name)
    manifest = path / "bundles/older" / model.MANIFEST_FILE
    shutil.copytree(bench.path / "bundles/better", manifest.parent)
    facts = json.loads(manifest.read_bytes())
    del facts["rows"]
    write_json(manifest, facts)
    monkeypatch.chdir(path)
    scratch.make_repository(path)
    older = fill(path, ["older"])["older"]
    client, p = bench.client, bench.params
    commit = client.get_model_version(NAME, older).tags["git.commit"]
    assert "is Production" in registry.promote(client, p, older)
    with pytest.raises(click.UsageError, match="can be loaded"):
        registry.promote(client, p, bench.versions["good"], without_champion=True)
    for unknown in ("0" * 40, ""):  # an empty name would be git's index
        client.set_model_version_tag(NAME, older, "git.commit", unknown)
        with pytest.raises(PromotionRefused, match=f"training of version {older} .*git fetch .*--without-champion"):
            registry.promote(client, p, bench.versions["good"], allow_equal=True)
    assert "by the floors, without" in registry.promote(client, p, bench.versions["good"], without_champion=True)
    client.set_model_version_tag(NAME, older, "git.commit", commit)
    late = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    late["featurize"]["train"][1] = "2013-11-01"
    Path("params.yaml").write_text(yaml.safe_dump(late), encoding="utf-8")
    client.set_model_version_tag(NAME, older, "git.commit", scratch.commit(path, "Train for a day more"))
    with pytest.raises(PromotionRefused, match="trained until 2013-11-01, the test rows begin on 2013-11-01"):
        registry.promote(client, p, older)
