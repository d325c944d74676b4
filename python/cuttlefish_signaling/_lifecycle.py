"""The life of a server: start, stop, `with`, and the stop at the exit of the interpreter."""

from __future__ import annotations

import atexit
import os
import threading
import warnings
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

from ._checks import check_seconds
from ._config import IceSource, Settings
from ._run import THREAD_TIMEOUT, Run, in_thread
from .errors import NotRunningError

if TYPE_CHECKING:
    import asyncio

    from typing_extensions import Self


class Lifecycle:
    """A server that is started and stopped. The base class of `SignalingServer`."""

    def __init__(self, settings: Settings, ice: IceSource) -> None:
        self._settings = settings
        self._ice = ice
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._stopped.set()
        self._run: Run | None = None
        self._last_run: Run | None = None

    def start(self) -> Self:
        """Starts the server. It listens when this returns. A server that was stopped can be started again.

        Raises:
            BindError: The address is in use, not local, or not permitted.
            NotRunningError: The server is running already.
        """
        self._start(None)
        return self

    def _start(self, loop: asyncio.AbstractEventLoop | None) -> None:
        with self._lock:
            if self._run is not None and self._run.native.is_running:
                raise NotRunningError("the server is running already")
            self._run = self._last_run = Run(self._settings, self._ice, loop)
            self._stopped.clear()
        _stop_at_exit(self)

    def stop(self, *, timeout: float | None = None) -> bool:
        """Closes the port, closes every peer [1001], and waits until all are gone. A second call does nothing.

        Args:
            timeout: Seconds for the closing handshakes; default `stop_timeout`. Then the connections are dropped.

        Returns:
            Whether all peers completed the closing handshake in time.

        Raises:
            ConfigError: `timeout` is not a number of seconds. The server still runs.

        A `def` hook that hangs cannot be ended. It keeps its thread, which is a daemon, and a warning is logged.
        """
        allowed = self._settings.stop_timeout if timeout is None else timeout
        check_seconds("timeout", allowed)
        with self._lock:
            run, self._run = self._run, None
        if run is None:
            # Another thread may be stopping it.
            self._stopped.wait(self._settings.stop_timeout + THREAD_TIMEOUT)
            return True
        try:
            return run.stop(allowed)
        finally:
            self._stopped.set()

    async def stop_async(self, *, timeout: float | None = None) -> bool:
        """Does `stop()`, while the event loop runs."""
        return await in_thread(lambda: self.stop(timeout=timeout))

    def serve_forever(self) -> None:
        """Blocks until the server is stopped; Ctrl-C stops it cleanly. Starts it if it is not running."""
        if self._run is None:
            self.start()
        try:
            while not self._stopped.wait(3600):
                pass
        except KeyboardInterrupt:
            pass
        finally:
            self.stop()

    async def serve_forever_async(self) -> None:
        """`serve_forever()` for an event loop: waits until the server is stopped, and stops it when cancelled."""
        import asyncio

        if self._run is None:
            self._start(asyncio.get_running_loop())
        try:
            await self._running().until_stopped()
        except NotRunningError:
            pass
        finally:
            await self.stop_async()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SignalingServer cannot be copied or sent to another process; send server.url")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        import asyncio

        self._start(asyncio.get_running_loop())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop_async()

    def __del__(self) -> None:
        run = getattr(self, "_run", None)
        if run is not None and run.native.is_running:
            warnings.warn(f"{self!r} was not stopped", ResourceWarning, source=self, stacklevel=2)
            run.stop(0.0)

    @property
    def is_running(self) -> bool:
        """Whether the server runs, in this process."""
        run = self._run
        return run is not None and run.native.is_running

    def _latest(self) -> Run:
        if self._last_run is None:
            raise NotRunningError("the server has not been started: start() it, or use it in a with statement")
        return self._last_run

    def _running(self) -> Run:
        run = self._run
        if run is None:
            raise NotRunningError("the server is not running: start() it, or use it in a with statement")
        run.check_process()
        return run


_alive: weakref.WeakSet[Lifecycle] = weakref.WeakSet()


def _stop_at_exit(server: Lifecycle) -> None:
    if not _alive:
        # So there is one entry.
        atexit.unregister(_stop_all)
        atexit.register(_stop_all)
    _alive.add(server)


def _stop_all() -> None:
    """Stops the servers before the interpreter exits. Their threads must not need it afterwards."""
    for server in list(_alive):
        run = server._run
        if run is not None and run.native.process == os.getpid():
            server.stop(timeout=0.5)
