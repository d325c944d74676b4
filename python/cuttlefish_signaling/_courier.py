"""Carries what the Rust core has to tell into Python: log records, news for waiting coroutines, hooks that hang."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ._hooks import HookRunner

if TYPE_CHECKING:
    import asyncio

    from . import _native

logger = logging.getLogger("cuttlefish_signaling")

MAX_KEPT_ERRORS = 100


class Courier:
    """One thread of one server. It ends when the core has stopped and everything is delivered."""

    def __init__(self, hooks: HookRunner) -> None:
        self._hooks = hooks
        self._watchers: dict[int, tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = {}
        self._last_key = 0
        self.errors: deque[str] = deque(maxlen=MAX_KEPT_ERRORS)
        """What the core has logged as errors of its own."""
        self.error_count = 0
        self._lock = threading.Lock()
        self.thread: threading.Thread | None = None

    def start(self, native: _native.Server) -> None:
        """Starts the thread."""
        self.thread = threading.Thread(target=self._work, args=(native,), name="cuttlefish-courier", daemon=True)
        self.thread.start()

    def close(self, timeout: float) -> None:
        """Waits until all is delivered, at most so many seconds."""
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join(timeout)

    def watch(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> int:
        """Calls back on that loop whenever somebody comes or goes; returns a key for `unwatch`."""
        with self._lock:
            self._last_key += 1
            self._watchers[self._last_key] = (loop, callback)
            return self._last_key

    def unwatch(self, key: int) -> None:
        """No more calls."""
        with self._lock:
            self._watchers.pop(key, None)

    def _work(self, native: _native.Server) -> None:
        while (letters := native.next_letters(logger.isEnabledFor)) is not None:
            records, dropped, changed, timeouts, abandoned = letters
            for level, message in records:
                if level >= logging.ERROR:
                    self.errors.append(message)
                    self.error_count += 1
                logger.log(level, "%s", message)
            if dropped:
                logger.warning("%d log records were dropped: they came faster than logging took them", dropped)
            for hook, peer, deadline in timeouts:
                self._hooks.timed_out(hook, peer, deadline)
            for key in abandoned:
                self._hooks.abandon(key)
            if changed:
                self._ring()
        self._ring()

    def _ring(self) -> None:
        with self._lock:
            watchers = list(self._watchers.values())
        for loop, callback in watchers:
            try:
                loop.call_soon_threadsafe(callback)
            except RuntimeError:
                pass  # The loop is closed, and with it whoever waited there.
