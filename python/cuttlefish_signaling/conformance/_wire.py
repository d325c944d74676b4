"""HTTP/1.1 on a bare TCP or TLS connection: requests that no library sends, and answers that no library takes."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ._model import Failed, Problem, UnreachableError
from ._target import Target

MOST = 1 << 20
"""Bytes of an answer that are read."""

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}
"""The headers of an opening handshake."""


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(default=b"", repr=False)

    @property
    def json(self) -> Any:
        """The body as JSON. Raises Failed."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise Failed("the body is not JSON", expected="a JSON body", heard=str(self), stage="http") from None

    def __str__(self) -> str:
        text = self.body[:300].decode("utf-8", "replace")
        return f"{self.status} {text!r}" if text else str(self.status)


def shown(data: bytes) -> str:
    """The beginning of bytes, for a report."""
    return repr(data[:60])[1:] + (" ..." if len(data) > 60 else "")


async def open_stream(target: Target, timeout: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Opens a TCP or TLS connection. Raises UnreachableError, with the stage at which it failed."""
    where = f"{target.host} port {target.port}"
    name = target.host if target.is_tls else None
    try:
        return await asyncio.wait_for(
            asyncio.open_connection(target.host, target.port, ssl=target.context, server_hostname=name, limit=MOST),
            timeout,
        )
    except (TimeoutError, asyncio.TimeoutError):
        stage = "tls" if target.is_tls else "tcp"
        raise UnreachableError(
            Problem(stage, f"{where} did not answer within {timeout:g} s", "is it the right port?")
        ) from None
    except ssl.SSLCertVerificationError as error:
        advice = "--ca FILE names its authority, --insecure accepts any certificate"
        raise UnreachableError(
            Problem("tls", f"the certificate of {where} is not trusted: {error.verify_message}", advice)
        ) from None
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).lower().replace("_", " ")
        plain = "it may speak plain HTTP: try ws://" if "version number" in reason or "record" in reason else ""
        raise UnreachableError(Problem("tls", f"no TLS with {where}: {reason}", plain)) from None
    except OSError as error:
        raise UnreachableError(Problem(*_cause(error, target, where))) from None


def _cause(error: OSError, target: Target, where: str) -> tuple[str, str, str]:
    import socket

    if isinstance(error, socket.gaierror):
        return "dns", f"no address is known for {target.host}: {error.strerror}", "is the name spelled right?"
    if isinstance(error, ConnectionRefusedError):
        return "tcp", f"{where} refuses connections", "does the server run, and on this port?"
    # asyncio joins the errors of several addresses in one text.
    if "Connect call failed" in str(error):
        return "tcp", f"no connection to {where}: {error}", "does the server run, and on this port?"
    stage = "tls" if target.is_tls else "tcp"
    return stage, f"{where}: {error.strerror or error}", "it closed the connection" if target.is_tls else ""


def head_of(target: Target, method: str, path: str, headers: Mapping[str, str], *, host: bool = True) -> bytes:
    """The head of a request."""
    given = {**({"Host": target.authority} if host else {}), **target.headers, **headers}
    lines = [f"{method} {target.path(path)} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
    return "\r\n".join(lines).encode()


async def request(
    target: Target,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: Any = ...,
    timeout: float,
    host: bool = True,
) -> Answer:
    """Sends a request on a connection of its own, and reads the answer. Raises Failed or UnreachableError."""
    data = b"" if body is ... else body if isinstance(body, bytes) else json.dumps(body).encode()
    extra = {} if body is ... else {"Content-Type": "application/json", "Content-Length": str(len(data))}
    head = head_of(target, method, path, {**extra, **(headers or {})}, host=host)
    return await exchange(target, head + data, timeout)


async def exchange(target: Target, sent: bytes, timeout: float) -> Answer:
    """Sends bytes on a connection of its own, and reads one answer. Raises Failed or UnreachableError."""
    reader, writer = await open_stream(target, timeout)
    try:
        writer.write(sent)
        return await asyncio.wait_for(read_answer(reader), timeout)
    except (TimeoutError, asyncio.TimeoutError):
        raise Failed(
            f"no answer within {timeout:g} s", expected="an HTTP response", heard="nothing", stage="http"
        ) from None
    except asyncio.LimitOverrunError:
        raise Failed(
            "the answer has a head without an end",
            expected="an HTTP response",
            heard=f"more than {MOST >> 20} MiB of it",
            stage="http",
        ) from None
    except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError) as error:
        read = error.partial if isinstance(error, asyncio.IncompleteReadError) else b""
        raise _no_answer(read) from None
    finally:
        writer.transport.abort()


def _no_answer(read: bytes) -> Failed:
    if read:
        return Failed(
            "the connection ended in the middle of an answer",
            expected="an HTTP response",
            heard=shown(read),
            stage="http",
        )
    return Failed(
        "the connection was closed without an answer", expected="an HTTP response", heard="the end", stage="http"
    )


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Reads one response. Raises Failed for bytes that are no response, and the errors of asyncio."""
    first = await reader.readexactly(5)
    if first != b"HTTP/":
        raise Failed("it does not answer in HTTP/1.1", expected="an HTTP response", heard=_garbage(first), stage="http")
    head = first + await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    status = lines[0].split(" ")[1:2]
    if not status or not status[0].isdigit() or len(status[0]) != 3:
        raise Failed("it does not answer in HTTP/1.1", expected="a status line", heard=lines[0][:80], stage="http")
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    number = int(status[0])
    return Answer(number, headers, b"" if number in (101, 204, 304) else await _body(reader, headers))


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    length = headers.get("content-length", "")
    if length.isdigit():
        return await reader.readexactly(min(int(length), MOST))
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = b""
        while len(body) < MOST:
            size = (await reader.readuntil(b"\r\n")).split(b";")[0].strip()
            try:
                count = int(size, 16)
            except ValueError:
                raise Failed("a chunk of the body has no size", heard=shown(size), stage="http") from None
            chunk = await reader.readexactly(min(count, MOST) + 2)
            if count == 0:
                break
            body += chunk[:-2]
        return body
    return await reader.read(MOST)


def _garbage(first: bytes) -> str:
    # A server that speaks HTTP/2 only sends its SETTINGS frame: three bytes of length, the type 4, the flags.
    if len(first) >= 5 and first[3] == 4 and first[0] == 0:
        return "an HTTP/2 SETTINGS frame: the server speaks HTTP/2 only"
    if first[:1] == b"\x15" or first[:2] == b"\x16\x03":
        return "a TLS record: the server speaks TLS, try wss://"
    return shown(first)
