"""Where the endpoints of a signaling server are."""

from __future__ import annotations

import json
import ssl
from typing import Protocol

from .._tls import Tls
from ..errors import ConfigError


class Endpoint(Protocol):
    """Anything with the URLs of a signaling server: a `SignalingServer`, an `AttachedServer`."""

    @property
    def device_url(self) -> str: ...
    @property
    def client_url(self) -> str: ...
    @property
    def tls(self) -> Tls | None: ...


def endpoint(server: Endpoint | str, path: str, tls: ssl.SSLContext | None) -> tuple[str, ssl.SSLContext | None]:
    """The WebSocket URL of an endpoint, and what to verify its certificate with."""
    if not isinstance(server, str):
        url = server.device_url if path == "/register_device" else server.client_url
        own = server.tls.client_context() if tls is None and server.tls is not None else None
        return url, tls or own or getattr(server, "ssl_context", None)
    scheme, separator, rest = server.partition("://")
    scheme = {"http": "ws", "https": "wss"}.get(scheme, scheme)
    if not separator or scheme not in ("ws", "wss"):
        raise ConfigError("server", f"{server!r} is neither a server nor a URL with http, https, ws or wss")
    base, slash, query = rest.partition("?")
    base = base.rstrip("/")
    url = f"{scheme}://{base if base.endswith(path) else base + path}{slash}{query}"
    return url, tls or (ssl.create_default_context() if scheme == "wss" else None)


def error_of(body: bytes | bytearray | None) -> str | None:
    """The `error` of an HTTP response, if there is one."""
    try:
        return str(json.loads(body or b"")["error"])
    except (ValueError, KeyError, TypeError):
        return None
