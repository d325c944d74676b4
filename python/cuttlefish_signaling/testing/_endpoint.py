"""The WebSocket URLs of a signaling server."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from ..errors import ConfigError

if TYPE_CHECKING:
    from .._tls import Tls


class Endpoint(Protocol):
    """An object with the URLs of a signaling server: a `SignalingServer` or an `AttachedServer`."""

    @property
    def device_url(self) -> str:
        """The WebSocket URL for devices."""

    @property
    def client_url(self) -> str:
        """The WebSocket URL for clients."""

    @property
    def tls(self) -> Tls | None:
        """Its certificate and key, if they are known; clients trust the certificate."""


def endpoint(server: Endpoint | str, path: str, tls: ssl.SSLContext | None) -> tuple[str, ssl.SSLContext | None]:
    """The WebSocket URL of an endpoint, and the TLS context for it. Raises ConfigError for another value."""
    if tls is not None and not isinstance(tls, ssl.SSLContext):
        raise ConfigError("tls", f"must be an ssl.SSLContext, like server.tls.client_context(), or None, got {tls!r}")
    if not isinstance(server, str) and (isinstance(server, type) or not hasattr(server, "device_url")):
        raise ConfigError("server", f"must be a SignalingServer, an AttachedServer or a URL, got {server!r}")
    if not isinstance(server, str):
        url = server.device_url if path == "/register_device" else server.client_url
        if not url.startswith("wss:"):
            return url, None  # The certificate is that of another listener.
        own = server.tls.client_context() if tls is None and server.tls is not None else None
        return url, tls or own or getattr(server, "ssl_context", None)
    scheme, separator, rest = server.partition("://")
    scheme = {"http": "ws", "https": "wss"}.get(scheme, scheme)
    if not separator or scheme not in ("ws", "wss"):
        raise ConfigError("server", f"must be a server or a URL with http, https, ws or wss, got {server!r}")
    base, slash, query = rest.partition("?")
    base = base.rstrip("/")
    url = f"{scheme}://{base if base.endswith(path) else base + path}{slash}{query}"
    return url, tls or (ssl.create_default_context() if scheme == "wss" else None)


def checked_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Returns a copy of headers. Raises ConfigError for a value that is no mapping."""
    if headers is not None and not isinstance(headers, Mapping):
        raise ConfigError(
            "headers", f"must be a mapping of names to values, got a value of type {type(headers).__name__}"
        )
    for name, value in (headers or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            kind = type(value if isinstance(name, str) else name).__name__
            raise ConfigError("headers", f"must have strings as names and values, got a {kind} at {name!r}")
    return dict(headers or {})


def error_of(body: bytes | bytearray | None) -> str | None:
    """The `error` in the JSON body of an HTTP response; None without one."""
    try:
        return str(json.loads(body or b"")["error"])
    except (ValueError, KeyError, TypeError):
        return None
