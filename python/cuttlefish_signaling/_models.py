"""What comes out of a server and what hooks see: immutable snapshots, never live objects."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from ._checks import names

DeviceTuple: TypeAlias = tuple[
    str, str | None, int | None, float, str | None, int, str, tuple[str, str, str, int], int | None
]
PeerTuple: TypeAlias = tuple[
    str, str | None, int | None, float, str, str, list[tuple[str, str]], str | None, str | None
]


class Headers(Mapping[str, str]):
    """Request headers: a mapping whose keys do not care for case. Of a header sent twice, all values, with commas."""

    __slots__ = ("_items",)

    def __init__(self, items: Sequence[tuple[str, str]] = ()) -> None:
        merged: dict[str, str] = {}
        for name, value in items:
            key = name.lower()
            merged[key] = f"{merged[key]}, {value}" if key in merged else value
        self._items = merged

    def __getitem__(self, name: str) -> str:
        return self._items[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        # Values may be credentials.
        return f"<Headers {', '.join(self._items)}>"


@dataclass(frozen=True)
class Peer:
    """One peer, as the transport and `authorize` know it."""

    role: Literal["device", "client", "http"]
    """What it came for."""
    address: str | None
    """Its IP address."""
    port: int | None
    """Its TCP port."""
    since: float
    """When it connected, in seconds since 1970."""
    path: str
    """The path of its request, as routes match it: `%3A` and other characters that a path may contain are decoded,
    `%2F` stays."""
    query_string: str
    """The query of its request, without `?`."""
    headers: Headers
    """The headers of its request."""
    certificate: str | None
    """Whom its TLS certificate is for (`CN=alice, O=lab`), where `Tls(..., client_ca=...)` asked for one."""
    identity: Any
    """What `authorize` returned for it."""

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters, the last value of each."""
        from urllib.parse import parse_qsl

        return dict(parse_qsl(self.query_string, keep_blank_values=True))

    @classmethod
    def _of(cls, peer: PeerTuple) -> Peer:
        role, address, port, since, path, query, headers, certificate, identity = peer
        return cls(role, address, port, since, path, query, Headers(headers), certificate, _identity(identity))  # type: ignore[arg-type]


@dataclass(frozen=True)
class AuthorizeContext:
    """What `authorize` is asked about: a request, before it is let in."""

    role: Literal["device", "client", "http"]
    """What it wants: `device`, `client`, or `http` for anything but the two WebSocket endpoints."""
    peer: Peer
    """Who asks. `identity` is what the hook is to find out."""

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
        """The IP address it comes from."""
        return self.peer.address


@dataclass(frozen=True)
class Grant:
    """What `authorize` may return instead of an identity: one that is for some devices only.

    The others are to such a peer as if they were not there, to the byte: a client hears `Device not found` after the
    same wait, a listing leaves them out. A device may register the ids of its grant; others are `Not authorized`.

    Raises:
        ConfigError: `devices` is no list of strings.
    """

    identity: Any = None
    """Who it is: anything JSON can say."""
    devices: Sequence[str] | None = None
    """Patterns of device ids: `*` stands for any characters, `?` for one. `None`: all devices."""

    def __post_init__(self) -> None:
        if self.devices is not None:
            object.__setattr__(self, "devices", names("Grant.devices", self.devices))


@dataclass(frozen=True)
class IceContext:
    """Whom `ice_servers` is asked for."""

    role: Literal["device", "client", "http"]
    """`device` or `client`: as what the peer will use them."""
    device_id: str | None
    """The device it registers as, or connects to; `None` for `GET /infra_config`."""
    peer: Peer
    """Who asks."""


@dataclass(frozen=True)
class FilterContext:
    """Whom `filter_device_info` is asked for."""

    device_id: str
    """The device the info is of."""
    client: Peer
    """The client that is to see it."""
    group_name: str = ""
    """The group of the device: the one it was pre-registered in, else the `group_id` of its device info, else empty."""
    owner: str = ""
    """Whose it is, where somebody said so."""
    name: str = ""
    """What it is called, where it was pre-registered."""
    adb_port: int = 0
    """Where adb reaches it, as was said then; 0 where nowhere."""


@dataclass(frozen=True)
class Device:
    """A registered device."""

    device_id: str
    """The id it registered."""
    address: str | None
    """Its IP address."""
    port: int | None
    """Its TCP port."""
    since: float
    """When it connected, in seconds since 1970."""
    identity: Any
    """What `authorize` returned for it."""
    clients: int
    """How many clients are connected to it."""
    info_json: str = field(repr=False)
    """Its device info, byte for byte as it sent it."""
    group_name: str = ""
    """The group it was pre-registered in, over the control socket; else the `group_id` of its device info; else
    empty."""
    owner: str = ""
    """Whose it was said to be there; empty where nobody said so."""
    name: str = ""
    """What it was called there."""
    adb_port: int = 0
    """Where adb reaches it, as was said there; 0 where nowhere."""
    device_port: int | None = None
    """Where its own web server listens on this machine, as it said on the device socket."""

    @property
    def info(self) -> Any:
        """Its device info, parsed."""
        return json.loads(self.info_json)

    @classmethod
    def _of(cls, device: DeviceTuple) -> Device:
        device_id, address, port, since, identity, clients, info, place, device_port = device
        return cls(device_id, address, port, since, _identity(identity), clients, info, *place, device_port)


@dataclass(frozen=True)
class Client:
    """A client that has its device info."""

    device_id: str
    """The device it is connected to."""
    client_id: int
    """The number by which the device knows it, from 1."""
    address: str | None
    """Its IP address."""
    port: int | None
    """Its TCP port."""
    since: float
    """When it connected, in seconds since 1970."""
    identity: Any
    """What `authorize` returned for it."""

    @classmethod
    def _of(cls, client: tuple[str, int, str | None, int | None, float, str | None]) -> Client:
        device_id, client_id, address, port, since, identity = client
        return cls(device_id, client_id, address, port, since, _identity(identity))


@dataclass(frozen=True)
class Stats:
    """Counters of one server, from its start. At rest `accepted == delivered + refused + gone + dropped`."""

    connections: int
    """Peers connected now, registered or not, over whatever they came."""
    devices: int
    """Devices registered now."""
    clients: int
    """Clients connected to a device now."""
    accepted: int
    """Forwards taken in."""
    delivered: int
    """Forwards written to their receiver."""
    refused: int
    """Forwards answered with an error."""
    gone: int
    """Forwards whose receiver was gone, which their sender was told."""
    dropped: int
    """Forwards that a fault dropped, which somebody armed."""
    hook_failures: int
    """Hooks that raised, hung or returned rubbish."""
    turned_away: int = 0
    """Connections answered 503: too many, too many of one address, too fast."""
    openings_cut: int = 0
    """Connections dropped before they had said what they want, to make room for others."""
    foreign: int = 0
    """Requests with a `Host` or `Origin` that is not allowed."""
    unauthorized: int = 0
    """Requests that `authorize` refused."""
    misbehaved: int = 0
    """Peers closed because they broke the protocol: 1002, 1003, 1007, 1008, 1009."""
    too_fast: int = 0
    """Peers closed because they sent faster than they may."""
    slow_consumers: int = 0
    """Peers closed because they did not read."""
    silent: int = 0
    """Peers dropped because they did not answer a ping."""
    errors_withheld: int = 0
    """Errors that were not sent to Cuttlefish's own devices, which would reconnect in a storm (docs/cuttlefish.md)."""
    panics: int = 0
    """Connections ended by a bug of ours."""

    @property
    def balances(self) -> bool:
        """Whether every forward that was taken in has come to one of its ends."""
        return self.accepted == self.delivered + self.refused + self.gone + self.dropped


@dataclass(frozen=True)
class IceServer:
    """A STUN or TURN server (W3C `RTCIceServer`). TURN needs `username` and `credential`."""

    urls: str | Sequence[str]
    """One URL or several: `stun:HOST[:PORT]`, `turn:HOST[:PORT][?transport=udp|tcp]`, `stuns:`, `turns:`."""
    username: str | None = None
    credential: str | None = field(default=None, repr=False)

    def _json(self) -> dict[str, Any]:
        urls = self.urls if isinstance(self.urls, str) else list(self.urls)
        named = {"urls": urls, "username": self.username, "credential": self.credential}
        return {key: value for key, value in named.items() if value is not None}


def _identity(text: str | None) -> Any:
    return None if text is None else json.loads(text)
