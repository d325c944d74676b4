"""The part of a server outside this process that needs its control API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._annotations import late_annotations
from .._timeouts import DEFAULT_TIMEOUT
from ..errors import NotOursError

if TYPE_CHECKING:
    from .._clock import Clock
    from .._hook_failure import HookFailure
    from .._hook_types import IceServers
    from .._journal import Journal
    from .._models import Client, Node, WaitingClient
    from .._remote.run import RemoteRun
    from .._remote_server import RemoteServer
    from .._stats import Stats
    from ..faults import Faults


class Controlled:
    """A server that may have a control API. Without one, each of these raises NotOursError."""

    control: RemoteServer | None = None
    """The control API of the server; None without one."""

    def _not_available(self, name: str) -> NotOursError:
        raise NotImplementedError

    def _needs_control(self, name: str) -> RemoteServer:
        if self.control is None:
            raise self._not_available(name)
        return self.control

    # For tests --------------------------------------------------------------------------------------------------------

    @property
    def journal(self) -> Journal:
        """The messages of all peers, as `SignalingServer.journal`."""
        control = self._needs_control("journal")
        if not control._writes_journal:
            raise NotOursError(
                f"journal is not available: the server at {control.control_url} writes none: start it with --journal"
            )
        return control.journal

    @property
    def faults(self) -> Faults:
        """Faults of the messages that are relayed, as `SignalingServer.faults`."""
        return self._needs_control("faults").faults

    @property
    def clock(self) -> Clock:
        """The clock of the server, as `SignalingServer.clock`."""
        return self._needs_control("clock").clock

    @property
    def hook_errors(self) -> list[HookFailure]:
        """The last 100 hooks that failed, as `SignalingServer.hook_errors`. Their exceptions are texts."""
        return self._needs_control("hook_errors").hook_errors

    @property
    def server_errors(self) -> list[str]:
        """The last 100 errors that the server logged, as `SignalingServer.server_errors`."""
        return self._needs_control("server_errors").server_errors

    @property
    def _last_run(self) -> RemoteRun | None:
        return None if self.control is None else self.control._last_run

    @property
    def _writes_journal(self) -> bool:
        return self.control is not None and self.control._writes_journal

    # Peers ------------------------------------------------------------------------------------------------------------

    def clients(self, device_id: str | None = None) -> list[Client]:
        """Returns the clients that are connected now, as `SignalingServer.clients`."""
        return self._needs_control("clients").clients(device_id)

    def waiting(self, device_id: str | None = None) -> list[WaitingClient]:
        """Returns the clients that wait for a device, as `SignalingServer.waiting`."""
        return self._needs_control("waiting").waiting(device_id)

    def stats(self) -> Stats:
        """Returns the counters, as `SignalingServer.stats`."""
        return self._needs_control("stats").stats()

    def wait_for_client(
        self,
        device_id: str | None = None,
        *,
        timeout: float | None = DEFAULT_TIMEOUT,
        waiting: bool = False,
    ) -> Client | WaitingClient:
        """Waits until a client is connected, as `SignalingServer.wait_for_client`."""
        control = self._needs_control("wait_for_client")
        if waiting:
            return control.wait_for_client(device_id, timeout=timeout, waiting=True)
        return control.wait_for_client(device_id, timeout=timeout)

    async def wait_for_client_async(
        self,
        device_id: str | None = None,
        *,
        timeout: float | None = DEFAULT_TIMEOUT,
        waiting: bool = False,
    ) -> Client | WaitingClient:
        """`wait_for_client()` for coroutines."""
        control = self._needs_control("wait_for_client_async")
        if waiting:
            return await control.wait_for_client_async(device_id, timeout=timeout, waiting=True)
        return await control.wait_for_client_async(device_id, timeout=timeout)

    def wait_for_nodes(self, count: int, *, timeout: float | None = DEFAULT_TIMEOUT) -> list[Node]:
        """Waits until this many nodes of the cluster live, as `SignalingServer.wait_for_nodes`."""
        return self._needs_control("wait_for_nodes").wait_for_nodes(count, timeout=timeout)

    async def wait_for_nodes_async(self, count: int, *, timeout: float | None = DEFAULT_TIMEOUT) -> list[Node]:
        """`wait_for_nodes()` for coroutines."""
        return await self._needs_control("wait_for_nodes_async").wait_for_nodes_async(count, timeout=timeout)

    def disconnect_device(self, device_id: str) -> bool:
        """Closes a device's connection, as `SignalingServer.disconnect_device`."""
        return self._needs_control("disconnect_device").disconnect_device(device_id)

    def disconnect_client(self, device_id: str, client_id: int) -> bool:
        """Closes a client's connection, as `SignalingServer.disconnect_client`."""
        return self._needs_control("disconnect_client").disconnect_client(device_id, client_id)

    # Settings ---------------------------------------------------------------------------------------------------------

    def set_ice_servers(self, ice_servers: IceServers) -> None:
        """Replaces the ICE servers, as `RemoteServer.set_ice_servers`."""
        self._needs_control("set_ice_servers").set_ice_servers(ice_servers)

    def reload(self) -> list[str]:
        """Lets the server read its settings again, as `RemoteServer.reload`."""
        return self._needs_control("reload").reload()


late_annotations(globals())
