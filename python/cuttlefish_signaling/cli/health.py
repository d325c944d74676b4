"""`cuttlefish-signaling health`: asks a server whether it is alive, for `HEALTHCHECK` and probes.

It needs nothing but the standard library, and imports little of it: a container runs it every few seconds.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import time
from typing import NamedTuple

from .._listen import EVERY_ADDRESS, Listener, url
from .._settings import ENVIRONMENT
from ..errors import ConfigError
from .listeners import listeners
from .operator import apply_preset
from .output import print_answer
from .sources import settings

CA = f"{ENVIRONMENT}CA"
"""The variable of `--ca`."""

MOST = 64 * 1024
"""Bytes of an answer that are read. No setting: the answers of these endpoints are shorter than this line."""

LOOPBACK = {"0.0.0.0": ("127.0.0.1",), "::": ("::1", "127.0.0.1")}
"""The addresses at which a listener on all addresses is asked, in this order."""


class Target(NamedTuple):
    """The place to ask."""

    scheme: str
    hosts: tuple[str, ...]
    """The hosts to try in turn; the path of a Unix socket."""
    port: int
    path: str
    is_own: bool
    """Whether it is the listener of the settings, or an address of this machine's loopback: its certificate does not
    matter."""

    @property
    def shown(self) -> str:
        """The URL, for the line of output."""
        if self.scheme == "unix":
            return f"unix:{self.hosts[0]} {self.path}"
        return url(self.scheme, self.hosts[0], self.port) + self.path


class UnhealthyError(Exception):
    """The server is not healthy, or does not answer. The text tells why."""


def health(arguments: argparse.Namespace) -> int:
    """Prints one line. Returns 0 if the server is healthy, and otherwise 1."""
    path = "/readyz" if arguments.ready else "/healthz"
    shown = arguments.url or "the server of these settings"
    try:
        target = _of_url(arguments.url, path) if arguments.url else _of_settings(arguments, path)
        shown = target.shown
        _ask(target, arguments.timeout, arguments.ca or os.environ.get(CA))
    except (UnhealthyError, ConfigError, OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        print_answer(f"unhealthy: {shown}: {' '.join(reason.split())}")
        return 1
    print_answer(f"healthy: {shown}")
    return 0


def _of_settings(arguments: argparse.Namespace, path: str) -> Target:
    """Returns the first listener: http, else https, else a Unix socket. Raises ConfigError, as `serve` would."""
    found = settings(arguments, dict(os.environ))
    try:
        apply_preset(found)
        if given := found["listen"]:
            # Only the process that systemd has given the socket to knows its address.
            found["listen"] = [text for text in given if "+fd:" not in text]
        known = (
            [one for one in listeners(found) if one.scheme == "unix" or one.number]
            if found["listen"] or not given
            else []
        )
    except ConfigError as error:
        raise found.named(error) from None
    if not known:
        raise UnhealthyError("the settings do not tell its port: give --url")
    order = ("http", "https", "unix")
    return _of_listener(min(known, key=lambda one: order.index(one.scheme)), path)


def _of_listener(listener: Listener, path: str) -> Target:
    hosts = LOOPBACK[listener.place] if listener.place in EVERY_ADDRESS else (listener.place,)
    return Target(listener.scheme, hosts, listener.number, path, is_own=True)


def _of_url(text: str, path: str) -> Target:
    """Returns the place of `--url`. Its path counts, if it has one. Raises UnhealthyError."""
    if text.startswith("unix:") and len(text) > 5:
        return Target("unix", (text[5:],), 0, path, is_own=True)
    found = re.fullmatch(r"(https?)://(\[[0-9A-Fa-f:.%\w]+\]|[^\s/?#@:\[\]]+)(?::([0-9]{1,5}))?(/[^\s#]*)?", text)
    if not found or int(found[3] or 0) > 65535:
        raise UnhealthyError("is not a URL: write http://HOST:PORT, https://HOST:PORT or unix:PATH")
    host = found[2].strip("[]")
    port = int(found[3]) if found[3] else (443 if found[1] == "https" else 80)
    is_loopback = host in ("localhost", "::1") or re.fullmatch(r"127(\.[0-9]{1,3}){3}", host) is not None
    return Target(found[1], (host,), port, path if found[4] in (None, "/") else found[4], is_loopback)


def _ask(target: Target, timeout: float, ca: str | None) -> None:
    """Sends the request. Raises UnhealthyError, OSError or ValueError."""
    until = time.monotonic() + timeout
    with _connected(target, until) as plain:
        stream = _encrypted(plain, target, ca, until) if target.scheme == "https" else plain
        with stream:
            host = "localhost" if target.scheme == "unix" else url("", target.hosts[0], target.port)[3:]
            lines = (f"GET {target.path} HTTP/1.1", f"Host: {host}", "Connection: close", "User-Agent: health", "", "")
            stream.settimeout(_left(until))
            stream.sendall("\r\n".join(lines).encode())
            answer = _read(stream, until)
    head, _, body = answer.partition("\r\n\r\n")
    status = re.match(r"HTTP/1\.[01] ([0-9]{3})(?: |\r|$)", head)
    if status is None:
        raise UnhealthyError(
            f"answered {head[:60]!r}, which is not HTTP" if head else "closed the connection without an answer"
        )
    if status[1] != "200":
        raise UnhealthyError(f"answered {status[1]}: {body[:200]}".rstrip(": "))


def _connected(target: Target, until: float) -> socket.socket:
    if target.scheme == "unix":
        found = socket.socket(socket.AF_UNIX)
        try:
            found.settimeout(_left(until))
            found.connect(target.hosts[0])
        except BaseException:
            found.close()
            raise
        return found
    *others, last = target.hosts
    for host in others:
        try:
            return socket.create_connection((host, target.port), _left(until))
        except OSError:
            pass  # Without IPv6, a listener on :: has IPv4 only.
    return socket.create_connection((last, target.port), _left(until))


def _encrypted(plain: socket.socket, target: Target, ca: str | None, until: float) -> socket.socket:
    import ssl  # Only where it is needed: it is half of the start.

    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise UnhealthyError(f"--ca: {ca} cannot be used: {error.strerror or error}") from None
    if target.is_own and ca is None:
        # The connection does not leave this machine, and the server's own certificate has an authority of its own.
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain.settimeout(_left(until))
    try:
        return context.wrap_socket(plain, server_hostname=target.hosts[0])
    except ssl.SSLCertVerificationError as error:
        raise UnhealthyError(
            f"its certificate is not trusted: {error.verify_message}; --ca FILE names its authority"
        ) from None


def _read(stream: socket.socket, until: float) -> str:
    answer = b""
    while len(answer) < MOST:
        stream.settimeout(_left(until))
        if not (part := stream.recv(MOST)):
            break
        answer += part
    return answer.decode("utf-8", "replace")


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left
