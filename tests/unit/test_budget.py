"""The time that a request may take."""

from __future__ import annotations

import asyncio

import pytest

from app.api.budget import Budget


async def _request(budget: Budget, seconds: float) -> bool:
    """Work for some seconds within the budget; return whether it was cut short."""
    task = budget.start()
    try:
        await asyncio.sleep(seconds)
        return budget.end(task)
    except asyncio.CancelledError:
        if not budget.end(task):
            raise
        await asyncio.sleep(0)  # the task can go on, to answer
        return True


def test_only_those_that_are_late_are_cut_short_and_can_still_answer() -> None:
    async def traffic() -> list[bool]:
        budget = Budget(1.0)
        first = [asyncio.create_task(_request(budget, seconds)) for seconds in (0.0, 60.0, 0.01, 60.0)]
        await asyncio.sleep(0.03)
        return await asyncio.gather(*first, *(_request(budget, seconds) for seconds in (0.03, 60.0)))

    assert asyncio.run(traffic()) == [False, True, False, True, False, True]


def test_the_timer_stops_with_the_last_request_and_starts_again() -> None:
    async def twice() -> list[bool]:
        budget = Budget(0.5)
        first = await _request(budget, 0.0)
        await asyncio.sleep(0.6)
        return [first, await _request(budget, 60.0)]

    assert asyncio.run(twice()) == [False, True]


def test_a_request_that_the_server_cancels_is_not_late() -> None:
    async def cancelled() -> None:
        task = asyncio.create_task(_request(Budget(5.0), 5.0))
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())
