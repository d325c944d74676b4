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
from .errors import HookError, HookResultError, HookTimeoutError, Refused

# A server without hooks has a runner too. The thread that calls a hook imports the modules for it.
TYPE_CHECKING = False

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

    from . import _native
    from ._config import Settings
    from ._coroutines import HookCoroutine, LoopThread
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
        self._coroutines: dict[int, HookCoroutine] = {}
        self._lock = threading.Lock()
        self._loop = loop
        self._own_loop: LoopThread | None = None
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

    def close(self, timeout: float) -> list[str]:
        """Waits for the threads, for at most `timeout` seconds. Returns the names of those that hang in a hook."""
        deadline = time.monotonic() + timeout
        with self._lock:
            self._closed = True
            threads, own_loop = list(self._threads), self._own_loop
            coroutines = list(self._coroutines.values())
        for coroutine in coroutines:
            coroutine.cancel()
        if own_loop is not None:
            own_loop.stop()
            threads.append(own_loop.thread)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        return [thread.name for thread in threads if thread.is_alive() and thread is not threading.current_thread()]

    def call_if_alive(self, callback: Callable[[], object]) -> None:
        """Calls a function, on the event loop of the hooks if there is one: not while a hook blocks that loop."""
        with self._lock:
            own_loop = None if self._closed else self._own_loop
        if own_loop is None:
            callback()
            return
        try:
            own_loop.loop.call_soon_threadsafe(callback)
        except RuntimeError:
            callback()  # The loop was closed meanwhile, since the server stops.

    # Calls without an answer -----------------------------------------------------------------------------------------

    def abandon(self, key: int) -> None:
        """Cancels the coroutine of a job whose result is no longer needed."""
        with self._lock:
            coroutine = self._coroutines.get(key)
        if coroutine is not None:
            coroutine.cancel()

    def unanswered(
        self, hook: str, device_id: str | None, peer: str, deadline: float | None, key: int, not_called: str | None
    ) -> None:
        """Records and logs that a hook gave no answer in time, or that it was not called."""
        with self._lock:
            coroutine = self._coroutines.get(key)
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

    def _keep(self, failure: HookFailure) -> None:
        with self._lock:
            self.failures.append(failure)
            self.failure_count += 1
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
        while (job := self._events.next_job(finished)) is not None:
            finished = job.key
            if self._events.spare_hook_threads == 0:
                # This thread may hang in the hook. Another one has to take the next job.
                self._add_another_thread()
            if job.wanted:
                self._answer(job)
            del job

    def _add_another_thread(self) -> None:
        try:
            self._add_thread()
        except RuntimeError as error:
            if not sys.is_finalizing():
                text = "cannot start another hook thread, trying again with the next call: %s"
                log(WARNING, text, error, event="hook_thread_failed", reason=str(error))

    def _answer(self, job: _native.Job) -> None:
        import inspect
        from collections.abc import AsyncIterable

        from ._hook_values import arguments, gathered

        hook = self._hooks[job.hook]
        try:
            if hook is None:
                raise HookResultError(f"there is no hook {job.hook}")
            result = hook(*arguments(job))
            if job.hook == "ice_servers" and isinstance(result, AsyncIterable):
                result = gathered(result)
            if inspect.isawaitable(result):
                self._await(job, result)
            else:
                self._settle(job, result)
        except BaseException as error:  # An exception in a hook ends the job, not the thread.
            self._failed(job, error)

    def _failed(self, job: _native.Job, error: BaseException) -> None:
        if isinstance(error, Refused):
            try:
                job.refuse(error.reason, error.status)
                return
            except TypeError as wrong:
                error = HookResultError(f"{job.hook} raised {error!r} with an invalid reason or status: {wrong}")
        job.fail()
        from ._hook_failure import HookFailure
        from ._hook_values import address_of

        self._keep(HookFailure(job.hook, job.device_id, address_of(job), error, time.time(), job.role))

    # Coroutines ------------------------------------------------------------------------------------------------------

    def _settle(self, job: _native.Job, result: Any) -> None:
        from ._hook_values import settle

        settle(job, result, self._most)

    def _await(self, job: _native.Job, awaitable: Any) -> None:
        import inspect

        from ._coroutines import HookCoroutine

        try:
            coroutine = HookCoroutine(job, awaitable, self._event_loop(), self._settle, self._ended)
        except BaseException:
            if inspect.iscoroutine(awaitable):
                awaitable.close()
            raise
        with self._lock:
            self._coroutines[job.key] = coroutine
        try:
            coroutine.start()
        except BaseException:
            with self._lock:
                self._coroutines.pop(job.key, None)
            raise
        if not job.wanted:
            # The job was given up before the coroutine was stored, so `abandon` did not find it.
            coroutine.cancel()

    def _ended(self, job: _native.Job, error: BaseException | None) -> None:
        with self._lock:
            self._coroutines.pop(job.key, None)
        if error is not None:
            self._failed(job, error)
        else:
            job.fail()  # No effect if the hook has settled the job.

    def _event_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is not None:
            return self._loop
        with self._lock:
            if self._closed:
                raise HookError("the server is stopping")
            if self._own_loop is None:
                from ._coroutines import LoopThread

                self._own_loop = LoopThread()
            return self._own_loop.loop
