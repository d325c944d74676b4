"""One run of a server, from start to stop: the core, its Python threads, and the waits for changes."""

from __future__ import annotations

import os
import threading
import time

from . import _native
from ._checks import check_seconds, check_text
from ._config import hook_names
from ._events import EventThread
from ._hooks import HookRunner
from ._log import WARNING, log
from ._view import SLICE, View
from .errors import ForkedError, NotRunningError

TYPE_CHECKING = False

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any, TypeVar

    from ._config import IceSource, Settings
    from ._limits import Limits

    _T = TypeVar("_T")

THREAD_TIMEOUT = 0.5
"""Seconds that a stop waits for hook threads, beyond the time given to peers."""


class Run(View):
    """A server that runs or has run. After the stop, its methods raise `NotRunningError`, which the core raises."""

    native: _native.Server

    def __init__(self, settings: Settings, ice: IceSource, loop: asyncio.AbstractEventLoop | None) -> None:
        self._lock = threading.RLock()  # A signal handler may call `stop` in a thread that holds it.
        self._stopper: int | None = None  # The thread that stops the server, or has stopped it.
        self._stopped = threading.Event()
        self._stopped_in_time = False
        self._is_draining = False
        self.reload: Callable[[], dict[str, Any] | None] = lambda: None
        """Reads settings again, for the control API. Returns None once the server object is gone."""
        names = hook_names(settings, ice)
        native = {**settings.resolved(), "ice_servers": ice.native}
        self.addresses: dict[str, Any] = {name: native[name] for name in ("host", "listen", "metrics", "control_api")}
        """The addresses that names stood for at the start."""
        self._events = _native.Events(settings.limits.hook_queue, settings.limits.hook_threads)
        self.hooks: HookRunner = HookRunner(settings, ice.hook, loop, self._events)
        # Before the server, so that its thread starts while the server binds.
        self.events: EventThread = EventThread(self.hooks, self._events)
        if settings.control_api:
            self.events.on_request = self._control_request
        try:
            self.native = _native.Server(native, names, self._events)
        except BaseException:
            self._events.close()
            self.events.close(THREAD_TIMEOUT)
            raise
        try:
            if names:
                self.hooks.start()
        except BaseException:
            # No thread could be started, so the server cannot run.
            self.stop(0.0)
            raise

    def _control_request(self, request: _native.ProgramRequest) -> None:
        from ._control import ControlRequests

        ControlRequests(self.native.journal, self.hooks, self.events, self.reload)(request)

    def replace(self, hooks: dict[str, Callable[..., Any] | None], limits: Limits) -> None:
        """Replaces the hooks and their limits. Raises RuntimeError where no thread can be started: nothing changes."""
        given = {name: hook for name, hook in hooks.items() if hook is not None}
        if given:
            self.hooks.start_if_needed()
        for name, hook in given.items():
            self.hooks.set_hook(name, hook)
        self.hooks.set_limits(limits)
        self._events.set_bounds(limits.hook_queue, limits.hook_threads)

    def stop(
        self, timeout: float, drain: float = 0.0, spread: float = 0.0, drained: Callable[[], None] = lambda: None
    ) -> bool:
        """Drains and stops the server. Returns whether each peer completed the closing handshake in time.

        Only the first call does that, and calls `drained` in between. The others wait for it, and return its outcome.
        """
        self.check_process()
        with self._lock:
            is_first = self._stopper is None
            if is_first:
                self._stopper = threading.get_ident()
        if not is_first:
            if self._stopper == threading.get_ident() and not self._stopped.is_set():
                return False  # A signal handler has interrupted the first call, which cannot go on meanwhile.
            self.wait_stopped()
            return self._stopped_in_time
        try:
            try:
                self._drain(drain, spread)
            finally:
                drained()
                self._stopped_in_time = self._stop(timeout)
            return self._stopped_in_time
        finally:
            self._stopped.set()

    def _drain(self, wait: float, spread: float) -> None:
        if not (wait or spread):
            return
        self._is_draining = True
        self.native.begin_drain(wait, spread)
        # In slices, so that Ctrl-C ends it.
        while self._is_draining and not self.native.wait_drained(SLICE):
            pass
        self._is_draining = False

    def beat(self, interval: float, callback: Callable[[], object]) -> None:
        """Calls a function each `interval` seconds, while the runtime, the event thread and the hooks' loop run."""
        self.events.on_beat = callback
        self.native.beat_every(interval)

    def end_drain(self) -> bool:
        """Ends the drain of a stop: the remaining connections are closed now. Returns whether there was one."""
        was_draining, self._is_draining = self._is_draining, False
        return was_draining

    @property
    def is_stopping(self) -> bool:
        """Whether a thread of this process is stopping the server."""
        return self._stopper is not None and not self._stopped.is_set() and self.native.process == os.getpid()

    def wait_stopped(self) -> None:
        """Waits until the server has stopped. Raises NotRunningError in the thread that is stopping it."""
        if self._stopper == threading.get_ident() and not self._stopped.is_set():
            raise NotRunningError("the server is stopping in this thread: start it when stop() has returned")
        self._stopped.wait()

    def _stop(self, timeout: float) -> bool:
        in_time = self.native.stop(timeout)
        hanging = self.hooks.close(THREAD_TIMEOUT)
        self.events.close(THREAD_TIMEOUT)
        if hanging:
            names = ", ".join(hanging)
            text = "stopped, but a hook hangs and keeps its thread: %s"
            log(WARNING, text, names, event="hook_hangs", reason=names)
        return in_time

    def check_process(self) -> None:
        """Raises ForkedError in a fork of the process that started the server."""
        if self.native.process != os.getpid():
            raise ForkedError(
                f"process {self.native.process} started the server, and this process is a fork of it without the "
                'server\'s threads. Start another server in the fork, or use the "spawn" method of multiprocessing'
            )

    # Peers and waits --------------------------------------------------------------------------------------------------

    def disconnect(self, device_id: str, client_id: int | None = None) -> bool:
        """Closes the connection of a device, or of one of its clients."""
        check_text("device_id", device_id)
        if client_id is None and self.native.disconnect_device(device_id):
            return True
        if client_id is not None and self.native.disconnect_client(device_id, client_id):
            return True
        under_way = self.native.begin_disconnect(device_id, client_id)
        outcome: bool | None = False
        while under_way is not None and (outcome := under_way.wait(SLICE)) is None:
            pass  # In slices, so that Ctrl-C ends it.
        return bool(outcome)

    def begin_ask(self, device_id: str, clients: bool, delay: float) -> _native.Inquiry | None:
        """Asks the node that has a device."""
        return self.native.begin_ask(device_id, clients, delay)

    def failure_counts(self) -> tuple[int, int]:
        """Returns the number of failed hooks and of logged errors so far."""
        return self.hooks.failure_count, self.events.error_count

    async def until_async(
        self, look: Callable[[], _T | None], timeout: float | None, failure: Callable[[], Exception]
    ) -> _T:
        """`until()` for coroutines. The event thread reports the changes."""
        from ._loops import running_loop

        loop = running_loop("this wait", "call the variant without _async in trio.to_thread.run_sync()")
        import asyncio

        from ._pause import wait_event

        check_seconds("timeout", timeout, optional=True)
        moved = asyncio.Event()
        key = self.events.subscribe(loop, moved.set)
        self._events.watch(True)
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while True:
                moved.clear()
                self.native.changes()  # Raises once the server has stopped.
                if (found := look()) is not None:
                    return found
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise failure()
                await wait_event(moved, left)
        finally:
            self._events.watch(False)
            self.events.unsubscribe(key)

    async def until_stopped(self) -> None:
        """Waits until the server has stopped. Raises NotRunningError then."""
        await self.until_async(lambda: None, None, AssertionError)
