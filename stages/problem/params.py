"""The problem's section of params.yaml."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from app.problem.request import FIRST_DEPARTURE
from stages.problem_kit.params import Band, Coverage, Positive


class Params(Coverage):
    """Coverage and sizes of the raw tables, lookups and scenarios."""

    flights_per_day: Band
    extra_airports: dict[str, Annotated[tuple[float, float, str], Field(strict=False)]]
    holiday_reach_days: Positive
    years: Annotated[tuple[int, int], Field(strict=False)]
    weather_age_hours: list[Positive]

    @field_validator("years")
    @classmethod
    def _of_requests(cls, years: tuple[int, int]) -> tuple[int, int]:
        if years[0] > FIRST_DEPARTURE.year:
            raise ValueError(f"must begin with {FIRST_DEPARTURE.year}, as requests may (app/problem/request.py)")
        return years
