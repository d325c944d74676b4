"""The thread that takes events from the Rust core: log records, changes that coroutines wait for, hook timeouts."""

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


class EventThread:
    """The event thread of one server. It handles the events that the core queues, until the core has stopped.

    The first event starts the thread. A server without events has no thread, so it starts and stops faster.
    """

    def __init__(self, hooks: HookRunner, native: _native.Server) -> None:
        self._hooks = hooks
        self._native = native
        self._subscribers: dict[int, tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = {}
        self._last_key = 0
        self.errors: deque[str] = deque(maxlen=MAX_KEPT_ERRORS)
        """The last errors that the core has logged."""
        self.error_count = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        native.on_first_event(self._start)

    def close(self, timeout: float) -> None:
        """Waits until all events are handled, for at most `timeout` seconds. The core must have stopped."""
        if self._thread is None:
            self._run()  # No event came, or no thread could be started.
        elif self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def subscribe(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> int:
        """Calls `callback` on the loop after each change, and at the end. Returns a key for `unsubscribe`."""
        with self._lock:
            self._last_key += 1
            self._subscribers[self._last_key] = (loop, callback)
            return self._last_key

    def unsubscribe(self, key: int) -> None:
        """Ends the calls."""
        with self._lock:
            self._subscribers.pop(key, None)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="cuttlefish-events", daemon=True)
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        while (events := self._native.next_events(logger.isEnabledFor)) is not None:
            records, dropped, changed, timeouts, abandoned = events
            for level, message in records:
                if level >= logging.ERROR:
                    self.errors.append(message)
                    self.error_count += 1
                logger.log(level, "%s", message)
            if dropped:
                logger.warning(
                    "%d log records were dropped: the server logged faster than Python's logging could handle", dropped
                )
            for hook, peer, deadline in timeouts:
                self._hooks.timed_out(hook, peer, deadline)
            for key in abandoned:
                self._hooks.abandon(key)
            if changed:
                self._notify()
        self._notify()

    def _notify(self) -> None:
        with self._lock:
            subscribers = list(self._subscribers.values())
        for loop, callback in subscribers:
            try:
                loop.call_soon_threadsafe(callback)
            except RuntimeError:
                pass  # The loop is closed, so none of its coroutines waits.
