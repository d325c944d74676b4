"""The event loop in the thread of the caller, for checks and for the texts of errors."""

from __future__ import annotations

import sys

from .errors import UnsupportedError

TYPE_CHECKING = False

if TYPE_CHECKING:
    import asyncio


def running_loop(what: str, instead: str) -> asyncio.AbstractEventLoop:
    """The asyncio loop that runs in this thread. Raises UnsupportedError on trio, and without a loop."""
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        here = "trio runs in this thread" if in_trio() else "no event loop runs in this thread"
        raise UnsupportedError(f"{what} works on asyncio only, and {here}: {instead}") from None


def in_trio() -> bool:
    """Whether the caller runs in trio."""
    trio = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_run())


def stood_still(instead: str) -> str:
    """The hint for a synchronous wait that was in vain, if an event loop runs in this thread; else empty.

    `instead` names the variant for coroutines.
    """
    # The module is there if a loop runs.
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and asyncio._get_running_loop() is not None:
        return f"; the event loop of this thread stood still during the wait, and its tasks with it: use {instead}"
    if in_trio():
        hint = "wait in trio.to_thread.run_sync()"
        return f"; the event loop of this thread stood still during the wait, and its tasks with it: {hint}"
    return ""
