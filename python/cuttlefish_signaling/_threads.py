"""Threads: a check that they are those of the system, which the server needs, and work that coroutines wait for."""

from __future__ import annotations

import sys
import threading

from .errors import UnsupportedError

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    _T = TypeVar("_T")

WHY = (
    "a server cannot run in this process: {} has replaced Python's threads by greenlets, and one that waits for the "
    "server would stop all others. Run `cuttlefish-signaling serve` as a process of its own, or {}"
)


def require_threads() -> None:
    """Raises UnsupportedError if gevent or eventlet has replaced the threads of this process."""
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and any(gevent.is_module_patched(name) for name in ("threading", "_thread", "thread")):
        raise UnsupportedError(WHY.format("gevent", "call `monkey.patch_all(thread=False)`"))
    eventlet = sys.modules.get("eventlet.patcher")
    if eventlet is not None and eventlet.is_monkey_patched("thread"):
        raise UnsupportedError(WHY.format("eventlet", "call `eventlet.monkey_patch(thread=False)`"))


async def in_thread(work: Callable[[], _T], hurry: Callable[[], object] | None = None) -> _T:
    """Runs a function on a thread of its own. The executor of the loop would keep its thread afterwards.

    A cancellation calls `hurry`, and is raised when the function has returned.
    """
    import asyncio

    loop, done = asyncio.get_running_loop(), asyncio.Event()
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append((work(), None))
        except BaseException as error:  # The caller raises it.
            outcome.append((None, error))
        try:
            loop.call_soon_threadsafe(done.set)
        except RuntimeError:
            pass  # The loop is closed, so no coroutine waits.

    thread = threading.Thread(target=run, name="cuttlefish-wait", daemon=True)
    thread.start()
    cancelled: asyncio.CancelledError | None = None
    while not done.is_set():
        try:
            await done.wait()
        except asyncio.CancelledError as error:
            # A stop takes a bounded time. It completes before the cancellation is raised.
            cancelled = error
            if hurry is not None:
                hurry()
    thread.join()
    value, failure = outcome[0]
    if cancelled is not None:
        raise cancelled
    if failure is not None:
        raise failure
    return value  # type: ignore[no-any-return]
