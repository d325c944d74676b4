"""The event loop of the synchronous fake peers: one thread per process, which runs while there are such peers."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from ..errors import ForkedError

T = TypeVar("T")


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
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on the thread of the loop."""
        return threading.current_thread() is self._thread


shared_loop = _SharedLoop()
