"""openapi.json is what clients build on: it changes when somebody means it to."""

from __future__ import annotations

from app.api.application import create_app
from app.api.contract import render_contract
from app.settings import Settings
from tests.conftest import ROOT


def test_the_committed_contract_is_that_of_the_code() -> None:
    committed = (ROOT / "openapi.json").read_text(encoding="utf-8")
    assert (
        render_contract(create_app(Settings())) == committed
    ), "the API changed: `on-time ci openapi`, and commit what it writes"
