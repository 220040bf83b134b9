"""A registered version in a folder: what is loaded, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import BundleInvalid
from app.model.evaluation import EVALUATION_FILE, MOST_BYTES
from app.model.served import Production
from app.registry import version as registry


def test_a_copy_is_loaded_with_what_the_registry_said(baked: Path) -> None:
    served = registry.load(baked, "baked")
    assert (served.name, served.version, served.alias, served.source) == ("flight-delay", "7", "production", "baked")


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        (
            "version.json",
            lambda text: text.replace('"bundle_digest":"', '"bundle_digest":"0'),
            "not match the registry",
        ),
        ("version.json", lambda text: text[: len(text) // 2], "on-time model export"),
        ("version.json", lambda text: text.replace('"name"', '"nom"'), "on-time model export"),
        ("manifest.json", lambda text: text.replace('"threshold": 0.5', '"threshold": 0.4'), "not match the registry"),
        ("model.lgb", lambda text: text[: len(text) // 2], "not match its manifest"),
    ],
)
def test_a_copy_that_was_changed_is_refused(baked: Path, name: str, change: Callable[[str], str], reason: str) -> None:
    text = (baked / name).read_text()
    assert change(text) != text
    (baked / name).write_text(change(text))
    with pytest.raises(BundleInvalid, match=reason):
        registry.load(baked, "baked")


@pytest.mark.parametrize("name", ["version.json", "manifest.json", "model.lgb"])
def test_a_copy_that_lacks_a_file_is_refused(baked: Path, name: str) -> None:
    (baked / name).unlink()
    with pytest.raises(BundleInvalid, match="is not a"):
        registry.load(baked, "baked")


def test_a_copy_is_loaded_with_the_evaluation_of_its_bundle(baked: Path) -> None:
    facts = {"bundle_digest": registry.load(baked, "baked").bundle.digest, "test": {"roc_auc": 0.7}}
    (baked / EVALUATION_FILE).write_text(json.dumps(facts))
    assert registry.load(baked, "baked").evaluation == facts


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"bundle_digest": "%s"}' % (b"0" * 64), "not of bundle"),
        (b'{"test": {}}', "not of bundle"),
        (b"[]", "not of bundle"),
        (b'{"bundle_digest": "', "Unterminated"),
        (b"\xff", "utf-8"),
        (b"[" * 100_000, "recursion"),
        (b'{"bundle_digest": "DIGEST"}'.ljust(MOST_BYTES + 1), "more than 1,000,000 bytes"),
        (None, "none has been registered"),
    ],
)
def test_a_copy_with_another_evaluation_or_none_is_served_without_and_the_reason_is_logged_in_one_line(
    content: bytes | None, reason: str, baked: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    digest = registry.load(baked, "baked").bundle.digest.encode()
    caplog.clear()
    if content is not None:
        (baked / EVALUATION_FILE).write_bytes(content.replace(b"DIGEST", digest))
    assert registry.load(baked, "baked").evaluation is None
    (line,) = [record.getMessage() for record in caplog.records]
    assert reason in line and "\n" not in line


RECORD = {"since": 1.5, "action": "rollback", "by": "ada", "why": "late alerts", "run_id": "r"}


def registered(alias: str, record: str) -> registry.Registered:
    """Return a version that was found by an alias, and whose tag is this record."""
    return registry.Registered.of("m", "3", alias, "r", 1000, {registry.PRODUCTION_TAG: record})


def test_the_record_of_a_production_version_is_served_with_it(baked: Path) -> None:
    known = registered("production", json.dumps(RECORD))
    file = baked / registry.VERSION_FILE
    facts = json.loads(file.read_text()) | {"production": json.loads(known.model_dump_json())["production"]}
    file.write_text(json.dumps(facts))
    assert registry.load(baked, "baked").production == Production.model_validate(RECORD) == known.production


@pytest.mark.parametrize(
    ("alias", "record"),
    [
        ("staging", json.dumps(RECORD)),
        ("", json.dumps(RECORD)),
        ("production", "{}"),
        ("production", json.dumps(RECORD)[:-9]),
        ("production", json.dumps(RECORD | {"since": "long ago"})),
    ],
)
def test_a_damaged_record_or_one_of_a_version_that_is_not_production_is_none(alias: str, record: str) -> None:
    assert registered(alias, record).production is None
