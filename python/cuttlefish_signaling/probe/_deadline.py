"""Deadlines of steps, and an event loop on which a look-up of a name cannot hold the end of the process."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class DeadlineError(Exception):
    """A step has not ended in time."""


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Runs work for so many seconds at most. Raises DeadlineError, after the work was cancelled.

    Not `asyncio.wait_for`: before Python 3.12 it loses a cancellation that comes in the turn of the result.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task], timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=CANCEL_SECONDS)
    if task.cancelled() or not task.done():
        raise DeadlineError
    return task.result()


CANCEL_SECONDS = 2.0
"""Seconds that cancelled work has for its end: it closes sockets. After them the probe goes on without it."""


async def look_up(host: str, port: int, **options: Any) -> list[Any]:
    """`socket.getaddrinfo` on a thread of its own. A process ends although its DNS servers do not answer.

    The threads of asyncio's executor hold the end of the process, for the minute that a resolver may take.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Any]] = loop.create_future()

    def tell(found: list[Any] | None, error: Exception | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(found or [])

    def ask() -> None:
        found, failure = None, None
        try:
            found = socket.getaddrinfo(host, port, **options)
        except (OSError, UnicodeError) as error:  # UnicodeError: a label of more than 63 bytes.
            failure = error
        try:
            loop.call_soon_threadsafe(tell, found, failure)
        except RuntimeError:
            pass  # The loop is closed: the step is over.

    threading.Thread(target=ask, name="cuttlefish-signaling-probe-dns", daemon=True).start()
    return await answer


class ProbeLoop(asyncio.SelectorEventLoop):
    """An event loop whose look-ups run on threads that do not hold the end of the process."""

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[Any]:
        """Looks up a name, also for libraries."""
        return await look_up(host, port, family=family, type=type, proto=proto, flags=flags)
