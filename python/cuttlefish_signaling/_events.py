"""The thread that takes events from the Rust core: log records, changes that coroutines wait for, unanswered hooks."""

from __future__ import annotations

import _thread
import threading
from collections import deque

from ._log import WARNING, log, log_records, lowest_level, report

TYPE_CHECKING = False

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from . import _native
    from ._hooks import HookRunner

MAX_KEPT_ERRORS = 100


class EventThread:
    """The event thread of one server. It handles the events that the core queues, until the core has stopped.

    A thread of the module `_thread` waits for the first event, since it starts and ends in half of the time of a
    `threading.Thread`. With the first one a `threading.Thread` takes over. Most servers of tests have no event but log
    records that the logger is not enabled for: those of a short run are left to `close`.
    """

    def __init__(self, hooks: HookRunner, events: _native.Events) -> None:
        self._hooks = hooks
        self._events = events
        self._subscribers: dict[int, tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = {}
        self._last_key = 0
        self.errors: deque[str] = deque(maxlen=MAX_KEPT_ERRORS)
        """The last errors that the core has logged."""
        self.error_count: int = 0
        self.on_request: Callable[[_native.ProgramRequest], object] = lambda _request: None
        """Called with each request of the control API. It must not wait."""
        self.on_beat: Callable[[], object] = lambda: None
        """Called after each beat of the runtime, by this thread or by that of the hooks' event loop."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ended = _thread.allocate_lock()  # Held until the thread has ended.
        self._ended.acquire()
        _thread.start_new_thread(self._wait_first, ())

    def close(self, timeout: float) -> None:
        """Waits until all events are handled, for at most `timeout` seconds. The core must have stopped."""
        if self._thread is threading.current_thread():
            return  # A handler stops the server. The thread goes on with the other events.
        if self._ended.acquire(timeout=timeout):
            self._ended.release()
            self._run()  # Events that the thread has not taken.

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

    def _wait_first(self) -> None:
        if not self._events.wait_first(lowest_level()):
            self._ended.release()
            return
        self._thread = threading.Thread(target=self._work, name="cuttlefish-events", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # No thread can be started, because the interpreter exits.
            self._work()

    def _work(self) -> None:
        try:
            self._run()
        finally:
            self._ended.release()

    def _run(self) -> None:
        while (events := self._events.next(lowest_level())) is not None:
            try:
                self._handle(*events)
            except BaseException as error:  # The other events must not be lost with this one.
                report(error)
        self._notify()

    def _handle(
        self,
        records: _native.LogRecords,
        dropped: int,
        changed: bool,
        unanswered: list[tuple[str, str | None, str, float | None, int, str | None]],
        more_unanswered: int,
        abandoned: list[int],
        beat: bool,
        requests: list[_native.ProgramRequest],
    ) -> None:
        for request in requests:
            self.on_request(request)
        if beat:
            self._hooks.call_if_alive(self.on_beat)
        for message in log_records(records):
            self.errors.append(message)
            self.error_count += 1
        if dropped:
            text = "%d log records were dropped: the server logged faster than Python's logging could handle"
            log(WARNING, text, dropped, event="records_dropped", left_out=dropped)
        for call in unanswered:
            self._hooks.unanswered(*call)
        if more_unanswered:
            self._hooks.more_unanswered(more_unanswered)
        for key in abandoned:
            self._hooks.abandon(key)
        if changed:
            self._notify()

    def _notify(self) -> None:
        with self._lock:
            subscribers = list(self._subscribers.values())
        for loop, callback in subscribers:
            try:
                loop.call_soon_threadsafe(callback)
            except RuntimeError:
                pass  # The loop is closed, so none of its coroutines waits.
