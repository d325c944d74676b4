"""An event loop whose clock runs only while the loop waits.

A timeout in it does not end because the machine is busy. That holds where all peers run in the loop.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


class IdleSelector(selectors.DefaultSelector):
    """Counts the seconds that it waits, and of each wait no more than it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = 0.0
        """Seconds."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        begin = time.monotonic()
        ready = super().select(timeout)
        waited = time.monotonic() - begin
        self.idle += waited if timeout is None else timeout if not ready else min(waited, timeout)
        return ready


class IdleClockLoop(asyncio.SelectorEventLoop):
    """Its `time()` is that of its selector."""

    def __init__(self) -> None:
        self._idle_selector = IdleSelector()
        super().__init__(self._idle_selector)

    def time(self) -> float:
        return self._idle_selector.idle


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine, as `asyncio.run` does: then ends what is left in the loop."""
    loop = IdleClockLoop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main)
    finally:
        loop.run_until_complete(_end(asyncio.all_tasks(loop)))
        asyncio.set_event_loop(None)
        loop.close()


async def _end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    loop = asyncio.get_running_loop()
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()
