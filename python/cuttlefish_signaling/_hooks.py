"""Runs the user's hooks for the Rust core.

The core puts jobs in a queue. Threads of this module take a job, call the hook and settle the job. If the hook returns
a coroutine, the coroutine runs on an event loop and the thread takes the next job. Rust never calls into this module.
"""

from __future__ import annotations

import inspect
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._config import Settings, ice_json
from ._models import AuthorizeContext, FilterContext, Grant, IceContext, Peer
from .errors import HookError, HookResultError, HookTimeoutError, Refused

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures

    from . import _native

logger = logging.getLogger("cuttlefish_signaling")

MAX_KEPT_FAILURES = 100


@dataclass(frozen=True)
class HookFailure:
    """A hook that raised, timed out or returned an invalid result. Its peer received `Internal error`."""

    hook: str
    """`authorize`, `ice_servers` or `filter_device_info`."""
    device_id: str | None
    """The device concerned, if it is known."""
    peer: str
    """The address of the peer that the hook was called for."""
    error: BaseException
    """The exception, with its traceback; `HookTimeoutError` or `HookResultError` if the hook did not raise."""
    at: float
    """The time of the failure, in seconds since 1970."""


class HookRunner:
    """The hooks of one server, the threads that run them, and their failures."""

    def __init__(
        self, settings: Settings, ice_hook: Callable[..., Any] | None, loop: asyncio.AbstractEventLoop | None
    ) -> None:
        self.failures: deque[HookFailure] = deque(maxlen=MAX_KEPT_FAILURES)
        self.failure_count = 0
        self._hooks: dict[str, Callable[..., Any] | None] = {
            "authorize": settings.authorize,
            "filter_device_info": settings.filter_device_info,
            "ice_servers": ice_hook,
        }
        self._max_threads = settings.limits.hook_threads
        self._threads: set[threading.Thread] = set()
        self._coroutines: dict[int, concurrent.futures.Future[Any]] = {}
        self._lock = threading.Lock()
        self._loop = loop
        self._own_loop: _LoopThread | None = None
        self._closed = False

    def start(self, native: _native.Server) -> None:
        """Starts the first thread."""
        self._add_thread(native)

    def set_ice_hook(self, native: _native.Server, hook: Callable[..., Any]) -> None:
        """Sets the hook for ICE servers. A hook that a list has replaced stays set, for jobs that are in the queue."""
        self._hooks["ice_servers"] = hook
        if not self._threads:
            self._add_thread(native)

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

    def abandon(self, key: int) -> None:
        """Cancels the coroutine of a job whose result is no longer needed."""
        with self._lock:
            coroutine = self._coroutines.get(key)
        if coroutine is not None:
            coroutine.cancel()

    def timed_out(self, hook: str, peer: str, deadline: float) -> None:
        """Records and logs that a hook gave no answer in time."""
        error = HookTimeoutError(f"hook {hook} gave no answer for {peer} within {deadline:g} s")
        self._keep(HookFailure(hook, None, peer, error, time.time()))

    def _keep(self, failure: HookFailure) -> None:
        with self._lock:
            self.failures.append(failure)
            self.failure_count += 1
        logger.error("hook %s failed for %s: %s", failure.hook, failure.peer, failure.error, exc_info=failure.error)

    def _add_thread(self, native: _native.Server) -> None:
        with self._lock:
            if self._closed or len(self._threads) >= self._max_threads:
                return
            thread = threading.Thread(
                target=self._work, args=(native,), name=f"cuttlefish-hook-{len(self._threads) + 1}", daemon=True
            )
            self._threads.add(thread)
        thread.start()

    def _work(self, native: _native.Server) -> None:
        while (job := native.next_job()) is not None:
            if native.spare_hook_threads == 0:
                # This thread may hang in the hook. Another one has to take the next job.
                self._add_thread(native)
            if job.wanted:
                self._answer(job)
            del job

    def _answer(self, job: _native.Job) -> None:
        hook = self._hooks[job.hook]
        try:
            if hook is None:
                raise HookResultError(f"there is no hook {job.hook}")
            result = hook(*_arguments(job))
            if inspect.isawaitable(result):
                self._await(job, result)
            else:
                _settle_with(job, result)
        except BaseException as error:  # An exception in a hook ends the job, not the thread.
            self._failed(job, error)

    def _failed(self, job: _native.Job, error: BaseException) -> None:
        if isinstance(error, Refused):
            job.refuse(error.reason, error.status)
            return
        peer = Peer._of(job.peer)
        job.fail()
        self._keep(HookFailure(job.hook, job.device_id, f"{peer.address}:{peer.port}", error, time.time()))

    def _await(self, job: _native.Job, awaitable: Any) -> None:
        import asyncio

        coroutine = _settle(job, awaitable)
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._event_loop())
        except BaseException:
            coroutine.close()
            if inspect.iscoroutine(awaitable):
                awaitable.close()
            raise
        with self._lock:
            self._coroutines[job.key] = future
        future.add_done_callback(lambda done: self._settled(job, done))

    def _settled(self, job: _native.Job, future: concurrent.futures.Future[Any]) -> None:
        with self._lock:
            self._coroutines.pop(job.key, None)
        if future.cancelled():
            job.fail()
        elif (error := future.exception()) is not None:
            self._failed(job, error)

    def _event_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is not None:
            if self._loop.is_closed():
                raise HookError(
                    "the event loop that started the server is closed; stop the server before the loop closes"
                )
            return self._loop
        with self._lock:
            if self._closed:
                raise HookError("the server is stopping")
            if self._own_loop is None:
                self._own_loop = _LoopThread()
            return self._own_loop.loop


class _LoopThread:
    """An event loop on its own thread, for `async def` hooks of a server that was started without an event loop."""

    def __init__(self) -> None:
        import asyncio

        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, name="cuttlefish-hook-loop", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        import asyncio

        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        finally:
            self.loop.close()

    def stop(self) -> None:
        try:
            self.loop.call_soon_threadsafe(self.loop.stop)
        except RuntimeError:
            pass  # The loop is closed already.


async def _settle(job: _native.Job, awaitable: Coroutine[Any, Any, Any]) -> None:
    _settle_with(job, await awaitable)


def _settle_with(job: _native.Job, result: Any) -> None:
    if job.hook == "authorize" and isinstance(result, Grant):
        devices = None if result.devices is None else list(result.devices)
        job.settle(_result(job.hook, result.identity), devices)
    else:
        job.settle(_result(job.hook, result))


def _arguments(job: _native.Job) -> tuple[Any, ...]:
    peer = Peer._of(job.peer)
    if job.hook == "authorize":
        return (AuthorizeContext(job.role, peer),)
    if job.hook == "ice_servers":
        return (IceContext(job.role, job.device_id, peer),)
    return json.loads(job.info or "null"), FilterContext(job.device_id or "", peer, *job.place)


def _result(hook: str, result: Any) -> str | None:
    """Returns the result of a hook as JSON for the core. Raises HookResultError or ConfigError if it is invalid."""
    if hook == "ice_servers":
        return ice_json(result)
    if hook == "authorize":
        if result is None:
            return None
        if isinstance(result, bool):
            raise HookResultError(
                f"authorize returned {result}; raise Refused(...) to refuse the peer, or return an identity or None"
            )
    try:
        return json.dumps(result, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise HookResultError(f"{hook} returned a value that cannot be written as JSON: {error}") from error
