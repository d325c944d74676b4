"""The listeners of a server: the texts of the setting `listen`, and the URLs at which a listener is reached."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from . import _native
from .errors import ConfigError

UNIX_MODE = 0o660
"""The permissions of a Unix socket for HTTP whose listener names none."""

PRIVATE_MODE = 0o600
"""The same for the control API."""

EVERY_ADDRESS = ("0.0.0.0", "::")

_AUTHORITY = re.compile(r"(\[[^\[\]/?#@]+\]|[^:/?#@\[\]\s]+):([0-9]+)/?")
_FORMS = "write http://HOST:PORT, https://HOST:PORT or unix:PATH?mode=0660"


class Listener(NamedTuple):
    """One listener: `http` or `https`, a host and a port; or `unix`, a path and a mode. The core takes it as it is."""

    scheme: str
    place: str
    number: int

    @property
    def is_tls(self) -> bool:
        """Whether its connections are encrypted."""
        return self.scheme == "https"

    @property
    def url(self) -> str:
        """The text of the setting, without the mode."""
        return f"unix:{self.place}" if self.scheme == "unix" else url(self.scheme, self.place, self.number)

    @classmethod
    def parse(cls, setting: str, text: str, *, most: int, mode: int = UNIX_MODE) -> Listener:
        """Reads a text of the setting. Raises ConfigError. `most` bytes fit into the path of a Unix socket.

        `mode` is that of a Unix socket whose text has none.
        """
        scheme, _, rest = text.partition(":")
        if scheme == "unix":
            return cls._unix(setting, text, rest, most, mode)
        found = _AUTHORITY.fullmatch(rest[2:]) if rest.startswith("//") else None
        if scheme not in ("http", "https") or found is None:
            missing = " (the port is missing)" if scheme in ("http", "https") and ":" not in rest[2:] else ""
            raise ConfigError(setting, f"{text!r} is not a listener{missing}: {_FORMS}")
        if found[1].startswith("[") and not _is_ipv6(found[1].strip("[]")):
            raise ConfigError(setting, f"{text!r} has no IPv6 address in brackets: {_FORMS}")
        port = int(found[2])
        if port > 65535:
            raise ConfigError(setting, f"{text!r} has the port {port}; ports are between 0 and 65535")
        return cls(scheme, found[1].strip("[]"), port)

    @classmethod
    def _unix(cls, setting: str, text: str, rest: str, most: int, default: int) -> Listener:
        path, mark, query = rest.partition("?")
        if not path or "\0" in path:
            raise ConfigError(setting, f"{text!r} has no path: {_FORMS}")
        if len(path.encode("utf-8", "surrogateescape")) > most:
            raise ConfigError(setting, f"{path!r} is too long for a local socket: at most {most} bytes")
        mode = re.fullmatch(r"mode=(0?[0-7]{3})", query)
        if mark and mode is None:
            raise ConfigError(setting, f"{text!r} has {query!r} after its path; write ?mode=0660, three octal digits")
        return cls("unix", path, int(mode[1], 8) if mode else default)


def _is_ipv6(text: str) -> bool:
    import socket

    try:
        socket.inet_pton(socket.AF_INET6, text.partition("%")[0])
    except (OSError, ValueError):
        return False
    return True


def url(scheme: str, host: str, port: int) -> str:
    """Returns a URL without a path."""
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def machine_addresses() -> list[str]:
    """Returns the addresses by which other machines may reach this one, if the system tells them."""
    try:
        return _native.machine_addresses()
    except OSError:  # A sandbox without AF_NETLINK.
        return []


def urls(listeners: Iterable[tuple[str, str, int]]) -> list[str]:
    """Returns the URLs of listeners, with the machine's addresses for a listener on all addresses, loopback last."""
    found = []
    for listener in map(Listener._make, listeners):
        if listener.scheme == "unix" or listener.place not in EVERY_ADDRESS:
            found.append(listener.url)
            continue
        addresses = [*machine_addresses(), "127.0.0.1", "::1"]
        only_v4 = listener.place == "0.0.0.0"
        found += [url(listener.scheme, host, listener.number) for host in addresses if not only_v4 or ":" not in host]
    return found
