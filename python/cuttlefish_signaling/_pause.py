"""A wait with a timeout for coroutines."""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    import asyncio


async def wait_event(event: asyncio.Event, seconds: float | None) -> None:
    """Waits until the event is set, for at most `seconds`. It is set afterwards, also when the time is over.

    `asyncio.wait_for` is not used: before Python 3.12 it loses a cancellation that comes in the turn of the event.
    """
    import asyncio

    timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, event.set)
    try:
        await event.wait()
    finally:
        if timer is not None:
            timer.cancel()
