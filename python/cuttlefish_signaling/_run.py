"""One run of a server, from start to stop: the core, its Python threads, and the waits for changes."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from . import _native
from ._checks import check_seconds, check_text
from ._config import IceSource, Settings, hook_names
from ._events import EventThread
from ._hooks import HookRunner
from ._limits import Limits
from ._log import log
from ._loops import running_loop
from ._models import Client, Device, Node, WaitingClient
from ._pause import wait_event
from ._silence import silence_note
from .errors import ForkedError, NotRunningError, WaitTimeoutError

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")

SLICE = 0.05
"""Seconds that a wait may spend in the core before Python handles signals: the longest delay of Ctrl-C."""

MOST_NAMED = 20
"""Devices that an error names."""

THREAD_TIMEOUT = 0.5
"""Seconds that a stop waits for hook threads, beyond the time given to peers."""


class Run:
    """A server that runs or has run. After the stop, its methods raise `NotRunningError`, which the core raises."""

    def __init__(self, settings: Settings, ice: IceSource, loop: asyncio.AbstractEventLoop | None) -> None:
        self._lock = threading.RLock()  # A signal handler may call `stop` in a thread that holds it.
        self._stopper: int | None = None  # The thread that stops the server, or has stopped it.
        self._stopped = threading.Event()
        self._stopped_in_time = False
        self._is_draining = False
        self.shown_after = 0
        """Transcripts in errors begin behind this entry. The pytest plugin sets it, for servers of many tests."""
        names = hook_names(settings, ice)
        native = {**settings.resolved(), "ice_servers": ice.native}
        self.addresses: dict[str, Any] = {name: native[name] for name in ("host", "listen", "metrics")}
        """The addresses that names stood for at the start."""
        self._events = _native.Events(settings.limits.hook_queue, settings.limits.hook_threads)
        self.hooks: HookRunner = HookRunner(settings, ice.hook, loop, self._events)
        # Before the server, so that its thread starts while the server binds.
        self.events: EventThread = EventThread(self.hooks, self._events)
        try:
            self.native: _native.Server = _native.Server(native, names, self._events)
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
            log(logging.WARNING, text, names, event="hook_hangs", reason=names)
        return in_time

    def check_process(self) -> None:
        """Raises ForkedError in a fork of the process that started the server."""
        if self.native.process != os.getpid():
            raise ForkedError(
                f"process {self.native.process} started the server, and this process is a fork of it without the "
                'server\'s threads. Start another server in the fork, or use the "spawn" method of multiprocessing'
            )

    # Peers -----------------------------------------------------------------------------------------------------------

    def devices(self) -> list[Device]:
        """Returns the devices registered now."""
        return [Device._of(device) for device in self.native.devices()]

    def clients(self, device_id: str | None = None) -> list[Client]:
        """Returns the clients connected now, to this device or to any."""
        check_text("device_id", device_id, optional=True)
        return [Client._of(client) for client in self.native.clients(device_id)]

    def device(self, device_id: str) -> Device | None:
        """Returns the device of this id, or None."""
        check_text("device_id", device_id)
        found = self.native.device(device_id)
        return None if found is None else Device._of(found)

    def nodes(self) -> list[Node]:
        """Returns the nodes of the cluster."""
        return [Node(*node) for node in self.native.nodes()]  # type: ignore[arg-type]

    def living_nodes(self, count: int) -> list[Node] | None:
        """Returns the nodes if this many of them live, and none more."""
        nodes = self.nodes()
        return nodes if sum(node.state in ("this", "alive") for node in nodes) == count else None

    def client(self, device_id: str | None) -> Client | None:
        """Returns the client of this device, or of any, that has been connected the longest."""
        return min(self.clients(device_id), key=lambda client: client.since, default=None)

    def waiting(self, device_id: str | None = None) -> list[WaitingClient]:
        """Returns the clients that wait now, for this device or for any."""
        check_text("device_id", device_id, optional=True)
        waiting = map(WaitingClient._of, self.native.waiting())
        return [client for client in waiting if device_id in (None, client.device_id)]

    def waiting_client(self, device_id: str | None) -> WaitingClient | None:
        """Returns the client that waits for this device, or for any, and has been connected the longest."""
        return min(self.waiting(device_id), key=lambda client: client.since, default=None)

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

    # Waiting ---------------------------------------------------------------------------------------------------------

    def until(self, look: Callable[[], T | None], timeout: float | None, failure: Callable[[], Exception]) -> T:
        """Calls `look` after each change, until it returns a value. Raises `failure()` after `timeout` seconds."""
        check_seconds("timeout", timeout, optional=True)
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
        """`until()` for coroutines. The event thread reports the changes."""
        loop = running_loop("this wait", "call the variant without _async in trio.to_thread.run_sync()")
        import asyncio

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

    def did_not_come(self, timeout: float | None, what: str, hint: str = "") -> WaitTimeoutError:
        """Returns an error for a peer that did not come. It lists the peers that are connected, and dropped ones."""
        devices = [repr(device.device_id) for device in self.devices()]
        there = f"registered: {_first(devices)}" if devices else "no device is registered"
        awaited = Counter(client.device_id for client in self.waiting())
        counts = [f"{device_id!r} ({count})" for device_id, count in awaited.items()]
        waiting = f"; clients waiting for: {_first(counts)}" if counts else ""
        return WaitTimeoutError(
            f"waited {timeout:g} s for {what}; {there}; clients connected: {self.native.peers()[2]}{waiting}"
            f"{silence_note(self.native, self.shown_after)}{hint}"
        )

    def other_nodes(self, timeout: float | None, count: int, hint: str = "") -> WaitTimeoutError:
        """Returns an error for a number of nodes that did not come about. It lists the nodes."""
        nodes = [f"{node.name} ({node.state})" for node in self.nodes()]
        there = f"nodes: {_first(nodes)}" if nodes else "no node is known, not even this one: it has not joined"
        return WaitTimeoutError(f"waited {timeout:g} s for {count} nodes of the cluster to live; {there}{hint}")


def _first(texts: list[str]) -> str:
    """The first twenty of them, and the number of the others."""
    more = f" and {len(texts) - MOST_NAMED} more" if len(texts) > MOST_NAMED else ""
    return ", ".join(texts[:MOST_NAMED]) + more


async def in_thread(work: Callable[[], T], hurry: Callable[[], object] | None = None) -> T:
    """Runs a function on a thread of its own. The executor of the loop would keep its thread afterwards.

    A cancellation calls `hurry`, and is raised when the function has returned.
    """
    import asyncio

    loop, done = asyncio.get_running_loop(), asyncio.Event()
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append((work(), None))
        except BaseException as error:  # The caller raises it.
            outcome.append((None, error))
        try:
            loop.call_soon_threadsafe(done.set)
        except RuntimeError:
            pass  # The loop is closed, so no coroutine waits.

    thread = threading.Thread(target=run, name="cuttlefish-stop", daemon=True)
    thread.start()
    cancelled: asyncio.CancelledError | None = None
    while not done.is_set():
        try:
            await done.wait()
        except asyncio.CancelledError as error:
            # A stop takes a bounded time. It completes before the cancellation is raised.
            cancelled = error
            if hurry is not None:
                hurry()
    thread.join()
    value, failure = outcome[0]
    if cancelled is not None:
        raise cancelled
    if failure is not None:
        raise failure
    return value  # type: ignore[no-any-return]
