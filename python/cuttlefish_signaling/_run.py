"""One run of a server, from start to stop: the core, the threads that serve it in Python, and the waits on it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from . import _native
from ._config import IceSource, Settings, resolve
from ._events import EventThread
from ._hooks import HookRunner
from ._models import Client, Device
from .errors import ForkedError, WaitTimeoutError

if TYPE_CHECKING:
    import asyncio

logger = logging.getLogger("cuttlefish_signaling")

T = TypeVar("T")

SLICE = 0.05
"""Seconds a wait spends in the core at a stretch: as long as Ctrl-C may take."""

THREAD_TIMEOUT = 0.5
"""Seconds a stop waits for threads that run hooks, beyond the time given to peers."""


class Run:
    """A server that runs, or ran. What asks it afterwards hears `NotRunningError`, from the core."""

    def __init__(self, settings: Settings, ice: IceSource, loop: asyncio.AbstractEventLoop | None) -> None:
        names = [name for name in ("filter_device_info", "authorize") if getattr(settings, name) is not None]
        if ice.hook is not None:
            names.append("ice_servers")
        native = {**settings.native, "host": resolve(settings.host, settings.port), "ice_servers": ice.native}
        self.hooks = HookRunner(settings, ice.hook, loop)
        self.native = _native.Server(native, names)
        self.events = EventThread(self.hooks, self.native)
        try:
            if names:
                self.hooks.start(self.native)
        except BaseException:
            # No more threads to be had: then no server either.
            self.native.stop(0.0)
            raise

    @property
    def courier(self) -> EventThread:
        """The former name of `events`."""
        return self.events

    def stop(self, timeout: float) -> bool:
        """Stops it; returns whether every peer said goodbye in time."""
        in_time = self.native.stop(timeout)
        hanging = self.hooks.close(THREAD_TIMEOUT)
        self.events.close(THREAD_TIMEOUT)
        if hanging:
            logger.warning("stopped, but a hook hangs and keeps its thread: %s", ", ".join(hanging))
        return in_time

    def check_process(self) -> None:
        """Raises ForkedError in a fork of the process that has the threads."""
        if self.native.process != os.getpid():
            raise ForkedError(
                f"the server was started by process {self.native.process}, of which this one is a fork; its threads "
                'stayed there. Start a server of its own in the child, or use multiprocessing\'s "spawn"'
            )

    # Who is there ----------------------------------------------------------------------------------------------------

    def devices(self) -> list[Device]:
        """The devices registered now."""
        return [Device._of(device) for device in self.native.devices()]

    def clients(self, device_id: str | None = None) -> list[Client]:
        """The clients connected now, to this device or to all."""
        return [Client._of(client) for client in self.native.clients(device_id)]

    def device(self, device_id: str) -> Device | None:
        """The device of this id."""
        found = self.native.device(device_id)
        return None if found is None else Device._of(found)

    def client(self, device_id: str | None) -> Client | None:
        """The client of this device, or of any, that has been connected the longest."""
        return min(self.clients(device_id), key=lambda client: client.since, default=None)

    # Waiting ---------------------------------------------------------------------------------------------------------

    def until(self, look: Callable[[], T | None], timeout: float | None, failure: Callable[[], Exception]) -> T:
        """Looks again whenever somebody comes, goes or speaks, until there is something. Raises `failure()` in time."""
        __tracebackhide__ = True  # In a test that fails, pytest is to show the line of the test.
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            seen = self.native.changes()
            if (found := look()) is not None:
                return found
            left = SLICE if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise failure()
            self.native.wait_change(seen, min(left, SLICE))

    async def until_async(
        self, look: Callable[[], T | None], timeout: float | None, failure: Callable[[], Exception]
    ) -> T:
        """The same for coroutines: the event thread tells when to look."""
        __tracebackhide__ = True
        import asyncio

        moved = asyncio.Event()
        key = self.events.subscribe(asyncio.get_running_loop(), moved.set)
        self.native.watch(True)
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
                try:
                    await asyncio.wait_for(moved.wait(), left)
                except asyncio.TimeoutError:
                    pass
        finally:
            self.native.watch(False)
            self.events.unsubscribe(key)

    async def until_stopped(self) -> None:
        """Waits until it has stopped: by raising NotRunningError."""
        await self.until_async(lambda: None, None, AssertionError)

    def did_not_come(self, timeout: float | None, what: str) -> WaitTimeoutError:
        """Nobody of that kind came; these are there."""
        devices = [device.device_id for device in self.devices()]
        there = f"registered: {', '.join(map(repr, devices))}" if devices else "no device is registered"
        clients = len(self.clients())
        return WaitTimeoutError(f"waited {timeout:g} s for {what}; {there}; clients connected: {clients}")


async def in_thread(work: Callable[[], T]) -> T:
    """Runs it on a thread that ends with it; the loop's own executor would keep one."""
    import asyncio

    loop, done = asyncio.get_running_loop(), asyncio.Event()
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append((work(), None))
        except BaseException as error:  # It is raised where it is awaited.
            outcome.append((None, error))
        try:
            loop.call_soon_threadsafe(done.set)
        except RuntimeError:
            pass  # The loop is closed: nobody awaits it.

    thread = threading.Thread(target=run, name="cuttlefish-stop", daemon=True)
    thread.start()
    cancelled: asyncio.CancelledError | None = None
    while not done.is_set():
        try:
            await done.wait()
        except asyncio.CancelledError as error:
            # Stopping is bounded: it is seen through, then the cancellation goes on.
            cancelled = error
    thread.join()
    value, failure = outcome[0]
    if cancelled is not None:
        raise cancelled
    if failure is not None:
        raise failure
    return value  # type: ignore[no-any-return]
