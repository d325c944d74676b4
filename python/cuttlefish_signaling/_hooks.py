"""Runs the user's hooks for the Rust core.

The core puts jobs in a queue. Threads of this module take a job, call the hook and settle the job. If the hook returns
a coroutine, the coroutine runs on an event loop and the thread takes the next job. Rust never calls into this module.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque

from ._log import ERROR, WARNING, log
from .errors import HookTimeoutError

# A server without hooks has a runner too. The thread that calls a hook imports the modules for it.
TYPE_CHECKING = False

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

    from . import _native
    from ._config import Settings
    from ._hook_calls import HookCalls
    from ._hook_failure import HookFailure
    from ._limits import Limits

MAX_KEPT_FAILURES = 100

ADVICE = "A `def` hook keeps its thread until it returns: write a hook that may hang as `async def`"


_ROLES = {"filter_device_info": "client"}
"""The role of the peers for which a hook is called, where there is one only."""


class HookRunner:
    """The hooks of one server, the threads that run them, and their failures."""

    def __init__(
        self,
        settings: Settings,
        ice_hook: Callable[..., Any] | None,
        loop: asyncio.AbstractEventLoop | None,
        events: _native.Events,
    ) -> None:
        self.failures: deque[HookFailure] = deque(maxlen=MAX_KEPT_FAILURES)
        self.failure_count: int = 0
        self._hooks: dict[str, Callable[..., Any] | None] = {
            "authorize": settings.authorize,
            "filter_device_info": settings.filter_device_info,
            "ice_servers": ice_hook,
        }
        self._events = events
        self._max_threads = settings.limits.hook_threads
        self._most = settings.limits.max_message_size
        self._threads: set[threading.Thread] = set()
        self._calls: HookCalls | None = None  # From the first call on.
        self._lock = threading.Lock()
        self._loop = loop
        self._closed = False

    def start(self) -> None:
        """Starts the first thread."""
        self._add_thread()

    def set_hook(self, name: str, hook: Callable[..., Any]) -> None:
        """Sets a hook. One that is not called any more stays set, for jobs that are in the queue."""
        self._hooks[name] = hook
        self.start_if_needed()

    def start_if_needed(self) -> None:
        """Starts the first thread, unless there is one."""
        if not self._threads:
            self._add_thread()

    def set_limits(self, limits: Limits) -> None:
        """Replaces the limits. Threads beyond a new number end with the server."""
        self._max_threads = limits.hook_threads
        self._most = limits.max_message_size
        if self._calls is not None:
            self._calls.most = self._most

    def close(self, timeout: float) -> list[str]:
        """Waits for the threads, for at most `timeout` seconds. Returns the names of those that hang in a hook."""
        deadline = time.monotonic() + timeout
        with self._lock:
            self._closed = True
            threads, calls = list(self._threads), self._calls
        if calls is not None and (of_loop := calls.close()) is not None:
            threads.append(of_loop)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        return [thread.name for thread in threads if thread.is_alive() and thread is not threading.current_thread()]

    def call_if_alive(self, callback: Callable[[], object]) -> None:
        """Calls a function, on the event loop of the hooks if there is one: not while a hook blocks that loop."""
        calls = self._calls
        loop = None if calls is None else calls.own_loop
        if loop is None:
            callback()
            return
        try:
            loop.call_soon_threadsafe(callback)
        except RuntimeError:
            callback()  # The loop was closed meanwhile, since the server stops.

    @property
    def coroutine_count(self) -> int:
        """The number of coroutines of hooks that run."""
        return 0 if self._calls is None else self._calls.coroutine_count

    # Calls without an answer -----------------------------------------------------------------------------------------

    def abandon(self, key: int) -> None:
        """Cancels the coroutine of a job whose result is no longer needed."""
        coroutine = None if self._calls is None else self._calls.coroutine(key)
        if coroutine is not None:
            coroutine.cancel()

    def unanswered(
        self, hook: str, device_id: str | None, peer: str, deadline: float | None, key: int, not_called: str | None
    ) -> None:
        """Records and logs that a hook gave no answer in time, or that it was not called."""
        coroutine = None if self._calls is None else self._calls.coroutine(key)
        within = "" if deadline is None else f" within {deadline:g} s"
        if not_called is not None:
            text = f"hook {hook} was not called for {peer}{within}: {not_called}. {ADVICE}"
        else:
            text = f"hook {hook} gave no answer for {peer}{within}"
            if coroutine is not None:
                device_id = coroutine.device_id
                text += f": {coroutine.delay}" if coroutine.delay else ""
        from ._hook_failure import HookFailure

        self._keep(HookFailure(hook, device_id, peer, HookTimeoutError(text), time.time(), _ROLES.get(hook, "")))

    def more_unanswered(self, count: int) -> None:
        """Counts and logs further calls without an answer, for which there was no room."""
        with self._lock:
            self.failure_count += count
        text = "%d more calls of hooks had no answer; they are not logged one by one"
        log(ERROR, text, count, event="hook_failures_dropped", left_out=count)

    def _keep(self, failure: HookFailure, tell: Callable[[], None] = lambda: None) -> None:
        with self._lock:
            self.failures.append(failure)
            self.failure_count += 1
        tell()  # A peer that has heard of it finds it in `failures`. The log may take longer.
        fields = {"hook": failure.hook, "device_id": failure.device_id, "peer": failure.peer, "role": failure.role}
        reason = str(failure.error) or repr(failure.error)
        log(ERROR, "%s", failure, event="hook_failed", error=failure.error, reason=reason, **fields)

    # Threads ---------------------------------------------------------------------------------------------------------

    def _add_thread(self) -> None:
        with self._lock:
            if self._closed or len(self._threads) >= self._max_threads:
                return
            name = f"cuttlefish-hook-{len(self._threads) + 1}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.add(thread)
        try:
            thread.start()
        except BaseException:
            with self._lock:
                self._threads.discard(thread)
            raise

    def _work(self) -> None:
        finished = None
        while (taken := self._events.next_job(finished)) is not None:
            job, is_last_thread = taken
            finished = job.key
            if is_last_thread:
                # This thread may hang in the hook. Another one has to take the next job.
                self._add_another_thread()
            if job.wanted:
                (self._calls or self._import_calls()).answer(job)
            del job, taken

    def _import_calls(self) -> HookCalls:
        from ._hook_calls import HookCalls

        with self._lock:
            if self._calls is None:
                self._calls = HookCalls(self._hooks, self._most, self._loop, self._keep)
                if self._closed:
                    self._calls.close()
            return self._calls

    def _add_another_thread(self) -> None:
        try:
            self._add_thread()
        except RuntimeError as error:
            if not sys.is_finalizing():
                text = "cannot start another hook thread, trying again with the next call: %s"
                log(WARNING, text, error, event="hook_thread_failed", reason=str(error))
