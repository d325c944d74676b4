"""The step of HTTP: a GET by hand, so that each wrong answer can be told."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import ssl
from contextlib import suppress
from typing import Any, NamedTuple

from ._deadline import DeadlineError, within
from ._facts import CLOSED, HttpFacts
from ._options import ProbeOptions
from ._target import Target

MOST_OF_ANSWER = 4 * 1024 * 1024
"""Bytes of an answer that are read. No setting: it is more than the list of 10,000 devices takes."""


class Route(NamedTuple):
    """The way to a server: its place, an address that has answered, and the context for TLS."""

    target: Target
    address: str
    context: ssl.SSLContext | None
    options: ProbeOptions

    def headers(self) -> dict[str, str]:
        """The headers that all requests have."""
        found = {}
        if self.options.token is not None:
            found["Authorization"] = f"Bearer {self.options.token}"
        if self.options.origin is not None:
            found["Origin"] = self.options.origin
        return found


async def get(route: Route, path: str, seconds: float) -> HttpFacts:
    """Asks for a path below the prefix of the server."""
    buffer = bytearray()
    shown = route.target.prefix + path
    common: dict[str, Any] = {"has_token": route.options.token is not None, "origin": route.options.origin or ""}
    try:
        await within(seconds, _exchange(route, shown, buffer))
    except DeadlineError:
        if not is_complete(bytes(buffer)):
            found = parsed(shown, bytes(buffer))
            outcome = "silent" if not buffer else "slow" if found.outcome in ("answered", CLOSED) else found.outcome
            return HttpFacts(shown, outcome, reason=found.reason, **common)
    except (ConnectionError, ssl.SSLEOFError, asyncio.IncompleteReadError):
        if not buffer:
            return HttpFacts(shown, CLOSED, **common)
    except OSError as error:
        return HttpFacts(shown, "other", reason=error.strerror or str(error), **common)
    return parsed(shown, bytes(buffer), **common)


async def _exchange(route: Route, path: str, buffer: bytearray) -> None:
    target = route.target
    name = target.host if route.context else None
    reader, writer = await asyncio.open_connection(route.address, target.port, ssl=route.context, server_hostname=name)
    try:
        headers = {"Host": target.authority, "Connection": "close", "User-Agent": "cuttlefish-signaling-probe"}
        headers |= {"Accept": "application/json"} | route.headers()
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        writer.write("\r\n".join(lines).encode())
        while len(buffer) < MOST_OF_ANSWER and not is_complete(bytes(buffer[:MOST_OF_HEAD]), len(buffer)):
            part = await reader.read(65536)
            if not part:
                break
            buffer += part
    finally:
        writer.transport.abort()


MOST_OF_HEAD = 64 * 1024
"""Bytes of the head of an answer. No setting: libraries have the same bound."""


def is_complete(begin: bytes, length: int | None = None) -> bool:
    """Whether an answer is whole by its `Content-Length`, from its beginning and the length of all that has come."""
    head, separator, _ = begin.partition(b"\r\n\r\n")
    if not separator:
        return False
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit():
            return (len(begin) if length is None else length) >= len(head) + 4 + int(value)
    return head[9:12] in (b"204", b"304")


def parsed(path: str, answer: bytes, *, has_token: bool = False, origin: str = "") -> HttpFacts:
    """Returns the facts of the bytes that a server has sent."""
    common: dict[str, Any] = {"has_token": has_token, "origin": origin}
    if not answer:
        return HttpFacts(path, CLOSED, **common)
    if not answer.startswith(b"HTTP/1."):
        return HttpFacts(path, _kind_of(answer), reason=answer[:60].decode("latin-1"), **common)
    response = http.client.HTTPResponse(_Read(answer))  # type: ignore[arg-type]
    try:
        response.begin()
    except (http.client.HTTPException, ValueError):
        return HttpFacts(path, "garbage", reason=answer[:60].decode("latin-1"), **common)
    body = b""
    try:
        body = response.read()
    except (http.client.HTTPException, ValueError) as error:
        body = getattr(error, "partial", b"")
    return HttpFacts(
        path,
        status=response.status,
        location=response.headers.get("Location", ""),
        server=response.headers.get("Server", ""),
        body=body,
        error=error_of(body),
        **common,
    )


def _kind_of(answer: bytes) -> str:
    # A TLS alert: type 21, version 3.x.
    if answer[:2] == b"\x15\x03":
        return "tls"
    # An HTTP/2 frame of the connection itself: SETTINGS or GOAWAY, on stream 0.
    if len(answer) >= 9 and answer[0] == 0 and answer[3] in (4, 7) and answer[5:9] == b"\0\0\0\0":
        return "http2"
    return "garbage"


class _Read:
    """Bytes in the place of a socket, for the parser of the standard library."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def makefile(self, _mode: str) -> io.BytesIO:
        """Returns the bytes as a file."""
        return io.BytesIO(self._answer)


def error_of(body: bytes) -> str:
    """Returns the `error` of a JSON body; else, of a short text, its first line."""
    with suppress(ValueError, TypeError, KeyError, RecursionError):
        return str(json.loads(body)["error"])
    text = body[:200].decode("utf-8", "replace").strip()
    return "" if text.startswith(("<", "{", "[")) or not text else text.splitlines()[0]


def json_of(body: bytes) -> Any:
    """Returns the JSON of a body; None if it has none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
