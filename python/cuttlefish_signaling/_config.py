"""The settings of a server: types checked, hooks told from lists, errors that name the setting."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from os import PathLike
from typing import Any, TypeAlias

from . import _native
from ._checks import check_integer as _integer
from ._checks import check_seconds as check_seconds
from ._checks import names as names
from ._models import AuthorizeContext, FilterContext, IceContext, IceServer
from ._native import TurnRest
from ._tls import Tls
from .errors import BindError, ConfigError

Authorize: TypeAlias = Callable[[AuthorizeContext], Any]
"""Returns an identity (anything JSON can say), a `Grant` or None, or raises `Refused`; `def` or `async def`."""

FilterDeviceInfo: TypeAlias = Callable[[Any, FilterContext], Any]
"""Returns what the client may see of the device info; `def` or `async def`."""

IceHook: TypeAlias = Callable[[IceContext], Any]
"""Returns a list of ICE servers; `def` or `async def`."""

IceServers: TypeAlias = Iterable[IceServer | dict[str, Any]] | TurnRest | IceHook
"""A list, time-limited TURN credentials, or a hook asked for each peer."""


SWITCHES = ("allow_unauthenticated", "dashboard", "journal", "proxy_device_files")
"""Settings that are True or False."""
MAX_SOCKET_PATH = 96
"""Bytes in the path of a local socket."""


@dataclass(frozen=True)
class Limits:
    """Bounds on what peers may take. Times are in seconds."""

    max_message_size: int = 256 * 1024
    """The largest message taken in, in bytes, fragments added up; larger is closed [1009]. Four times what a device
    can be sent, so that a forward that is merely too large for it is answered and not cut off."""
    max_first_message: int = 64 * 1024
    """The largest message taken in before a peer has registered or connected, in bytes: a stranger is not given more
    room than a device could take."""
    max_connections: int = 16_384
    """Connections at a time; beyond it requests are answered 503. Ten thousand devices, and clients; an idle one takes
    4 KiB."""
    max_connections_per_address: int = 512
    """Connections at a time from one address, loopback exempt; beyond it 503. A lab behind one address."""
    new_per_second: int = 30_000
    """New connections a second, and at once; beyond it 503. Twice what one core can open."""
    max_opening: int = 1_024
    """Connections that have not said yet what they want; beyond it the oldest of them goes. Honest ones take
    milliseconds."""
    max_devices: int = 16_384
    """Devices at a time; beyond it 503."""
    max_device_id: int = 256
    """The longest device id, in bytes; a longer one is refused [1008]. Names of a pre-registration as well."""
    max_clients_per_device: int = 1_024
    """Clients of one device at a time; one more is closed [1013]."""
    message_per_second: int = 10_000
    """Messages one peer may send a second; beyond it, it is closed [1008]. Far beyond any session, and a bound on what
    one peer can take of a core."""
    message_burst: int = 20_000
    """Messages at once."""
    byte_per_second: int = 16 * 1024 * 1024
    """Bytes one peer may send a second, as they come over the network; beyond it, it is closed [1008]."""
    byte_burst: int = 32 * 1024 * 1024
    """Bytes at once."""
    error_per_second: int = 20
    """Errors a second that leave a peer connected; beyond it, it is closed [1008]."""
    error_burst: int = 100
    """Errors at once."""
    ping_per_second: int = 20
    """Pings and pongs one peer may send a second; beyond it, it is closed [1008]. Real ones ping every 3 s."""
    ping_burst: int = 100
    """Pings and pongs at once."""
    write_timeout: float = 10.0
    """How long a peer may take none of what is written to it; then it is closed [1013]."""
    outbox_messages: int = 256
    """Messages that may wait for one peer; one more, and it is closed [1013]. A session takes a few dozen."""
    outbox_bytes: int = 1024 * 1024
    """Bytes that may wait for one peer."""
    first_message_timeout: float | None = 10.0
    """How long a peer may take to register or connect; None is for ever."""
    request_head_timeout: float = 5.0
    """How long a request head may take."""
    max_headers: int = 64
    """How many headers a request may have; browsers send about 20."""
    max_request_head: int = 16 * 1024
    """How large a request head may be, in bytes; at least 8192."""
    tls_handshake_timeout: float = 5.0
    """How long a TLS handshake may take."""
    probe_timeout: float = 2.0
    """How long the holder of an id has to answer a ping when somebody else registers it."""
    close_timeout: float = 5.0
    """How long a closed connection may take to take what waits for it and to say goodbye."""
    journal_entries: int = 10_000
    """Entries a journal keeps; hundreds of sessions. Beyond it the oldest goes."""
    journal_bytes: int = 16 * 1024 * 1024
    """Bytes of messages a journal keeps."""
    held_by_faults: int = 10_000
    """Forwards that faults may hold back at a time; more go on at once, which their fault tells."""
    polled_timeout: float = 30.0
    """How long a client that polls may stay away; then it has left. No request of it waits for longer."""
    max_polled: int = 1_024
    """Clients that poll, at a time; beyond it 503. Each may keep twice what an outbox holds."""
    max_viewers: int = 32
    """Pages that watch the server live, at a time; beyond it 503. Each is told what has moved four times a second."""
    proxy_timeout: float = 10.0
    """How long a device's own web server may take to answer, and between two parts of an answer."""
    goodbye_timeout: float = 0.25
    """How long a peer may take to answer the goodbye of a server that stops."""
    hook_threads: int = 32
    """Threads that run `def` hooks, started as needed. Questions that find none free wait, under their deadline."""


@dataclass(frozen=True)
class Keepalive:
    """When a silent connection is found dead: after `interval + timeout`. Times are in seconds."""

    interval: float | None = 10.0
    """Silence after which a peer is pinged; None never pings."""
    timeout: float = 5.0
    """How long the pong may take."""


@dataclass(frozen=True)
class Settings:
    """Everything a server is told, checked."""

    host: str
    port: int
    device_socket: str | PathLike[str] | None
    control_socket: str | PathLike[str] | None
    tls: Tls | None
    filter_device_info: FilterDeviceInfo | None
    authorize: Authorize | None
    device_wait_timeout: float | None
    on_duplicate: str
    client_ids: str
    hook_timeout: float
    limits: Limits
    keepalive: Keepalive
    allowed_hosts: tuple[str, ...]
    allowed_origins: tuple[str, ...]
    allow_unauthenticated: bool
    dashboard: bool
    assets_dir: str | os.PathLike[str] | None
    proxy_device_files: bool
    devices_format: str
    journal: bool
    workers: int
    stop_timeout: float
    native: dict[str, Any] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.host, str) or not self.host:
            raise ConfigError("host", f"must be an address or a name, got {self.host!r}")
        _integer("port", self.port, 0, 65535)
        if self.tls is not None and not isinstance(self.tls, Tls):
            raise ConfigError("tls", f"must be a Tls or None, got {self.tls!r}")
        for name in ("filter_device_info", "authorize"):
            hook = getattr(self, name)
            if hook is not None and not callable(hook):
                raise ConfigError(name, f"must be callable, got {hook!r}")
        if self.on_duplicate not in ("reject", "replace"):
            raise ConfigError("on_duplicate", f"must be 'reject' or 'replace', got {self.on_duplicate!r}")
        if self.client_ids not in ("from_one", "unique"):
            raise ConfigError("client_ids", f"must be 'from_one' or 'unique', got {self.client_ids!r}")
        if self.devices_format not in ("full", "ids"):
            raise ConfigError("devices_format", f"must be 'full' or 'ids', got {self.devices_format!r}")
        check_seconds("device_wait_timeout", self.device_wait_timeout, optional=True)
        check_seconds("hook_timeout", self.hook_timeout, zero=False)
        check_seconds("stop_timeout", self.stop_timeout)
        for name in SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(name, f"must be True or False, got {getattr(self, name)!r}")
        _integer("workers", self.workers, 1, 1024)
        native = self.native
        for setting in ("device_socket", "control_socket"):
            native[setting] = _socket_path(setting, getattr(self, setting))
        native["assets_dir"] = _path("assets_dir", self.assets_dir)
        for setting in (
            "port",
            "device_wait_timeout",
            "on_duplicate",
            "client_ids",
            "devices_format",
            "hook_timeout",
            "workers",
            *SWITCHES,
        ):
            native[setting] = getattr(self, setting)
        # The name it is bound by is a name it is known by.
        native["allowed_hosts"] = [self.host, *self.allowed_hosts]
        native["allowed_origins"] = list(self.allowed_origins)
        native["tls"] = self.tls and self.tls._native
        _add_group(native, "limits", self.limits, Limits)
        _add_group(native, "keepalive", self.keepalive, Keepalive)


def _path(setting: str, path: Any) -> str | None:
    if path is None:
        return None
    try:
        text: object = os.fspath(path)
    except TypeError:
        raise ConfigError(setting, f"must be a path or None, got {path!r}") from None
    if not isinstance(text, str) or not text or "\0" in text:
        raise ConfigError(setting, f"must be a path or None, got {text!r}")
    return text


def _socket_path(setting: str, path: Any) -> str | None:
    text = _path(setting, path)
    # What the system has room for, the suffix included under which a socket is made.
    if text is not None and len(os.fsencode(text)) > MAX_SOCKET_PATH:
        raise ConfigError(setting, f"{text!r} is too long for a local socket: at most {MAX_SOCKET_PATH} bytes")
    return text


def _add_group(native: dict[str, Any], name: str, group: Any, kind: type) -> None:
    if not isinstance(group, kind):
        raise ConfigError(name, f"must be {kind.__name__}(...), got {group!r}")
    for item in fields(group):  # type: ignore[arg-type]
        value, setting = getattr(group, item.name), f"{name}.{item.name}"
        if item.type == "int":
            _integer(setting, value, 1, 2**40)
        else:
            check_seconds(setting, value, optional="None" in str(item.type), zero=False)
        native[setting] = value


@dataclass(frozen=True)
class IceSource:
    """Where ICE servers come from, read once: an iterable can be read no second time."""

    native: TurnRest | str | None
    """What the core is told: a TurnRest, the JSON of a list, or None for the hook."""
    hook: IceHook | None

    @classmethod
    def of(cls, source: IceServers) -> IceSource:
        """Raises ConfigError, which names the entry."""
        if isinstance(source, TurnRest):
            return cls(source, None)
        if callable(source):
            return cls(None, source)
        return cls(ice_json(source), None)


def ice_json(servers: Any) -> str:
    """The JSON of a list of `IceServer`s or dictionaries. Raises ConfigError, which names the entry."""
    if isinstance(servers, str | bytes | dict | IceServer) or not isinstance(servers, Iterable):
        raise ConfigError("ice_servers", f"expected a list of IceServer, got {servers!r}")
    entries = [entry._json() if isinstance(entry, IceServer) else entry for entry in servers]
    try:
        text = json.dumps(entries, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError("ice_servers", f"can not be written as JSON: {error}") from error
    _native.check_ice_servers(text)
    return text


def resolve(host: str, port: int) -> str:
    """The IP address a host name stands for. Raises BindError."""
    import socket

    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None)
        raise BindError(number, f"host: {host!r} is no address and no known name: {error}") from error
    return str(found[0][4][0])
