"""The time limit of requests."""

from __future__ import annotations

import asyncio


class Budget:
    """Cancels requests that exceed their time limit; it is the same for all, so one timer, for the oldest, suffices.

    `asyncio.timeout` sets a timer per request, which costs a tenth of the time of a prediction.
    """

    def __init__(self, seconds: float) -> None:
        """Set the limit of every request, in seconds."""
        self.seconds = seconds
        self._deadlines: dict[asyncio.Task[None], float] = {}  # ordered by start
        self._late: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> asyncio.Task[None]:
        """Start the time limit of the request that the current task handles."""
        task = asyncio.current_task()
        assert task is not None
        loop = task.get_loop()
        self._deadlines[task] = deadline = loop.time() + self.seconds
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._expire, loop)
        return task

    def end(self, task: asyncio.Task[None]) -> bool:
        """End the time limit; return whether the request exceeded it, and undo its cancellation."""
        self._deadlines.pop(task, None)
        if task not in self._late:
            return False
        self._late.remove(task)
        task.uncancel()
        return True

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for task in [task for task, deadline in self._deadlines.items() if deadline <= now]:
            del self._deadlines[task]
            self._late.add(task)
            task.cancel()
        first = next(iter(self._deadlines.values()), None)
        self._timer = None if first is None else loop.call_at(first, self._expire, loop)
