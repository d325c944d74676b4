"""The peers of a server that runs, the waits for them, and its tools for tests."""

from __future__ import annotations

from ._annotations import late_annotations
from ._loops import stood_still
from ._server_nodes import ServerNodes
from ._timeouts import DEFAULT_TIMEOUT, seconds_of
from ._typing import overload

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Literal

    from ._clock import Clock
    from ._journal import Journal
    from ._models import Client, Device, WaitingClient
    from ._stats import Stats
    from .errors import WaitTimeoutError
    from .faults import Faults


class ServerPeers(ServerNodes):
    """A server of this process, or of another one (`RemoteServer`)."""

    # Peers ----------------------------------------------------------------------------------------------------------

    def devices(self) -> list[Device]:
        """Returns the devices that are registered now, sorted by id.

        In a cluster, those of all nodes, without waiting for another node: `device()` has the device info of one.
        """
        return self._running().devices()

    def device(self, device_id: str) -> Device | None:
        """Returns the device of this id, with its device info; None if there is none.

        In a cluster, the node that has the device is asked for it. A device of the device socket of this node has two
        ids, and either finds it.

        Raises:
            NodeUnreachableError: The node of the device does not answer. The error names it.
            NotRunningError: The server is not running.
        """
        run = self._running()
        search = run.find_device(device_id, patient=False)
        return (search.outcome() or run.until(search.outcome, None, AssertionError))[0]

    async def device_async(self, device_id: str) -> Device | None:
        """`device()` for coroutines."""
        run = self._running()
        search = run.find_device(device_id, patient=False)
        found = search.outcome()
        return (await run.until_async(search.outcome, None, AssertionError) if found is None else found)[0]

    def clients(self, device_id: str | None = None) -> list[Client]:
        """Returns the clients that are connected now, to this device or to all, sorted by device id and client id.

        In a cluster, the node that has this device is asked; without an id, they are those of the devices of this node.
        The result for a device that is not registered is [].

        Raises:
            NodeUnreachableError: The node of the device does not answer. The error names it.
            NotRunningError: The server is not running.
        """
        run = self._running()
        if device_id is None:
            return run.clients()
        search = run.find_clients(device_id)
        # The clients of a device of this node are known at once.
        return (search.outcome() or run.until(search.outcome, None, AssertionError))[0] or []

    async def clients_async(self, device_id: str | None = None) -> list[Client]:
        """`clients()` for coroutines."""
        run = self._running()
        if device_id is None:
            return run.clients()
        search = run.find_clients(device_id)
        found = search.outcome()
        return (await run.until_async(search.outcome, None, AssertionError) if found is None else found)[0] or []

    def waiting(self, device_id: str | None = None) -> list[WaitingClient]:
        """Returns the clients that wait now for this device to register, or for any.

        They are sorted by device id, and by the time at which they connected. Clients wait if `device_wait_timeout`
        permits it.
        """
        return self._running().waiting(device_id)

    def wait_for_device(self, device_id: str, *, timeout: float | None = DEFAULT_TIMEOUT) -> Device:
        """Waits until a device with this id is registered.

        Args:
            device_id: The id.
            timeout: Seconds, 5 or `--signaling-timeout` by default; None waits forever.

        Raises:
            WaitTimeoutError: It did not register in time. The error lists the devices that are registered.
            NodeUnreachableError: It is registered on another node of the cluster, which did not answer in time.
            NotRunningError: The server is not running, or stopped during the wait.
        """
        run, timeout = self._running(), seconds_of(timeout)
        search = run.find_device(device_id, patient=True)
        what, hint = f"device {device_id!r} to register", "wait_for_device_async()"
        return run.until(
            search.look, timeout, lambda: search.error or run.did_not_come(timeout, what, stood_still(hint))
        )

    async def wait_for_device_async(self, device_id: str, *, timeout: float | None = DEFAULT_TIMEOUT) -> Device:
        """`wait_for_device()` for coroutines."""
        run, timeout = self._running(), seconds_of(timeout)
        search = run.find_device(device_id, patient=True)
        what = f"device {device_id!r} to register"
        return await run.until_async(search.look, timeout, lambda: search.error or run.did_not_come(timeout, what))

    @overload
    def wait_for_client(
        self, device_id: str | None = None, *, timeout: float | None = DEFAULT_TIMEOUT, waiting: Literal[False] = False
    ) -> Client: ...

    @overload
    def wait_for_client(
        self, device_id: str | None = None, *, timeout: float | None = DEFAULT_TIMEOUT, waiting: Literal[True]
    ) -> WaitingClient: ...

    def wait_for_client(
        self, device_id: str | None = None, *, timeout: float | None = DEFAULT_TIMEOUT, waiting: bool = False
    ) -> Client | WaitingClient:
        """Waits until a client is connected to this device, or to any, and has its device info.

        Args:
            device_id: The device; None is any device of this server. In a cluster, the device may be on any node.
            timeout: Seconds, 5 or `--signaling-timeout` by default; None waits forever.
            waiting: Waits until a client waits for this device to register, or for any. It needs `device_wait_timeout`.

        Returns:
            The client that has been connected the longest.

        Raises:
            WaitTimeoutError: No client connected in time. The error lists the devices that are registered.
            NodeUnreachableError: The device is on another node of the cluster, which did not answer in time.
            NotRunningError: The server is not running, or stopped during the wait.
        """
        run, timeout, what = self._running(), seconds_of(timeout), _a_client_of(device_id, waiting)

        def failure() -> WaitTimeoutError:
            return run.did_not_come(timeout, what, stood_still("wait_for_client_async()"))

        if waiting:
            return run.until(lambda: run.waiting_client(device_id), timeout, failure)
        if device_id is None:
            return run.until(lambda: run.client(None), timeout, failure)
        search = run.find_client(device_id)
        return run.until(search.look, timeout, lambda: search.error or failure())

    @overload
    async def wait_for_client_async(
        self, device_id: str | None = None, *, timeout: float | None = DEFAULT_TIMEOUT, waiting: Literal[False] = False
    ) -> Client: ...

    @overload
    async def wait_for_client_async(
        self, device_id: str | None = None, *, timeout: float | None = DEFAULT_TIMEOUT, waiting: Literal[True]
    ) -> WaitingClient: ...

    async def wait_for_client_async(
        self, device_id: str | None = None, *, timeout: float | None = DEFAULT_TIMEOUT, waiting: bool = False
    ) -> Client | WaitingClient:
        """`wait_for_client()` for coroutines."""
        run, timeout = self._running(), seconds_of(timeout)
        what = _a_client_of(device_id, waiting)

        def failure() -> WaitTimeoutError:
            return run.did_not_come(timeout, what)

        if waiting:
            return await run.until_async(lambda: run.waiting_client(device_id), timeout, failure)
        if device_id is None:
            return await run.until_async(lambda: run.client(None), timeout, failure)
        search = run.find_client(device_id)
        return await run.until_async(search.look, timeout, lambda: search.error or failure())

    def disconnect_device(self, device_id: str) -> bool:
        """Closes a device's connection; its clients get `Device disconnected`. Returns False for an unknown device.

        In a cluster, the device may be on any node. Raises NodeUnreachableError if its node does not answer.
        """
        return self._running().disconnect(device_id)

    def disconnect_client(self, device_id: str, client_id: int) -> bool:
        """Closes a client's connection; the device gets `client_disconnected`. Returns False for an unknown client.

        In a cluster, the device may be on any node. Raises NodeUnreachableError if its node does not answer.
        """
        from ._checks import check_integer

        check_integer("client_id", client_id, 0, 2**32 - 1)
        return self._running().disconnect(device_id, client_id)

    def stats(self) -> Stats:
        """Returns the counters, also of a server that has stopped."""
        return self._latest().stats()

    # For tests --------------------------------------------------------------------------------------------------------

    @property
    def journal(self) -> Journal:
        """The messages of all peers, to read and to wait for, also when the server has stopped. Needs `journal=True`.

        Raises JournalOffError, and NotRunningError before the first start.
        """
        self._check_journal()
        from ._journal import Journal

        return Journal(self._latest())

    @property
    def faults(self) -> Faults:
        """Faults of the messages that are relayed: `with server.faults.drop(type="offer"): ...`."""
        from .faults import Faults

        return Faults(self._running())

    @property
    def clock(self) -> Clock:
        """The clock of the server, which a test can freeze and advance."""
        from ._clock import Clock

        return Clock(self._running().native.clock)


def _a_client_of(device_id: str | None, waiting: bool) -> str:
    if device_id is None:
        return "a client to wait" if waiting else "a client to connect"
    return f"a client to {'wait for' if waiting else 'connect to'} device {device_id!r}"


late_annotations(globals())
