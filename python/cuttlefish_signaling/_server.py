"""`SignalingServer`: starts, questions and stops the Rust core."""

from __future__ import annotations

import atexit
import os
import threading
import warnings
import weakref
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NoReturn

from ._clock import Clock
from ._config import (
    Authorize,
    FilterDeviceInfo,
    IceServers,
    IceSource,
    Keepalive,
    Limits,
    Settings,
    check_seconds,
    names,
)
from ._hooks import HookFailure
from ._journal import Journal
from ._models import Client, Device, Stats
from ._run import THREAD_TIMEOUT, Run, in_thread
from ._tls import Tls
from .errors import ConfigError, JournalOffError, NotRunningError
from .faults import Faults

if TYPE_CHECKING:
    import asyncio

    from typing_extensions import Self


class SignalingServer:
    """A signaling server in this process. It runs on threads of its own; what it relays never touches Python.

    With the defaults it is made for tests: 127.0.0.1, a free port, plain, no ICE servers, everybody welcome.

    Args:
        host: Address or name to listen on.
        port: Port to listen on; 0 is a free one, told by `port`.
        device_socket: Path of a local socket for devices of today's Cuttlefish, as `/run/cuttlefish/operator`: made
            with mode 0770, in place of one whose server is gone. None is none.
        control_socket: Path of a local socket on which devices are announced, as `/run/cuttlefish/operator_control`.
        tls: `Tls.self_signed()`, `Tls.kept_in(...)`, `Tls.from_files(...)`; None is plain.
        ice_servers: What peers are told in `config`: a list of `IceServer` (or dictionaries), a `TurnRest`, or a
            callable asked for each peer with an `IceContext`.
        filter_device_info: `hook(info, FilterContext)`: what this client may see of this device. Asked for each client;
            its result goes to that client only. None: all of it, byte for byte.
        authorize: `hook(AuthorizeContext)`: returns an identity (anything JSON can say), a `Grant`
            or None, or raises `Refused`.
            Asked for each request but `GET /healthz`, `GET /readyz`, and the server's own page and scripts, which
            are the same for everybody.
        device_wait_timeout: Seconds a client may wait for a device that is not there; 0 refuses at once, None is for
            ever.
        on_duplicate: `"reject"`: an id that is held stays with its holder, if it answers a ping; `"replace"`: the
            newcomer gets it.
        client_ids: Where the client ids of a registration begin. `"from_one"`: at 1. `"unique"`: at a number made from
            the time of day, for real devices, whose peers outlive a restart of the server. Either way behind the last
            id that the device was given by this server.
        hook_timeout: Seconds a hook may take. Hooks are `def` or `async def`; one that raises, hangs or returns rubbish
            costs the peer it was asked for its connection (`Internal error` [1011]), and nobody else anything.
        limits: Bounds on what peers may take.
        keepalive: When a silent connection is found dead.
        allowed_hosts: Names by which the server may be reached, beside addresses, `localhost`, `host` and those of a
            self-signed certificate: what requests say as `Host`. `*` is any, and lets DNS rebinding in.
        allowed_origins: Origins whose pages may use the server, beside its own: `https://panel.lab`. `*` is any.
        allow_unauthenticated: Whether to listen on other addresses than loopback without `authorize`.
        dashboard: Whether there is a page for people at `/`: devices, conversations, a viewer.
        assets_dir: A directory whose files are served beside the endpoints: the web client of a Cuttlefish host package
            (`client.html`, `js/app.js`). `js/server_connector.js` is always ours. Links in it are followed.
        proxy_device_files: Whether `/devices/ID/files/...` reaches the device's own web server, on 127.0.0.1 at the
            port it has named on the device socket. Lets whoever is a client reach a port of this machine.
        devices_format: The default of `GET /devices`: `"full"`, an object for each device, or `"ids"`, the list of ids
            that the page of the reference server expects. Requests choose with `?format=full` and `?format=ids`.
        journal: Whether what is said is written down, for `journal`. Bounded by `limits`.
        workers: OS threads that relay.
        stop_timeout: Seconds peers get to say goodbye when the server stops.

    Raises:
        ConfigError: A setting makes no sense. It names the setting.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        device_socket: str | os.PathLike[str] | None = None,
        control_socket: str | os.PathLike[str] | None = None,
        tls: Tls | None = None,
        ice_servers: IceServers = (),
        filter_device_info: FilterDeviceInfo | None = None,
        authorize: Authorize | None = None,
        device_wait_timeout: float | None = 0.0,
        on_duplicate: Literal["reject", "replace"] = "reject",
        client_ids: Literal["from_one", "unique"] = "from_one",
        hook_timeout: float = 5.0,
        limits: Limits = Limits(),
        keepalive: Keepalive = Keepalive(),
        allowed_hosts: Iterable[str] = (),
        allowed_origins: Iterable[str] = (),
        allow_unauthenticated: bool = False,
        dashboard: bool = False,
        assets_dir: str | os.PathLike[str] | None = None,
        proxy_device_files: bool = False,
        devices_format: Literal["full", "ids"] = "full",
        journal: bool = False,
        workers: int = 1,
        stop_timeout: float = 2.0,
    ) -> None:
        self._settings = Settings(
            host=host,
            port=port,
            device_socket=device_socket,
            control_socket=control_socket,
            tls=tls,
            filter_device_info=filter_device_info,
            authorize=authorize,
            device_wait_timeout=device_wait_timeout,
            on_duplicate=on_duplicate,
            client_ids=client_ids,
            hook_timeout=hook_timeout,
            limits=limits,
            keepalive=keepalive,
            allowed_hosts=names("allowed_hosts", allowed_hosts),
            allowed_origins=names("allowed_origins", allowed_origins),
            allow_unauthenticated=allow_unauthenticated,
            dashboard=dashboard,
            assets_dir=assets_dir,
            proxy_device_files=proxy_device_files,
            devices_format=devices_format,
            journal=journal,
            workers=workers,
            stop_timeout=stop_timeout,
        )
        self._ice = IceSource.of(ice_servers)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._stopped.set()
        self._run: Run | None = None
        self._last_run: Run | None = None

    # Life ------------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Starts to listen; returns when it does. A server that was stopped can be started again.

        Raises:
            BindError: The address is taken, not ours, or not permitted.
            NotRunningError: It is running already.
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
        """Stops: closes the port, says 1001 to every peer, and waits until all are gone. A second time does nothing.

        Args:
            timeout: Seconds peers get to say goodbye; default `stop_timeout`. Then their connections are dropped.

        Returns:
            Whether everybody said goodbye in time.

        Raises:
            ConfigError: `timeout` is no number of seconds; nothing has been stopped then.

        A `def` hook that hangs can not be ended from outside: it keeps its (daemon) thread, which is logged.
        """
        allowed = self._settings.stop_timeout if timeout is None else timeout
        check_seconds("timeout", allowed)
        with self._lock:
            run, self._run = self._run, None
        if run is None:
            # Somebody else may be at it.
            self._stopped.wait(self._settings.stop_timeout + THREAD_TIMEOUT)
            return True
        try:
            return run.stop(allowed)
        finally:
            self._stopped.set()

    async def stop_async(self, *, timeout: float | None = None) -> bool:
        """`stop()`, while the event loop goes on."""
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
        raise TypeError("a SignalingServer can not be copied or sent to another process; send it server.url")

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

    def __repr__(self) -> str:
        return f"<SignalingServer {self._url('http', '') if self.is_running else 'not running'}>"

    @property
    def is_running(self) -> bool:
        """Whether it listens, in this process."""
        run = self._run
        return run is not None and run.native.is_running

    # Where it is -----------------------------------------------------------------------------------------------------

    @property
    def host(self) -> str:
        """The address it listens on."""
        return self._running().native.address[0]

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._running().native.address[1]

    @property
    def url(self) -> str:
        """`http://127.0.0.1:43210`, or `https:`. Where it listens on every address, the loopback one."""
        return self._url("http", "")

    @property
    def device_url(self) -> str:
        """Where devices register: `ws://127.0.0.1:43210/register_device`, or `wss:`."""
        return self._url("ws", "/register_device")

    @property
    def client_url(self) -> str:
        """Where clients connect: `ws://127.0.0.1:43210/connect_client`, or `wss:`."""
        return self._url("ws", "/connect_client")

    def _url(self, scheme: str, path: str) -> str:
        host, port = self._reachable_host(), self.port
        return f"{scheme}{'s' if self._settings.tls else ''}://{f'[{host}]' if ':' in host else host}:{port}{path}"

    def _reachable_host(self) -> str:
        host = self.host
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)

    @property
    def tls(self) -> Tls | None:
        """Its certificate, and the context for clients that comes with it."""
        return self._settings.tls

    # Who is there ----------------------------------------------------------------------------------------------------

    def devices(self) -> list[Device]:
        """The devices registered now, by id."""
        return self._running().devices()

    def clients(self, device_id: str | None = None) -> list[Client]:
        """The clients connected now, to this device or to all, by device id and client id."""
        return self._running().clients(device_id)

    def wait_for_device(self, device_id: str, *, timeout: float | None = 5.0) -> Device:
        """Waits until a device of this id is registered.

        Args:
            device_id: The id.
            timeout: Seconds; None waits for ever.

        Raises:
            WaitTimeoutError: It did not come; the message says who did.
            NotRunningError: The server is not running, or stopped meanwhile.
        """
        __tracebackhide__ = True
        run = self._running()
        what = f"device {device_id!r} to register"
        return run.until(lambda: run.device(device_id), timeout, lambda: run.did_not_come(timeout, what))

    async def wait_for_device_async(self, device_id: str, *, timeout: float | None = 5.0) -> Device:
        """`wait_for_device()` for coroutines."""
        __tracebackhide__ = True
        run = self._running()
        what = f"device {device_id!r} to register"
        return await run.until_async(lambda: run.device(device_id), timeout, lambda: run.did_not_come(timeout, what))

    def wait_for_client(self, device_id: str | None = None, *, timeout: float | None = 5.0) -> Client:
        """Waits until a client is connected to this device, or to any, and has its device info.

        Args:
            device_id: The device; None is any.
            timeout: Seconds; None waits for ever.

        Returns:
            The client that has been connected the longest.

        Raises:
            WaitTimeoutError: None came; the message says who did.
            NotRunningError: The server is not running, or stopped meanwhile.
        """
        __tracebackhide__ = True
        run = self._running()
        what = _a_client_of(device_id)
        return run.until(lambda: run.client(device_id), timeout, lambda: run.did_not_come(timeout, what))

    async def wait_for_client_async(self, device_id: str | None = None, *, timeout: float | None = 5.0) -> Client:
        """`wait_for_client()` for coroutines."""
        __tracebackhide__ = True
        run = self._running()
        what = _a_client_of(device_id)
        return await run.until_async(lambda: run.client(device_id), timeout, lambda: run.did_not_come(timeout, what))

    def disconnect_device(self, device_id: str) -> bool:
        """Ends a device's connection; its clients hear `Device disconnected`. False if there is no such device."""
        return self._running().native.disconnect_device(device_id)

    def disconnect_client(self, device_id: str, client_id: int) -> bool:
        """Ends a client's connection; the device hears `client_disconnected`. False if there is no such client."""
        return self._running().native.disconnect_client(device_id, client_id)

    def set_ice_servers(self, ice_servers: IceServers) -> None:
        """Tells peers other ICE servers from now on.

        Devices that are registered hear of them at once, in a new `config`; clients get theirs when they connect.

        Args:
            ice_servers: As the setting of this name.

        Raises:
            ConfigError: An entry makes no sense; nothing has changed then.
        """
        ice, run = IceSource.of(ice_servers), self._running()
        if ice.hook is not None:
            run.hooks.set_ice_hook(run.native, ice.hook)
        run.native.set_ice_servers(ice.native)
        self._ice = ice

    def stats(self) -> Stats:
        """The counters, also of a server that has stopped."""
        run = self._latest()
        connections, accepted, delivered, refused, gone, dropped = run.native.stats()
        devices = run.native.devices() if run.native.is_running else []
        return Stats(
            connections=connections,
            devices=len(devices),
            clients=sum(device[5] for device in devices),
            accepted=accepted,
            delivered=delivered,
            refused=refused,
            gone=gone,
            dropped=dropped,
            hook_failures=run.hooks.failure_count,
            **dict(run.native.incidents()),
        )

    @property
    def hook_errors(self) -> list[HookFailure]:
        """The last 100 hooks that raised, hung or returned rubbish, the oldest first; kept when the server stops."""
        run = self._last_run
        return list(run.hooks.failures) if run is not None else []

    @property
    def server_errors(self) -> list[str]:
        """The last 100 things the server itself logged as errors, the oldest first; kept when it stops."""
        run = self._last_run
        return list(run.courier.errors) if run is not None else []

    # For tests --------------------------------------------------------------------------------------------------------

    @property
    def journal(self) -> Journal:
        """What was said, to look at and to wait for; also when the server has stopped. Needs `journal=True`.

        Raises JournalOffError, and NotRunningError before the first start.
        """
        if not self._settings.journal:
            raise JournalOffError("this server writes no journal: start it with SignalingServer(journal=True)")
        return Journal(self._latest())

    @property
    def faults(self) -> Faults:
        """What is to go wrong with what is relayed: `with server.faults.drop(type="offer"): ...`."""
        return Faults(self._running())

    @property
    def clock(self) -> Clock:
        """The time the server goes by, to freeze and to advance."""
        return Clock(self._running().native.clock)

    def launch_cvd_flags(self, device_id: str = "cvd-{num}", *, host: str | None = None) -> list[str]:
        """The arguments that have `launch_cvd` register its devices here, and start no server of its own.

        Args:
            device_id: The id to register. `launch_cvd` replaces `{num}` by the number of the device.
            host: The address under which the device finds this machine; None is the one the server listens on.

        For the devices of Android's own tree (through Android 15), which speak WebSocket to their server.
        """
        if not isinstance(device_id, str) or not device_id:
            raise ConfigError("device_id", f"must be a string that is not empty, got {device_id!r}")
        return [
            "--start_webrtc=true",
            "--start_webrtc_sig_server=false",
            f"--webrtc_sig_server_addr={host or self._reachable_host()}",
            f"--webrtc_sig_server_port={self.port}",
            "--webrtc_sig_server_path=/register_device",
            f"--webrtc_sig_server_secure={'true' if self.tls else 'false'}",
            "--verify_sig_server_certificate=false",
            f"--webrtc_device_id={device_id}",
        ]

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


_alive: weakref.WeakSet[SignalingServer] = weakref.WeakSet()


def _stop_at_exit(server: SignalingServer) -> None:
    if not _alive:
        # Again and again does no harm: there is one entry.
        atexit.unregister(_stop_all)
        atexit.register(_stop_all)
    _alive.add(server)


def _stop_all() -> None:
    """Before the interpreter goes: no thread of ours may want it afterwards."""
    for server in list(_alive):
        run = server._run
        if run is not None and run.native.process == os.getpid():
            server.stop(timeout=0.5)


def _a_client_of(device_id: str | None) -> str:
    return "a client to connect" if device_id is None else f"a client to connect to device {device_id!r}"
