"""One run of a server, as the classes for tests see it: its peers, and the waits for changes."""

from __future__ import annotations

import time

from ._checks import check_seconds, check_text
from .errors import WaitTimeoutError

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from ._elsewhere import Search
    from ._interfaces import ServerSource
    from ._models import Client, Device, Node, WaitingClient
    from ._native import Inquiry
    from ._stats import Stats

    _T = TypeVar("_T")

SLICE = 0.05
"""Seconds that a wait may spend in the core before Python handles signals: the longest delay of Ctrl-C."""

MOST_NAMED = 20
"""Devices that an error names."""


class View:
    """A run of a server, in this process (`Run`) or in another one (`RemoteRun`)."""

    shown_after = 0
    """Transcripts in errors begin behind this entry. The pytest plugin sets it, for servers of many tests."""

    native: ServerSource
    """The core of the server."""

    slice = SLICE
    """Seconds of one wait in the core."""

    def failure_counts(self) -> tuple[int, int]:
        """Returns the number of failed hooks and of logged errors so far."""
        raise NotImplementedError

    def stats(self) -> Stats:
        """Returns the counters."""
        from ._stats import Stats

        connections, devices, clients, waiting = self.native.peers()
        accepted, delivered, refused, gone, dropped = self.native.stats()
        return Stats(
            connections=connections,
            devices=devices,
            clients=clients,
            waiting=waiting,
            accepted=accepted,
            delivered=delivered,
            refused=refused,
            gone=gone,
            dropped=dropped,
            hook_failures=self.failure_counts()[0],
            **dict(self.native.incidents()),
        )

    def close(self) -> None:
        """Closes the connections of a view of another process. A later call opens others."""

    # Peers -----------------------------------------------------------------------------------------------------------

    def devices(self) -> list[Device]:
        """Returns the devices registered now."""
        from ._models import Device

        return [Device._of(device) for device in self.native.devices()]

    def clients(self, device_id: str | None = None) -> list[Client]:
        """Returns the clients connected now, to this device or to any."""
        from ._models import Client

        check_text("device_id", device_id, optional=True)
        return [Client._of(client) for client in self.native.clients(device_id)]

    def begin_ask(self, device_id: str, clients: bool, delay: float) -> Inquiry | None:
        """Asks the node that has a device for it, or for its clients. None if this server has it, or is in no cluster.

        A server of another process asks other nodes by itself.
        """
        return None

    def find_device(self, device_id: str, *, patient: bool) -> Search[Device]:
        """Searches for a device, with all that its node knows of it."""
        check_text("device_id", device_id)
        from ._elsewhere import Search, device_of

        return Search(self, device_id, lambda: self.device(device_id), device_of, patient=patient)

    def find_clients(self, device_id: str) -> Search[list[Client]]:
        """Searches for the clients of a device."""
        check_text("device_id", device_id)
        from ._elsewhere import Search, clients_of

        def there(answer: str) -> list[Client]:
            return clients_of(device_id, answer)

        return Search(self, device_id, lambda: self.clients(device_id), there, clients=True, patient=False)

    def find_client(self, device_id: str) -> Search[Client]:
        """Searches for the client of a device that has been connected the longest."""
        check_text("device_id", device_id)
        from ._elsewhere import Search, clients_of

        def first(answer: str) -> Client | None:
            return _longest(clients_of(device_id, answer))

        return Search(self, device_id, lambda: self.client(device_id), first, clients=True)

    def device(self, device_id: str) -> Device | None:
        """Returns the device of this id, or None. Of a device of another node, it has what the registry has."""
        check_text("device_id", device_id)
        from ._models import Device

        found = self.native.device(device_id)
        return None if found is None else Device._of(found)

    def elsewhere(self, device_id: str) -> str | None:
        """Returns the name of the node that has a device, if that is another one than this server."""
        found = self.device(device_id)
        if found is None or found.node is None:
            return None
        own = [node.name for node in self.nodes() if node.state == "this"]
        return found.node if own and found.node not in own else None

    def devices_elsewhere(self) -> tuple[list[Device], bool]:
        """Returns the devices of other nodes of the cluster, and whether this node has devices too."""
        own = [node.name for node in self.nodes() if node.state == "this"]
        if not own:
            return [], True
        devices = self.devices()
        elsewhere = [device for device in devices if device.node is not None and device.node not in own]
        return elsewhere, len(elsewhere) < len(devices)

    def arm(self, effect: str, numbers: tuple[float | None, float | None], filters: dict[str, Any], away: bool) -> int:
        """Arms a fault, and returns its id. `away`: its device may be on another node of the cluster."""
        return self.native.faults.arm(effect, *numbers, **filters)

    def nodes(self) -> list[Node]:
        """Returns the nodes of the cluster."""
        from ._models import Node

        return [Node(*node) for node in self.native.nodes()]  # type: ignore[arg-type]

    def living_nodes(self, count: int) -> list[Node] | None:
        """Returns the nodes if this many of them live, and none more."""
        nodes = self.nodes()
        return nodes if sum(node.state in ("this", "alive") for node in nodes) == count else None

    def client(self, device_id: str | None) -> Client | None:
        """Returns the client of this device, or of any, that has been connected the longest."""
        return _longest(self.clients(device_id))

    def waiting(self, device_id: str | None = None) -> list[WaitingClient]:
        """Returns the clients that wait now, for this device or for any."""
        from ._models import WaitingClient

        check_text("device_id", device_id, optional=True)
        waiting = map(WaitingClient._of, self.native.waiting())
        return [client for client in waiting if device_id in (None, client.device_id)]

    def waiting_client(self, device_id: str | None) -> WaitingClient | None:
        """Returns the client that waits for this device, or for any, and has been connected the longest."""
        return min(self.waiting(device_id), key=lambda client: client.since, default=None)

    def disconnect(self, device_id: str, client_id: int | None = None) -> bool:
        """Closes the connection of a device, or of one of its clients."""
        raise NotImplementedError

    def has_joined(self) -> bool | None:
        """Returns True once this node has joined its cluster, and None before."""
        return any(node.state == "this" for node in self.nodes()) or None

    # Waiting ---------------------------------------------------------------------------------------------------------

    def until(self, look: Callable[[], _T | None], timeout: float | None, failure: Callable[[], Exception]) -> _T:
        """Calls `look` after each change, until it returns a value. Raises `failure()` after `timeout` seconds."""
        check_seconds("timeout", timeout, optional=True)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            seen = self.native.changes()
            if (found := look()) is not None:
                return found
            left = self.slice if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise failure()
            self.native.wait_change(seen, min(left, self.slice))

    async def until_async(
        self, look: Callable[[], _T | None], timeout: float | None, failure: Callable[[], Exception]
    ) -> _T:
        """`until()` for coroutines."""
        raise NotImplementedError

    def did_not_come(self, timeout: float | None, what: str, hint: str = "") -> WaitTimeoutError:
        """Returns an error for a peer that did not come. It lists the peers that are connected, and dropped ones."""
        from collections import Counter

        from ._silence import silence_note

        devices = [repr(device.device_id) for device in self.devices()]
        there = f"registered: {first_of(devices)}" if devices else "no device is registered"
        awaited = Counter(client.device_id for client in self.waiting())
        counts = [f"{device_id!r} ({count})" for device_id, count in awaited.items()]
        waiting = f"; clients waiting for: {first_of(counts)}" if counts else ""
        return WaitTimeoutError(
            f"waited {timeout:g} s for {what}; {there}; clients connected: {self.native.peers()[2]}{waiting}"
            f"{silence_note(self.native, self.shown_after)}{hint}"
        )

    def other_nodes(self, timeout: float | None, count: int, hint: str = "") -> WaitTimeoutError:
        """Returns an error for a number of nodes that did not come about. It lists the nodes."""
        nodes = [f"{node.name} ({node.state})" for node in self.nodes()]
        there = f"nodes: {first_of(nodes)}" if nodes else "no node is known, not even this one: it has not joined"
        return WaitTimeoutError(f"waited {timeout:g} s for {count} nodes of the cluster to live; {there}{hint}")


def _longest(clients: list[Client]) -> Client | None:
    """The client that has been connected the longest."""
    return min(clients, key=lambda client: client.since, default=None)


def first_of(texts: list[str]) -> str:
    """The first twenty of them, and the number of the others."""
    more = f" and {len(texts) - MOST_NAMED} more" if len(texts) > MOST_NAMED else ""
    return ", ".join(texts[:MOST_NAMED]) + more
