"""Calls hooks: a job of the core in, its result or its failure out. Imported with the first call of a hook."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import AsyncIterable
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from ._coroutines import HookCoroutine, HookLoop, LoopThread
from ._hook_failure import HookFailure
from ._hook_values import address_of, arguments, gathered, settle
from .errors import HookError, HookResultError, Refused

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from . import _native

_PLAIN = (dict, list, str, type(None))
"""Types of results that are never awaited. Most results have one of them."""


class HookCalls:
    """The calls of the hooks of one server, and the coroutines that they have returned.

    Args:
        hooks: The hooks by name, which may be replaced.
        most: The most bytes of a result, as JSON.
        loop: The event loop that has started the server, if one has.
        keep: Records a failure, calls a function that tells the peer, and logs the failure.
    """

    def __init__(
        self,
        hooks: dict[str, Callable[..., Any] | None],
        most: int,
        loop: asyncio.AbstractEventLoop | None,
        keep: Callable[[HookFailure, Callable[[], None]], None],
    ) -> None:
        self.most = most
        self._hooks = hooks
        self._loop = loop
        self._keep = keep
        self._lock = threading.Lock()
        self._coroutines: dict[int, HookCoroutine] = {}
        self._hook_loop: HookLoop | None = None
        self._own_loop: LoopThread | None = None
        self._closed = False

    def close(self) -> threading.Thread | None:
        """Cancels the coroutines. Returns the thread of their event loop, if it has one."""
        with self._lock:
            self._closed = True
            own_loop, coroutines = self._own_loop, list(self._coroutines.values())
        for coroutine in coroutines:
            coroutine.cancel()
        if own_loop is None:
            return None
        own_loop.stop()
        return own_loop.thread

    @property
    def own_loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop of the hooks, if it has a thread of its own that runs."""
        with self._lock:
            return None if self._closed or self._own_loop is None else self._own_loop.loop

    def coroutine(self, key: int) -> HookCoroutine | None:
        """The coroutine of a job, while it runs."""
        return self._coroutines.get(key)

    @property
    def coroutine_count(self) -> int:
        """The number of coroutines that run."""
        return len(self._coroutines)

    def answer(self, job: _native.Job) -> None:
        """Calls the hook of a job, and settles the job now, or when the coroutine of the hook has ended."""
        name = job.hook
        hook = self._hooks[name]
        try:
            if hook is None:
                raise HookResultError(f"there is no hook {name}")
            given, size = arguments(job, name)
            result = hook(*given)
            if type(result) is CoroutineType:
                self._await(job, result, size)
            elif type(result) in _PLAIN:
                settle(job, name, result, self.most, size)
            else:
                if name == "ice_servers" and isinstance(result, AsyncIterable):
                    result = gathered(result)
                if inspect.isawaitable(result):
                    self._await(job, result, size)
                else:
                    settle(job, name, result, self.most, size)
        except BaseException as error:  # An exception in a hook ends the job, not the thread.
            self._failed(job, error)

    def _failed(self, job: _native.Job, error: BaseException) -> None:
        if isinstance(error, Refused):
            try:
                job.refuse(error.reason, error.status)
                return
            except TypeError as wrong:
                error = HookResultError(f"{job.hook} raised {error!r} with an invalid reason or status: {wrong}")
        self._keep(HookFailure(job.hook, job.device_id, address_of(job), error, time.time(), job.role), job.fail)

    # Coroutines ------------------------------------------------------------------------------------------------------

    def _settle(self, job: _native.Job, result: Any, size: int | None) -> None:
        settle(job, job.hook, result, self.most, size)

    def _await(self, job: _native.Job, awaitable: Any, size: int | None) -> None:
        try:
            coroutine = HookCoroutine(job, awaitable, size, self._event_loop(), self._settle, self._ended)
        except BaseException:
            if inspect.iscoroutine(awaitable):
                awaitable.close()
            raise
        key = job.key
        with self._lock:
            self._coroutines[key] = coroutine
        try:
            coroutine.start()
        except BaseException:
            with self._lock:
                self._coroutines.pop(key, None)
            raise
        if not job.wanted:
            # The job was given up before the coroutine was stored, so `abandon` did not find it. If it has ended, that
            # has no effect.
            coroutine.cancel()

    def _ended(self, job: _native.Job, error: BaseException | None) -> None:
        with self._lock:
            self._coroutines.pop(job.key, None)
        if error is not None:
            self._failed(job, error)
        else:
            job.fail()  # No effect if the hook has settled the job.

    def _event_loop(self) -> HookLoop:
        with self._lock:
            if self._closed and self._loop is None:
                raise HookError("the server is stopping")
            if self._hook_loop is None:
                loop = self._loop
                if loop is None:
                    self._own_loop = LoopThread()
                    loop = self._own_loop.loop
                self._hook_loop = HookLoop(loop)
            return self._hook_loop
