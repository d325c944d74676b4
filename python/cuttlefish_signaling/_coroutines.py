"""Coroutines of hooks: each runs as a task of an event loop, and is cancelled when its result is no longer needed."""

from __future__ import annotations

import inspect
import threading
from collections import deque
from contextvars import copy_context

from .errors import HookError

TYPE_CHECKING = False

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable
    from typing import Any

    from . import _native


class HookLoop:
    """An event loop that runs the coroutines of hooks. It is woken once for all that wait for it.

    Args:
        loop: The event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._waiting: deque[HookCoroutine] = deque()
        self._is_woken = False

    def begin(self, coroutine: HookCoroutine) -> None:
        """Begins a coroutine on the loop, from any thread. Raises RuntimeError if the loop is closed."""
        if self.loop.is_closed():
            raise RuntimeError("Event loop is closed")
        self._waiting.append(coroutine)
        if not self._is_woken:
            self._is_woken = True
            try:
                self.loop.call_soon_threadsafe(self._begin_all)
            except BaseException:
                self._is_woken = False
                self._waiting.remove(coroutine)
                raise

    def _begin_all(self) -> None:
        self._is_woken = False  # First: a coroutine that comes from here on wakes the loop again.
        for _ in range(len(self._waiting)):
            self._waiting.popleft().begin()


class HookCoroutine:
    """The coroutine that a hook returned for one job.

    Args:
        job: The job.
        awaitable: The coroutine, or another awaitable.
        size: For the filter: the number of members of the device info before the call.
        loop: The event loop that runs it.
        settle: Settles the job with the result.
        done: Is called at the end with the exception, or None.
    """

    def __init__(
        self,
        job: _native.Job,
        awaitable: Awaitable[Any],
        size: int | None,
        loop: HookLoop,
        settle: Callable[[_native.Job, Any, int | None], None],
        done: Callable[[_native.Job, BaseException | None], None],
    ) -> None:
        self._job, self._awaitable, self._size = job, awaitable, size
        self._queue, self._loop = loop, loop.loop
        self._context = copy_context()
        self._settle, self._done = settle, done
        self._task: asyncio.Task[None] | None = None
        self._has_started = False
        self._is_given_up = False

    def start(self) -> None:
        """Runs it on the loop, from any thread."""
        try:
            self._queue.begin(self)
        except RuntimeError as error:  # The loop is closed.
            self._close()
            raise HookError(
                "the event loop that started the server is closed; stop the server before the loop closes"
            ) from error

    def cancel(self) -> None:
        """Cancels it, from any thread: its result is no longer needed."""
        self._is_given_up = True
        try:
            self._loop.call_soon_threadsafe(self._cancel)
        except RuntimeError:
            pass  # The loop is closed, and runs nothing any more.

    @property
    def device_id(self) -> str | None:
        """The device concerned, if it is known."""
        return self._job.device_id

    @property
    def delay(self) -> str | None:
        """Why it has not started yet; None if it has."""
        if self._has_started:
            return None
        if self._loop.is_running():
            return "its event loop is busy, and has not started the coroutine of the hook"
        return "the event loop that started the server does not run, so the coroutine of the hook has not started"

    def begin(self) -> None:
        """Creates its task. Called by the loop."""
        if self._is_given_up or not self._job.wanted:
            self._is_given_up = True
            self._close()
            self._done(self._job, None)
            return
        running = self._run()
        try:
            # In the context of the thread that called the hook.
            self._task = self._context.run(self._loop.create_task, running)
        except BaseException as error:  # Other coroutines begin in the same step of the loop.
            running.close()
            self._close()
            self._done(self._job, error)
            return
        self._task.add_done_callback(self._end)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _close(self) -> None:
        if inspect.iscoroutine(self._awaitable):
            self._awaitable.close()

    async def _run(self) -> None:
        self._has_started = True
        try:
            self._settle(self._job, await self._awaitable, self._size)
        except SystemExit as error:
            # It would end the loop, on which other coroutines run.
            raise HookError(f"hook {self._job.hook} raised SystemExit") from error

    def _end(self, task: asyncio.Task[None]) -> None:
        # A task keeps its exception, whose traceback has this object: a cycle, unless it is broken here.
        self._task = None
        if not self._has_started:
            self._close()
        if not task.cancelled():
            self._done(self._job, task.exception())
        elif self._is_given_up:
            self._done(self._job, None)
        else:
            what = f"hook {self._job.hook} raised CancelledError, or its task was cancelled by another than the server"
            self._done(self._job, HookError(what))


class LoopThread:
    """An event loop on its own thread, for `async def` hooks of a server that was started without an event loop."""

    def __init__(self) -> None:
        import asyncio

        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, name="cuttlefish-hook-loop", daemon=True)
        try:
            self.thread.start()
        except BaseException:
            self.loop.close()
            raise

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
        """Stops the loop, and cancels its tasks."""
        try:
            self.loop.call_soon_threadsafe(self.loop.stop)
        except RuntimeError:
            pass  # The loop is closed already.
