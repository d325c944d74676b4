"""The address of the server."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import quote

from ..errors import ConfigError

_ENDPOINTS = ("/register_device", "/connect_client")


class Target(NamedTuple):
    """The place of a server, from its URL."""

    is_tls: bool
    host: str
    """A name, or an address without brackets."""
    port: int
    prefix: str
    """The path below which the endpoints are: empty, or `/prefix`."""

    @property
    def authority(self) -> str:
        """The value of `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_tls else 80) else f"{host}:{self.port}"

    @property
    def shown(self) -> str:
        """The URL, for output."""
        return f"{'wss' if self.is_tls else 'ws'}://{self.authority}{self.prefix}"

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this machine, by its address or name."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def url(self, path: str) -> str:
        """Returns the WebSocket URL of a path."""
        return f"{self.shown}{path}"


def target_of(url: str) -> Target:
    """Returns the place of a URL. Raises ConfigError, which does not show the URL if it may have a secret in it."""
    found = re.fullmatch(
        r"(wss?|https?)://(\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[^\s/?#@:\[\]]+)(?::([0-9]{1,5}))?(/[^\s?#]*)?", url
    )
    if found is None:
        if "@" in url or "?" in url or "#" in url:
            raise ConfigError("URL", "has a user, a query or a fragment; write it without, and give --token-file")
        raise ConfigError("URL", f"{url!r} is not one; write ws://HOST:PORT, wss://, http:// or https://")
    scheme, host, port, path = found.groups()
    is_tls = scheme in ("wss", "https")
    number = int(port) if port else (443 if is_tls else 80)
    if not 1 <= number <= 65535:
        raise ConfigError("URL", f"the port {number} is not between 1 and 65535")
    prefix = quote(path or "", safe="/%:~+-._!$&'()*,;=").rstrip("/")
    for endpoint in _ENDPOINTS:
        prefix = prefix.removesuffix(endpoint)
    return Target(is_tls, host.strip("[]"), number, prefix)
