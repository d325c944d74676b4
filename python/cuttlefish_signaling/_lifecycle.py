"""The life of a server: start, stop, `with`, and the stop at the exit of the interpreter."""

from __future__ import annotations

from ._annotations import late_annotations
from .errors import EngineUnreachableError, NotRunningError

TYPE_CHECKING = False

if TYPE_CHECKING:
    import asyncio
    import weakref
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, NoReturn

    from typing_extensions import Self

    from ._config import IceSource, Settings
    from ._run import Run

ENGINE_TIMEOUT = 10.0
"""Seconds that the start of a node of a cluster with `on_outage="hold"` waits for the engine."""

FIRST_ANSWER_TIMEOUT = 2.0
"""Seconds that the start of another node waits for the first answer of the engine, or the first error.

The core lets the first devices wait as long once more (`Membership::patience`).
"""


class _NoAnswerError(Exception):
    """The engine has neither answered nor refused, and the node starts without it."""


class Lifecycle:
    """A server that is started and stopped. The base class of `SignalingServer`."""

    def __init__(self, settings: Settings, ice: IceSource) -> None:
        import threading

        self._settings = settings
        self._ice = ice
        self._lock = threading.RLock()  # A signal handler may call `stop` in a thread that holds it.
        self._run: Run | None = None
        self._last_run: Run | None = None

    def start(self) -> Self:
        """Starts the server. It listens when this returns. A server that was stopped can be started again.

        If another thread is stopping the server, this waits until it has stopped.

        Raises:
            BindError: The address is in use, not local, or not permitted.
            EngineUnreachableError: A node of a cluster with `on_outage="hold"` has not reached the engine within 10 s,
                or a node has found a registry of another version.
            NotRunningError: The server is running already.
            UnsupportedError: gevent or eventlet has replaced the threads of this process.
        """
        self._start(None)
        try:
            self._wait_for_engine()
        except BaseException:
            self.stop(drain=0, drain_spread=0)
            raise
        return self

    def _start(self, loop: asyncio.AbstractEventLoop | None) -> None:
        from ._threads import require_threads

        require_threads()
        while not self._start_unless_stopping(loop):
            assert self._last_run is not None
            self._last_run.wait_stopped()
        _stop_at_exit(self)

    def _start_unless_stopping(self, loop: asyncio.AbstractEventLoop | None) -> bool:
        with self._lock:
            if self._last_run is not None and self._last_run.is_stopping:
                return False
            if self._run is not None and self._run.native.is_running:
                raise NotRunningError("the server is running already")
            from ._run import Run

            self._run = self._last_run = Run(self._settings, self._ice, loop)
            self._run.reload = _weakly(self._reload_for_control)
            return True

    def _wait_for_engine(self) -> None:
        """Waits until a node that needs the engine has joined; another one, until its first attempt has an outcome.

        Raises EngineUnreachableError without an engine that is needed, and for a registry of another version.
        """
        if (wait := self._engine_wait()) is not None:
            try:
                self._running().until(*wait)
            except _NoAnswerError:
                pass

    def _engine_wait(self) -> tuple[Callable[[], bool | None], float, Callable[[], Exception]] | None:
        """Returns what a start waits for, how long, and the error then. None for a server without a cluster."""
        cluster = self._settings.given["cluster"]
        if cluster is None:
            return None
        run, needs_engine = self._running(), cluster._needs_engine

        def begun() -> bool | None:
            if run.has_joined():
                return True
            kind, reason = run.native.engine_failure() or ("", "")
            if kind == "schema":
                what = f"the node cannot join its cluster: {reason}"
                raise EngineUnreachableError(cluster._native.engine, what)
            return True if kind and not needs_engine else None

        def missing() -> Exception:
            _, reason = run.native.engine_failure() or ("", "no answer")
            what = (
                f'the node has not joined its cluster within {ENGINE_TIMEOUT:g} s, and Cluster.on_outage is "hold": '
                f'start the engine or correct its URL, or give "admit" ({reason})'
            )
            return EngineUnreachableError(cluster._native.engine, what)

        return (begun, ENGINE_TIMEOUT, missing) if needs_engine else (begun, FIRST_ANSWER_TIMEOUT, _NoAnswerError)

    def _reload_for_control(self) -> dict[str, Any]:
        """Reads settings again, for the control API. Raises ConfigError or NotRunningError."""
        raise NotImplementedError

    def stop(
        self, *, timeout: float | None = None, drain: float | None = None, drain_spread: float | None = None
    ) -> bool:
        """Closes the port, closes every peer [1001], and waits until all are gone.

        A second call waits for the first one, and returns its outcome; with `drain=0` it ends the drain of the first
        one. In a signal handler that interrupts the first one it returns False at once.

        Args:
            timeout: Seconds for the closing handshakes; default `stop_timeout`. Then the connections are dropped.
            drain: Seconds before that in which `GET /readyz` answers 503, and peers are served; default `drain`.
                KeyboardInterrupt ends the drain.
            drain_spread: Seconds over which the connections are then closed; default `drain_spread`.

        Returns:
            Whether all peers completed the closing handshake in time.

        Raises:
            ConfigError: An argument is not a number of seconds. The server still runs.

        A `def` hook that hangs cannot be ended. It keeps its thread, which is a daemon, and a warning is logged.
        """
        times = self._times(timeout, drain, drain_spread)
        run = self._last_run
        return True if run is None else self._stop_run(run, times, cut_short=drain == 0)

    def _times(
        self, timeout: float | None = None, drain: float | None = None, spread: float | None = None
    ) -> tuple[float, float, float]:
        """Returns the times of a stop, which are those of the settings by default. Raises ConfigError."""
        from ._checks import check_seconds

        settings = self._settings
        given = (("timeout", timeout), ("drain", drain), ("drain_spread", spread))
        defaults = (settings.stop_timeout, settings.drain, settings.drain_spread)
        times = [default if value is None else value for (_, value), default in zip(given, defaults, strict=True)]
        for (name, _), value in zip(given, times, strict=True):
            check_seconds(name, value)
        return times[0], times[1], times[2]

    def _stop_run(self, run: Run, times: tuple[float, float, float], *, cut_short: bool = False) -> bool:
        timeout, drain, spread = times

        def drained() -> None:
            with self._lock:
                if self._run is run:
                    self._run = None

        if cut_short and run.is_stopping:
            run.end_drain()
        return run.stop(timeout, drain, spread, drained)

    async def stop_async(
        self, *, timeout: float | None = None, drain: float | None = None, drain_spread: float | None = None
    ) -> bool:
        """Does `stop()`, while the event loop runs. A cancellation ends the drain."""
        from ._threads import in_thread

        def stop() -> bool:
            return self.stop(timeout=timeout, drain=drain, drain_spread=drain_spread)

        return await in_thread(stop, self._end_drain)

    def _end_drain(self) -> bool:
        """Ends the drain of a stop. Returns whether there was one."""
        run = self._last_run
        return run is not None and run.end_drain()

    def serve_forever(self) -> None:
        """Blocks until the server is stopped; Ctrl-C stops it cleanly. Starts it if it is not running."""
        if self._run is None:
            self.start()
        run = self._latest()
        try:
            run.wait_stopped()
        except KeyboardInterrupt:
            pass
        finally:
            # Another thread may have started the server again.
            self._stop_run(run, self._times())

    async def serve_forever_async(self) -> None:
        """`serve_forever()` for an event loop: waits until the server is stopped, and stops it when cancelled."""
        import asyncio

        from ._threads import in_thread

        if self._run is None:
            await self._start_async(asyncio.get_running_loop())
        run = self._latest()
        try:
            await run.until_stopped()
        except NotRunningError:
            pass
        finally:
            await in_thread(lambda: self._stop_run(run, self._times()), run.end_drain)

    async def _start_async(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._last_run is not None and self._last_run.is_stopping:
            from ._threads import in_thread

            # Peers on this loop may have to answer their close frames.
            await in_thread(self._last_run.wait_stopped)
        self._start(loop)
        if (wait := self._engine_wait()) is not None:
            try:
                await self._running().until_async(*wait)
            except _NoAnswerError:
                pass
            except BaseException:
                await self.stop_async(drain=0, drain_spread=0)
                raise

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

        await self._start_async(asyncio.get_running_loop())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop_async()

    def __del__(self) -> None:
        run = getattr(self, "_run", None)
        if run is not None and run.native.is_running:
            import warnings

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


def _weakly(method: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any] | None]:
    """Returns a function that calls a method, or returns None once its object is gone."""
    import weakref

    weak = weakref.WeakMethod(method)

    def call() -> dict[str, Any] | None:
        known = weak()
        return None if known is None else known()

    return call


_alive: weakref.WeakSet[Lifecycle] | None = None


def _stop_at_exit(server: Lifecycle) -> None:
    import atexit
    import weakref

    global _alive
    if not _alive:
        # So there is one entry.
        atexit.unregister(_stop_all)
        atexit.register(_stop_all)
        _alive = weakref.WeakSet() if _alive is None else _alive
    _alive.add(server)


def started() -> list[Lifecycle]:
    """Returns the servers of this process that have been started, also those that have stopped."""
    return list(_alive or ())


def _stop_all() -> None:
    """Stops the servers before the interpreter exits. Their threads must not need it afterwards."""
    import os

    for server in started():
        run = server._run
        if run is not None and run.native.process == os.getpid():
            server.stop(timeout=0.5, drain=0, drain_spread=0)


late_annotations(globals())
