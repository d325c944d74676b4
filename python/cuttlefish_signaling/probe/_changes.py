"""Waits for conditions that several tasks can make true."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ._deadline import DeadlineError, within


class Changes:
    """An event that waits look at again and again."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self, *_: object) -> None:
        """Wakes the waits. It takes the arguments of any callback."""
        self._event.set()

    async def until(self, condition: Callable[[], object], seconds: float) -> bool:
        """Waits until the condition holds, for so many seconds at most. Returns whether it holds."""

        async def wait() -> None:
            while not condition():
                self._event.clear()
                await self._event.wait()

        try:
            await within(seconds, wait())
        except DeadlineError:
            return bool(condition())
        return True
