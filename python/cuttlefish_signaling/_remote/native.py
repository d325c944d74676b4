"""The core of a server of another process, with the methods of the core of this one (`_interfaces`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from .._entry import EntryTuple
from .._models import ClientTuple, DeviceTuple, WaitingTuple
from ..errors import ControlError
from .connection import Connection

NUMBERS: Mapping[str, tuple[str, ...]] = {
    "truncate": ("keep",),
    "delay": ("by", "jitter"),
    "reorder": ("window", "hold"),
    "stall": ("by",),
    "bandwidth": ("bytes_per_s",),
    "disconnect": ("code",),
}
"""The names of the numbers of a fault, in the order of `arm`."""

WHOLE = ("window", "code")
"""Those that are whole numbers."""

LONG = 60.0
"""Seconds for a request that ends when all that is due on the server's clock is done."""


class RemoteJournal:
    """The journal."""

    def __init__(self, connection: Connection, *, is_on: bool) -> None:
        self._connection = connection
        self._is_on = is_on
        self.begin = 0
        """Entries up to this number are left out: they are of other tests."""

    def find(
        self,
        after: int,
        limit: int,
        *,
        closed: bool | None = None,
        direction: str | None = None,
        device: str | None = None,
        client: int | None = None,
        message_type: str | None = None,
        payload_type: str | None = None,
    ) -> list[EntryTuple]:
        """Returns the entries that match, page by page."""
        found: list[EntryTuple] = []
        after = max(after, self.begin)
        query = {
            "closed": closed,
            "direction": direction,
            "device": device,
            "client": client,
            "message_type": message_type,
            "type": payload_type,
        }
        more = self._is_on
        while more and len(found) < limit:
            page = self._connection.request("GET", "/journal", query={"after": after, **query})
            found += map(entry_of, page["entries"])
            after, more = page["next"], page["more"]
        return found[:limit]

    @property
    def count(self) -> int:
        """The number of entries so far."""
        return self._counts()[0]

    @property
    def forgotten(self) -> int:
        """The number of entries dropped."""
        return max(0, self._counts()[1] - self.begin)

    def _counts(self) -> tuple[int, int]:
        if not self._is_on:
            return 0, 0
        page = self._connection.request("GET", "/journal", query={"limit": 0})
        return page["count"], page["forgotten"]


def entry_of(entry: Mapping[str, Any]) -> EntryTuple:
    """Returns an entry of the API as the core returns it."""
    return (
        *(entry["number"], entry["at"], entry["closed"], entry["direction"], entry["device"], entry["client"]),
        *(entry["connection"], entry["message_type"], entry["text"], entry["payload"], entry["outcome"]),
        (list(entry["faults"]), entry["rewritten"]),
    )


class RemoteFaults:
    """The faults. It knows those that it has armed, so that they can be disarmed at the end of a test."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._armed: set[int] = set()
        self._is_seeded = False

    def arm(
        self,
        effect: str,
        first: float | None = None,
        second: float | None = None,
        *,
        to: str | None = None,
        device: str | None = None,
        client: int | None = None,
        payload_type: str | None = None,
        nth: int | None = None,
        probability: float = 1.0,
        times: int | None = None,
        absent_ok: bool = False,
    ) -> int:
        """Arms a fault, and returns its id."""
        body: dict[str, Any] = {"fault": effect}
        for name, number in zip(NUMBERS.get(effect, ()), (first, second), strict=False):
            if number is not None:
                body[name] = int(number) if name in WHOLE else number
        filters = {"to": to, "device": device, "client": client, "type": payload_type, "nth": nth, "times": times}
        body.update({name: value for name, value in filters.items() if value is not None})
        if probability != 1.0:
            body["probability"] = probability
        if absent_ok and device is not None:
            body["absent_ok"] = True
        number = int(self._connection.request("POST", "/faults", body=body)["id"])
        self._armed.add(number)
        return number

    def disarm(self, id: int) -> tuple[int, int, int] | None:
        """Disarms a fault, and returns its counts; None if it is not armed."""
        self._armed.discard(id)
        return _counts(found_or_none(self._connection, "DELETE", f"/faults/{id}"))

    def stats(self, id: int) -> tuple[int, int, int] | None:
        """Returns the counts of a fault; None if it is not armed."""
        return _counts(found_or_none(self._connection, "GET", f"/faults/{id}"))

    def seed(self, seed: int) -> None:
        """Seeds the random choices."""
        self._is_seeded = True
        self._connection.request("PUT", "/faults/seed", body={"seed": seed})

    def release(self) -> None:
        """Disarms the faults that were armed here and still are, and seeds with the default."""
        for number in list(self._armed):
            self.disarm(number)
        if self._is_seeded:
            self.seed(0)
            self._is_seeded = False


def found_or_none(connection: Connection, method: str, path: str) -> Any:
    """Returns the answer; None where the server does not have this device, client or fault."""
    try:
        return connection.request(method, path)
    except ControlError as error:
        if error.code != "not_found":
            raise
        return None


def _counts(fault: Mapping[str, Any] | None) -> tuple[int, int, int] | None:
    return None if fault is None else (fault["matched"], fault["hits"], fault["overran"])


class RemoteClock:
    """The clock. It knows whether it was frozen here, so that it can run again at the end of a test."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._was_frozen = False

    def freeze(self) -> None:
        """Stops the clock."""
        self._was_frozen = True
        self._connection.request("POST", "/clock/freeze")

    def resume(self) -> None:
        """Lets the clock run on."""
        self._connection.request("POST", "/clock/resume")
        self._was_frozen = False

    def advance(self, seconds: float) -> None:
        """Moves the clock forward, and returns when all that was due is done."""
        self._connection.request("POST", "/clock/advance", body={"seconds": seconds}, wait=LONG)

    @property
    def now(self) -> float:
        """The time it shows."""
        return float(self._connection.request("GET", "/clock")["now"])

    @property
    def is_frozen(self) -> bool:
        """Whether it stands."""
        return bool(self._connection.request("GET", "/clock")["frozen"])

    def release(self) -> None:
        """Lets the clock run on, if it was frozen here."""
        if self._was_frozen:
            self.resume()


class RemoteNative:
    """The core of a server of another process."""

    def __init__(self, connection: Connection, *, has_journal: bool) -> None:
        self._connection = connection
        self.journal = RemoteJournal(connection, is_on=has_journal)
        self.faults = RemoteFaults(connection)
        self.clock = RemoteClock(connection)

    # Peers ------------------------------------------------------------------------------------------------------------

    def devices(self) -> list[DeviceTuple]:
        """Returns the devices, page by page."""
        return [_device(device) for device in self._devices()]

    def _devices(self) -> Iterator[Mapping[str, Any]]:
        after: str | None = None
        while True:
            page = self._connection.request("GET", "/devices", query={"after": after, "info": True})
            yield from page["devices"]
            if (after := page["next"]) is None:
                return

    def device(self, device_id: str) -> DeviceTuple | None:
        """Returns the device of this id."""
        if not device_id:
            return None  # A path cannot have it.
        found = found_or_none(self._connection, "GET", f"/devices/{quote(device_id, '')}")
        return None if found is None else _device(found)

    def nodes(self) -> list[tuple[str, str, str, str, str, int]]:
        """Returns the nodes of the cluster."""
        names = ("name", "incarnation", "address", "state", "build", "devices")
        nodes = self._connection.request("GET", "/nodes")["nodes"]
        return [tuple(node[name] for name in names) for node in nodes]

    def clients(self, device_id: str | None) -> list[ClientTuple]:
        """Returns the clients of a device, or of all."""
        if device_id == "":
            return []
        path = "/clients" if device_id is None else f"/devices/{quote(device_id, '')}/clients"
        names = ("device_id", "client_id", "address", "port", "since", "identity")
        clients = self._connection.request("GET", path)["clients"]
        return [tuple(client[name] for name in names) for client in clients]

    def waiting(self) -> list[WaitingTuple]:
        """Returns the clients that wait for a device."""
        names = ("device_id", "address", "port", "since", "identity")
        waiting = self._connection.request("GET", "/waiting")["waiting"]
        return [tuple(client[name] for name in names) for client in waiting]

    # Counters and changes ---------------------------------------------------------------------------------------------

    def incidents(self) -> list[tuple[str, int]]:
        """Returns the counts of incidents."""
        return list(self._connection.request("GET", "/stats")["incidents"].items())

    def peers(self) -> tuple[int, int, int, int]:
        """Returns the number of connections, devices, clients and waiting clients."""
        stats = self._connection.request("GET", "/stats")
        return stats["connections"], stats["devices"], stats["clients"], stats["waiting"]

    def stats(self) -> tuple[int, int, int, int, int]:
        """Returns the counts of forwards."""
        stats = self._connection.request("GET", "/stats")
        return stats["accepted"], stats["delivered"], stats["refused"], stats["gone"], stats["dropped"]

    def changes(self) -> int:
        """Returns the number of changes so far."""
        return int(self._connection.request("GET", "/changes")["changes"])

    def wait_change(self, seen: int, timeout: float) -> int:
        """Waits until the number is another one, and returns it."""
        query = {"seen": seen, "wait": round(timeout, 3)}
        return int(self._connection.request("GET", "/changes", query=query, wait=timeout)["changes"])


def _device(device: Mapping[str, Any]) -> DeviceTuple:
    return (
        *(device["device_id"], device["address"], device["port"], device["since"], device["identity"]),
        *(device["clients"], device["info"] or "null"),
        (device["group"], device["owner"], device["name"], device["adb_port"]),
        *(device["web_port"], device["node"], device.get("local_id")),
    )
