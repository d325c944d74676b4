"""The checked settings of a server, and where its ICE servers come from."""

from __future__ import annotations

from . import _native
from ._checks import check_seconds as check_seconds
from ._settings import GROUPS, KEYWORDS
from ._settings.kinds import Sockets, Strings
from .errors import BindError, ConfigError

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ._hook_types import Authorize, FilterDeviceInfo, IceHook, IceServers
    from ._limits import Limits
    from ._listen import Listener
    from ._tls import Tls


_LISTS = {row.name for row in KEYWORDS if isinstance(row.kind, Strings | Sockets)}

_DEFAULTS = {row.name: row.default for row in KEYWORDS}


class Settings:
    """The checked settings of a server: those that Python reads, and `native`, which the Rust core reads."""

    host: str
    port: int
    listen: tuple[Listener, ...]
    metrics: tuple[Listener, ...]
    control_api: tuple[Listener, ...]
    tls: Tls | None
    filter_device_info: FilterDeviceInfo | None
    authorize: Authorize | None
    journal: bool
    drain: float
    drain_spread: float
    stop_timeout: float
    limits: Limits
    native: dict[str, Any]
    given: dict[str, Any]
    """The keyword arguments, for a reload that replaces some of them. Iterators were read."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)

    def replace(self, **values: Any) -> Settings:
        """Returns a copy with other values."""
        return Settings({**self.__dict__, **values})

    @classmethod
    def of(cls, given: dict[str, Any]) -> Settings:
        """Checks the keyword arguments of `SignalingServer`. Raises ConfigError, which names the setting."""
        given = {
            name: tuple(value) if name in _LISTS and hasattr(type(value), "__next__") else value
            for name, value in given.items()
        }
        # All are checked, `limits` and `keepalive` themselves before their fields.
        native = _checked_defaults()
        for row in KEYWORDS:
            value = given[row.name]
            if not _is_default(value, row.default):
                checked = row.kind.check(row.path, value)
                if row.is_core:
                    native[row.path] = checked
        for name in GROUPS:
            native.update(_checked_group(name, given[name]))
        listen, metrics, control = (tuple(native[name]) for name in ("listen", "metrics", "control_api"))
        if control and native["control_token"] is None:
            # Kept with the settings, so that a reload and a next start have the same.
            native["control_token"] = given["control_token"] = random_token()
        if listen and (other := [name for name in ("host", "port") if given[name] != _DEFAULTS[name]]):
            raise ConfigError("listen", f"contradicts {' and '.join(other)}: it has all addresses and ports")
        if native["upstream"] and given["filter_device_info"] is not None:
            raise ConfigError("filter_device_info", "has no effect with upstream: a proxy changes no message")
        # Requests may name the server by the names that it is bound to. Addresses are allowed anyway.
        bound = [one.place for one in (*listen, *metrics, *control) if one.scheme != "unix"]
        if not listen:
            bound.append(given["host"])
        native["allowed_hosts"][:0] = [name for name in bound if _native.allowance_fault("allowed_hosts", name) is None]
        same = {name: given[name] for name in _SAME}
        made = {"native": native, "listen": listen, "metrics": metrics, "control_api": control, "given": given}
        return cls({**same, **made})

    def resolved(self) -> dict[str, Any]:
        """Returns the settings for the core, with addresses in the place of host names. Raises BindError."""
        named = (("listen", self.listen), ("metrics", self.metrics), ("control_api", self.control_api))
        listeners = {setting: _resolved(setting, given) for setting, given in named}
        # The core reads `host` in either case.
        host = self.host if self.listen else resolve("host", self.host, self.port)
        return {**self.native, **listeners, "host": host}


def random_token() -> str:
    """Returns a token of the control API that cannot be guessed."""
    import secrets

    return secrets.token_urlsafe(32)


_MADE = ("native", "listen", "metrics", "control_api", "given")
_SAME = [name for name in Settings.__annotations__ if name not in _MADE]
"""The arguments that are kept as they are."""


def _resolved(setting: str, listeners: Iterable[Listener]) -> list[Listener]:
    """Returns the listeners with addresses in the place of host names. Raises BindError."""
    return [
        one if one.scheme == "unix" else one._replace(place=resolve(setting, one.place, one.number))
        for one in listeners
    ]


_PLAIN = (str, int, float, bool, tuple)
"""The types of defaults that two modules may have as two objects."""


def _is_default(value: Any, default: Any) -> bool:
    if value is default:
        return True
    # `True` equals 1, and is an error as a number.
    return type(value) in _PLAIN and type(value) is type(default) and bool(value == default)


_defaults: dict[str, Any] = {}
"""The checked defaults, for the core. They are checked with the first server."""


def _checked_defaults() -> dict[str, Any]:
    """Returns the defaults for the core. To check them takes a tenth of the time of a start and stop."""
    if not _defaults:
        _defaults.update({row.path: row.kind.check(row.path, row.default) for row in KEYWORDS if row.is_core})
    return {path: value.copy() if isinstance(value, list) else value for path, value in _defaults.items()}


_checked_groups: dict[str, tuple[Any, dict[str, Any]]] = {}
"""The `Limits` and the `Keepalive` that were checked last, and their values for the core."""


def _checked_group(name: str, group: Any) -> dict[str, Any]:
    """Checks `limits` or `keepalive`, and returns the values for the core.

    Most servers share the default objects, which cannot change: they are checked once. To check all fields takes a
    quarter of the time of a start and stop.
    """
    known = _checked_groups.get(name)
    if known is None or known[0] is not group:
        checked = [(row, row.kind.check(row.path, getattr(group, row.name, None))) for row in GROUPS[name]]
        known = _checked_groups[name] = (group, {row.path: value for row, value in checked if row.is_core})
    return known[1]


class IceSource:
    """Where ICE servers come from. An iterable is read once, here."""

    def __init__(self, native: _native.TurnRest | _native.IceCommand | str | None, hook: IceHook | None) -> None:
        self.native: _native.TurnRest | _native.IceCommand | str | None = native
        """The source for the core: a TurnRest, a command, the JSON of a list, or None for the hook."""
        self.hook: IceHook | None = hook

    @classmethod
    def of(cls, source: IceServers) -> IceSource:
        """Reads the source. Raises ConfigError, which names the entry."""
        if isinstance(source, tuple) and not source:
            return cls(_native.checked_ice_servers("[]"), None)
        from ._ice_command import IceCommand, ice_json
        from ._turn import TurnRest

        if isinstance(source, TurnRest):
            return cls(source._native, None)
        if isinstance(source, IceCommand):
            return cls(source._native, None)
        if callable(source):
            from ._hook_checks import check_hook

            check_hook("ice_servers", source)
            return cls(None, source)
        return cls(ice_json(source), None)


def hook_names(settings: Settings, ice: IceSource) -> list[str]:
    """Returns the names of the hooks that there are."""
    names = [name for name in ("filter_device_info", "authorize") if getattr(settings, name) is not None]
    return [*names, "ice_servers"] if ice.hook is not None else names


_USUAL = ("127.0.0.1", "::1", "0.0.0.0", "::")
"""Addresses that stand for themselves, without a question to the system."""


def resolve(setting: str, host: str, port: int) -> str:
    """Returns the IP address of a host name. Raises BindError."""
    if host in _USUAL:
        return host
    import socket

    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None)
        raise BindError(number, f"{setting}: {host!r} is not an address and not a known name: {error}") from error
    return str(found[0][4][0])
