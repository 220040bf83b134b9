"""The time that a request may take."""

from __future__ import annotations

import asyncio


class Budget:
    """Cancels requests that take too long; all have the same time, so one timer, for the oldest, is enough.

    `asyncio.timeout` does this with a timer for each request, which takes a tenth of the time of a prediction.
    """

    def __init__(self, seconds: float) -> None:
        """Give every request so many seconds."""
        self.seconds = seconds
        self._deadlines: dict[asyncio.Task[None], float] = {}  # in the order of their start
        self._late: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> asyncio.Task[None]:
        """Start the time of the request that this task serves."""
        task = asyncio.current_task()
        assert task is not None
        loop = task.get_loop()
        self._deadlines[task] = deadline = loop.time() + self.seconds
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._look, loop)
        return task

    def end(self, task: asyncio.Task[None]) -> bool:
        """Return whether the request was cancelled for being late; from now on it is not."""
        self._deadlines.pop(task, None)
        if task not in self._late:
            return False
        self._late.remove(task)
        task.uncancel()
        return True

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for task in [task for task, deadline in self._deadlines.items() if deadline <= now]:
            del self._deadlines[task]
            self._late.add(task)
            task.cancel()
        first = next(iter(self._deadlines.values()), None)
        self._timer = None if first is None else loop.call_at(first, self._look, loop)
