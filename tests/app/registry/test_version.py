"""A registered version in a folder: what is loaded, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.errors import BundleInvalid
from app.model.evaluation import EVALUATION_FILE, MOST_BYTES
from app.model.served import Production
from app.registry import registered

RECORD = {"since": 1.5, "action": "rollback", "by": "ada", "why": "late alerts", "run_id": "r"}


def test_a_copy_is_loaded_as_registered(baked: Path) -> None:
    served = registered.load(baked, "baked")
    assert (served.name, served.version, served.alias, served.source) == ("flight-delay", "7", "production", "baked")
    facts = {"bundle_digest": served.bundle.digest, "test": {"roc_auc": 0.7}}
    (baked / EVALUATION_FILE).write_text(json.dumps(facts))
    assert registered.load(baked, "baked").evaluation == facts


@pytest.mark.parametrize(
    ("name", "old", "new", "reason"),
    [
        ("version.json", '"bundle_digest":"', '"bundle_digest":"0', "not match the registry"),
        ("version.json", '"name"', '"nom"', "on-time model export"),
        ("manifest.json", '"threshold": 0.5', '"threshold": 0.4', "not match the registry"),
        ("version.json", "{", "", "on-time model export"),
        ("model.lgb", "tree", "", "not match its manifest"),
    ],
)
def test_a_changed_copy_is_refused(baked: Path, name: str, old: str, new: str, reason: str) -> None:
    text = (baked / name).read_text()
    assert old in text
    (baked / name).write_text(text.replace(old, new))
    with pytest.raises(BundleInvalid, match=reason):
        registered.load(baked, "baked")


@pytest.mark.parametrize("name", ["version.json", "manifest.json", "model.lgb"])
def test_a_copy_that_lacks_a_file_is_refused(baked: Path, name: str) -> None:
    (baked / name).unlink()
    with pytest.raises(BundleInvalid, match="is not a"):
        registered.load(baked, "baked")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"bundle_digest": "%s"}' % (b"0" * 64), "not of bundle"),
        (b"[]", "not of bundle"),
        (b'{"bundle_digest": "', "Unterminated"),
        (b"\xff", "utf-8"),
        (b"[" * 100_000, "recursion"),
        (b"{}".ljust(MOST_BYTES + 1), "more than 1,000,000 bytes"),
        (None, "none has been registered"),
    ],
)
def test_a_model_is_served_without_an_evaluation(
    content: bytes | None, reason: str, baked: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    if content is not None:
        (baked / EVALUATION_FILE).write_bytes(content)
    assert registered.load(baked, "baked").evaluation is None
    (line,) = [record.getMessage() for record in caplog.records]
    assert reason in line and "\n" not in line


@pytest.mark.parametrize(
    ("alias", "record", "valid"),
    [
        ("production", json.dumps(RECORD), True),
        ("staging", json.dumps(RECORD), False),
        ("", json.dumps(RECORD), False),
        ("production", "{}", False),
        ("production", json.dumps(RECORD)[:-9], False),
        ("production", json.dumps(RECORD | {"since": "long ago"}), False),
    ],
)
def test_only_production_has_a_record(alias: str, record: str, valid: bool, baked: Path) -> None:
    known = registered.Registered.of("m", "3", alias, "r", 1000, {registered.PRODUCTION_TAG: record})
    assert known.production == (Production.model_validate(RECORD) if valid else None)
    file = baked / registered.VERSION_FILE
    facts = json.loads(file.read_text()) | {"production": json.loads(known.model_dump_json())["production"]}
    file.write_text(json.dumps(facts))
    assert registered.load(baked, "baked").production == known.production
