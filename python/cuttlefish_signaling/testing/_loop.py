"""The event loop of the synchronous fake peers: one thread per process, which runs while there are such peers."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Generic, TypeVar

from ..errors import ForkedError

T = TypeVar("T")


class _Call(Generic[T]):
    """A coroutine that the loop runs for a thread that waits for it.

    `asyncio.run_coroutine_threadsafe` does the same with two futures and a condition, for twice the CPU time. Each
    method of a synchronous fake peer is such a call.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self._task: asyncio.Task[None] | None = None
        self._result: T
        self._error: BaseException | None = None
        self._ended = threading.Lock()  # Held until the coroutine has ended.
        self._ended.acquire()

    def start(self) -> None:
        """Starts the coroutine. Called by the loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            self._result = await self._coroutine
        except BaseException as error:
            self._error = error
        finally:
            self._ended.release()

    def cancel(self) -> None:
        """Cancels the coroutine. Called by the loop, after `start`."""
        if self._task is not None:
            self._task.cancel()

    def wait(self) -> None:
        """Waits until the coroutine has ended."""
        self._ended.acquire()

    def result(self) -> T:
        """Returns the result of the coroutine, or raises its exception. Called once, after `wait`."""
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # Otherwise the traceback and this object would keep each other alive.
        return self._result


class _SharedLoop:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process = 0

    def acquire(self) -> None:
        """Adds a user. Each `acquire` needs a `release`. The first one starts the thread."""
        with self._lock:
            if self._users and self._process != os.getpid():
                self._users = 0  # This process is a fork, which does not have the thread.
            if self._users == 0:
                self._process = os.getpid()
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="cuttlefish-fake-peers", daemon=True
                )
                self._thread.start()
            self._users += 1

    def release(self) -> None:
        """Removes a user. The last one stops the thread."""
        with self._lock:
            if self._process != os.getpid():
                return
            self._users -= 1
            if self._users or self._loop is None or self._thread is None:
                return
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine on the loop and returns its result. Ctrl-C cancels it."""
        if self._loop is None or self._process != os.getpid():
            coroutine.close()
            raise ForkedError("this fake peer was started in another process or is closed; start it in this process")
        loop, call = self._loop, _Call(coroutine)
        loop.call_soon_threadsafe(call.start)
        try:
            call.wait()
        except BaseException:
            with suppress(RuntimeError):  # Another thread may have closed the last peer, and the loop.
                loop.call_soon_threadsafe(call.cancel)
            raise
        return call.result()

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on the thread of the loop."""
        return threading.current_thread() is self._thread


shared_loop = _SharedLoop()
