"""The problem's section of params.yaml."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stages.sections import Band, Coverage, Positive


class Params(Coverage):
    """Coverage and sizes of the raw tables, lookups and scenarios."""

    flights_per_day: Band
    extra_airports: dict[str, Annotated[tuple[float, float, str], Field(strict=False)]]
    holiday_reach_days: Positive
    years: Annotated[tuple[int, int], Field(strict=False)]
    weather_age_hours: list[Positive]
