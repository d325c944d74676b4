"""The values that a server returns and that hooks receive: immutable snapshots, never live objects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from ._checks import check_seconds, names
from ._field_docs import with_field_docs
from ._raw_json import parse
from .errors import ConfigError

_Place: TypeAlias = tuple[str, str, str, int]
DeviceTuple: TypeAlias = (
    tuple[str, str | None, int | None, float, str | None, int | None, str, _Place, int | None, str | None]
    | tuple[str, str | None, int | None, float, str | None, int | None, str, _Place, int | None, str | None, str | None]
)
"""The fields of `Device`, with or without the local id."""
ClientTuple: TypeAlias = tuple[str, int, str | None, int | None, float, str | None]
WaitingTuple: TypeAlias = tuple[str, str | None, int | None, float, str | None]
PeerTuple: TypeAlias = tuple[
    str, str | None, int | None, float, str, str, list[tuple[str, str]], str | None, str | None
]


class Headers(Mapping[str, str]):
    """Request headers: a mapping with case-insensitive keys. The values of a repeated header are joined by commas.

    Raises:
        ConfigError: They are neither a mapping nor pairs of strings.
    """

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        merged: dict[str, str] = {}
        for name, value in _pairs(items):
            key = name.lower()
            merged[key] = f"{merged[key]}, {value}" if key in merged else value
        self._items = merged

    @classmethod
    def _of(cls, items: list[tuple[str, str]]) -> Headers:
        """Takes the headers of a request as the core has them: their names are in lower case."""
        merged = dict(items)
        if len(merged) != len(items):
            return cls(items)
        made = cls.__new__(cls)
        made._items = merged
        return made

    def __getitem__(self, name: str) -> str:
        return self._items[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        # Values may be credentials.
        return f"<Headers {', '.join(self._items)}>"


class _Job(Protocol):
    """The call of a hook, whose peer is read when the hook uses it."""

    @property
    def peer(self) -> PeerTuple: ...


@with_field_docs
@dataclass(frozen=True)
class Peer:
    """A peer, as the transport and `authorize` know it."""

    role: Literal["device", "client", "http"]
    """Its role: `device`, `client`, or `http` for any other request."""
    address: str | None
    """Its IP address."""
    port: int | None
    """Its TCP port."""
    since: float
    """When it connected, in seconds since 1970."""
    path: str
    """The path of its request, as routes match it: `%3A` and other characters that a path may contain are decoded,
    `%2F` stays."""
    query_string: str = field(repr=False)
    """The query of its request, without `?`. `repr` leaves it out, since it may have a token."""
    headers: Headers
    """The headers of its request."""
    certificate: str | None
    """The subject of its TLS certificate (`CN=alice, O=lab`), if `Tls(..., client_ca=...)` requires one."""
    identity: Any
    """The identity that `authorize` returned for it."""

    @property
    def query(self) -> dict[str, str]:
        """The parameters of the query; the last value of each."""
        from urllib.parse import parse_qsl

        return dict(parse_qsl(self.query_string, keep_blank_values=True))

    @classmethod
    def _of(cls, job: _Job) -> Peer:
        """The peer of a call. The first use of a field reads them all: many hooks use none."""
        made = object.__new__(cls)
        made.__dict__["_job"] = job
        return made

    if not TYPE_CHECKING:  # A type checker would take any attribute for a field.

        def __getattr__(self, name: str) -> Any:
            fields = self.__dict__
            job = fields.get("_job")
            if job is not None:
                fields.update(_fields(job.peer))
                # Last: another thread that does not find the job finds the fields.
                fields.pop("_job", None)
            return object.__getattribute__(self, name)

    def __getstate__(self) -> dict[str, Any]:
        """All fields, for a copy."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@with_field_docs
@dataclass(frozen=True)
class AuthorizeContext:
    """A request that `authorize` accepts or refuses."""

    role: Literal["device", "client", "http"]
    """The kind of request: `device`, `client`, or `http` for anything but the two WebSocket endpoints."""
    peer: Peer
    """The sender of the request. Its `identity` is None: the hook returns it."""

    @property
    def path(self) -> str:
        """The path of the request, as `Peer.path`."""
        return self.peer.path

    @property
    def query(self) -> dict[str, str]:
        """The parameters of the query."""
        return self.peer.query

    @property
    def headers(self) -> Headers:
        """The headers of the request."""
        return self.peer.headers

    @property
    def address(self) -> str | None:
        """The IP address of the sender."""
        return self.peer.address


@with_field_docs
@dataclass(frozen=True)
class Grant:
    """A result of `authorize` that has an identity and limits the peer to some devices.

    The peer cannot tell other devices from devices that do not exist: a client receives `Device not found` after the
    same wait, and a listing omits them. A device may register ids of its grant only; others are `Not authorized`.

    Raises:
        ConfigError: `devices` is not a list of strings, `manage` or `exclusive` is no bool, `advertise_address` has an
            invalid rule, or two that contradict each other, or `valid_for` is not a number above 0.
    """

    identity: Any = None
    """The identity of the peer: any JSON value."""
    devices: Sequence[str] | None = None
    """Patterns of device ids: `*` matches any characters, `?` one character. `None` allows all devices."""
    manage: bool = False
    """Whether the peer may manage these devices on the dashboard: disconnect them and their clients, and export the
    payloads of their messages."""
    advertise_address: Sequence[str] | None = None
    """The addresses at which clients reach the peer, if it is a device that sees others: `INNER=OUTER`, each an address
    or a network. `None`: those of the setting `advertise_address`; an empty list: none."""
    valid_for: float | None = None
    """The seconds for which the answer holds. Then the connection is closed (`Authorization expired` [1008]), unless
    the setting `on_token_expiry` is "keep". `None`: as long as the connection lasts."""
    exclusive: bool = False
    """Whether the peer, as a client, has a device for itself: it connects only to a device without clients, and until
    it leaves each other client is refused with `Connection failed: Device in use: 'ID'` [1013]."""

    def __post_init__(self) -> None:
        for name, given in (("devices", self.devices), ("advertise_address", self.advertise_address)):
            if given is not None:
                object.__setattr__(self, name, names(f"Grant.{name}", given))
        for name, value in (("manage", self.manage), ("exclusive", self.exclusive)):
            if not isinstance(value, bool):
                raise ConfigError(f"Grant.{name}", f"must be True or False, got {value!r}")
        check_seconds("Grant.valid_for", self.valid_for, optional=True, zero=False)


@with_field_docs
@dataclass(frozen=True)
class IceContext:
    """The peer that `ice_servers` is called for."""

    role: Literal["device", "client", "http"]
    """`device` or `client`: the role in which the peer will use the ICE servers."""
    device_id: str | None
    """The device id that it registers or connects to; `None` for `GET /infra_config`."""
    peer: Peer
    """The peer."""


@with_field_docs
@dataclass(frozen=True)
class FilterContext:
    """The device and the client that `filter_device_info` is called for."""

    device_id: str
    """The id of the device that sent the info."""
    client: Peer
    """The client that receives the result."""
    group_name: str = ""
    """The group of the device: the one it was pre-registered in, else the `group_id` of its device info, else empty."""
    owner: str = ""
    """The owner of the device, if it was pre-registered with one; else empty."""
    name: str = ""
    """The name of the device, if it was pre-registered with one; else empty."""
    adb_port: int = 0
    """The TCP port of its adb, if it was pre-registered with one; else 0."""


@with_field_docs
@dataclass(frozen=True)
class Device:
    """A registered device."""

    device_id: str
    """The id that it registered."""
    address: str | None
    """Its IP address."""
    port: int | None
    """Its TCP port."""
    since: float
    """When it connected, in seconds since 1970."""
    identity: Any
    """The identity that `authorize` returned for it."""
    clients: int | None
    """The number of clients connected to it. None in a list, for a device of another node."""
    info_json: str = field(repr=False)
    """Its device info, byte for byte as it sent it. `null` in a list, for a device of another node: `device()` and
    `wait_for_device()` ask that node for it, and for the address, the identity and the clients."""
    group_name: str = ""
    """The group it was pre-registered in, over the control socket; else the `group_id` of its device info; else
    empty."""
    owner: str = ""
    """The owner named in the pre-registration, or empty."""
    name: str = ""
    """The name given in the pre-registration, or empty."""
    adb_port: int = 0
    """The TCP port of its adb, given in the pre-registration, or 0."""
    device_port: int | None = None
    """The port of its own web server on this machine, as it announced on the device socket."""
    node: str | None = None
    """The name of the node of the cluster where it registered; None without a cluster."""
    local_id: str | None = None
    """The id that it has registered, if `device_id_template` gives it another one in the cluster; else None."""

    @property
    def info(self) -> Any:
        """Its device info, parsed."""
        return parse(self.info_json)

    @classmethod
    def _of(cls, device: DeviceTuple) -> Device:
        device_id, address, port, since, identity, clients, info, place, device_port, node = device[:10]
        local_id = next(iter(device[10:]), None)
        known = _identity(identity)
        return cls(device_id, address, port, since, known, clients, info, *place, device_port, node, local_id)


@with_field_docs
@dataclass(frozen=True)
class Node:
    """A node of a cluster, as another node or itself knows it."""

    name: str
    """The name, unique in the cluster."""
    incarnation: str
    """This start of the node: its name and 64 random bits."""
    address: str
    """The `HOST:PORT` at which other nodes reach it."""
    state: Literal["this", "alive", "draining", "unreachable"]
    """`this`: the node that was asked. `alive`: it renews its lease. `draining`: it is about to stop, and takes no new
    peers. `unreachable`: the node that was asked has not reached it for 10 s, or it has another version between nodes,
    or its lease has run out and its devices are kept for a time."""
    build: str
    """The version of its program."""
    devices: int
    """The number of devices that have registered there."""


@with_field_docs
@dataclass(frozen=True)
class Client:
    """A client that has received its device info."""

    device_id: str
    """The device it is connected to."""
    client_id: int
    """The id by which its device addresses it, from 1."""
    address: str | None
    """Its IP address."""
    port: int | None
    """Its TCP port."""
    since: float
    """When it connected, in seconds since 1970."""
    identity: Any
    """The identity that `authorize` returned for it."""

    @classmethod
    def _of(cls, client: ClientTuple) -> Client:
        device_id, client_id, address, port, since, identity = client
        return cls(device_id, client_id, address, port, since, _identity(identity))


@with_field_docs
@dataclass(frozen=True)
class WaitingClient:
    """A client that waits for its device to register (`device_wait_timeout`)."""

    device_id: str
    """The device that it waits for."""
    address: str | None
    """Its IP address."""
    port: int | None
    """Its TCP port."""
    since: float
    """When it connected, in seconds since 1970."""
    identity: Any
    """The identity that `authorize` returned for it."""

    @classmethod
    def _of(cls, client: WaitingTuple) -> WaitingClient:
        device_id, address, port, since, identity = client
        return cls(device_id, address, port, since, _identity(identity))


def _pairs(items: Any) -> Iterator[tuple[str, str]]:
    """Returns names and values of headers."""
    if isinstance(items, str | bytes) or not isinstance(items, Iterable):
        raise ConfigError("Headers", f"must be a mapping or pairs of strings, got {items!r}")
    for item in items.items() if isinstance(items, Mapping) else items:
        if not isinstance(item, tuple) or len(item) != 2 or not all(isinstance(part, str) for part in item):
            raise ConfigError("Headers", f"must be a mapping or pairs of strings, got {item!r} in it")
        yield item


def _fields(peer: PeerTuple) -> dict[str, Any]:
    """The fields of `Peer`, as the core has them."""
    *plain, headers, certificate, identity = peer
    names = ("role", "address", "port", "since", "path", "query_string")
    more = {"headers": Headers._of(headers), "certificate": certificate, "identity": _identity(identity)}
    return dict(zip(names, plain, strict=True)) | more


def _identity(text: str | None) -> Any:
    return None if text is None else json.loads(text)
