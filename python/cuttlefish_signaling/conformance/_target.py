"""The server under test: its URL, its TLS context and the headers of each request."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from ..errors import ConfigError

_URL = re.compile(
    r"(?P<scheme>wss?|https?)://(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\s/?#@:\[\]]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[^\s?#]*)?(?P<query>\?[^\s#]*)?"
)

ENDPOINTS = ("/register_device", "/connect_client")


@dataclass(frozen=True)
class Target:
    """The place of a server, and the way to reach it."""

    url: str
    host: str
    port: int
    is_tls: bool
    prefix: str = ""
    query: str = ""
    context: ssl.SSLContext | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def authority(self) -> str:
        """The value of `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_tls else 80) else f"{host}:{self.port}"

    def path(self, path: str) -> str:
        """A path of the server, with the prefix and the query of its URL."""
        before, mark, query = path.partition("?")
        joined = "&".join(part for part in (self.query, query) if part)
        return f"{self.prefix}{before}{'?' if joined or mark else ''}{joined}"

    def websocket_url(self, path: str) -> str:
        """The URL of a WebSocket endpoint."""
        return f"{'wss' if self.is_tls else 'ws'}://{self.authority}{self.path(path)}"

    def origin(self) -> str:
        """The origin of the server's own pages."""
        return f"{'https' if self.is_tls else 'http'}://{self.authority}"


def target(
    url: str,
    *,
    tls: ssl.SSLContext | None = None,
    headers: Mapping[str, str] | None = None,
    token: str | None = None,
) -> Target:
    """Reads the URL of a server. Raises ConfigError for another text."""
    found = _URL.fullmatch(url) if isinstance(url, str) else None
    if found is None or not 0 < int(found["port"] or 1) < 65536:
        raise ConfigError("url", f"must be ws://HOST[:PORT][/PREFIX], or with wss, http or https, got {url!r}")
    is_tls = found["scheme"] in ("wss", "https")
    prefix = (found["path"] or "").rstrip("/")
    for endpoint in ENDPOINTS:
        prefix = prefix.removesuffix(endpoint)
    given = dict(headers or {})
    if token is not None:
        if not token.isascii() or not token.isprintable() or " " in token or not token:
            raise ConfigError("token", "must be printable ASCII without spaces, and not empty")
        given["Authorization"] = f"Bearer {token}"
    for name, value in given.items():
        if re.search(r"[\r\n\0]", name + value) or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise ConfigError("headers", f"must be names and values of HTTP headers, got {name!r}")
    return Target(
        url=url,
        host=found["host"].strip("[]"),
        port=int(found["port"] or (443 if is_tls else 80)),
        is_tls=is_tls,
        prefix=quote(prefix, safe="/%:@!$&'()*+,;=~-._"),
        query=(found["query"] or "?")[1:],
        context=(tls or ssl.create_default_context()) if is_tls else None,
        headers=given,
    )


def tls_context(
    ca: str | None = None, *, insecure: bool = False, cert: str | None = None, key: str | None = None
) -> ssl.SSLContext:
    """A TLS context from the options of the command line. Raises ConfigError, which names the option."""
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise ConfigError("--ca", f"{ca} cannot be used: {error.strerror or error}") from None
    if insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if cert is not None:
        try:
            context.load_cert_chain(cert, key)
        except OSError as error:
            raise ConfigError("--cert", f"{cert} cannot be used: {error.strerror or error}") from None
    return context
