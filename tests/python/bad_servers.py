"""Servers that answer nothing, garbage, slowly, with wrong TLS, that close at once, redirect, and others."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

FOREVER = 3600.0


@dataclass(frozen=True)
class Bad:
    """A server, and the finding that it leads to."""

    stage: str
    text: str
    handle: Handler
    is_tls: bool = False
    timeout: float = 20.0
    """For a server that never answers: the time after which that is the finding."""


async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(FOREVER)


async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x00\xff\x17 SSH-2.0-OpenSSH_9.9\r\n\r\n" * 10)
    await asyncio.sleep(FOREVER)


async def garbage_status(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 fine OK\r\n\r\n")
    await asyncio.sleep(FOREVER)


async def long_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: " + b"x" * 65_536 + b"\r\n")
        await writer.drain()


async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for byte in b"HTTP/1.1 101 Switching Protocols\r\n" * 100:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.05)


async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 101 Switching Proto")


async def http2(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(bytes([0, 0, 18, 4, 0, 0, 0, 0, 0]) + bytes(18))
    await asyncio.sleep(FOREVER)


async def tls_alert(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x15\x03\x01\x00\x02\x02\x46" * 4)
    await asyncio.sleep(FOREVER)


async def plain_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def status(line: str, *headers: str) -> Handler:
    """A server that answers every request with this status."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write("\r\n".join([f"HTTP/1.1 {line}", *headers, "Content-Length: 2", "", "no"]).encode())

    return answer


BAD: dict[str, Bad] = {
    "answers nothing": Bad("http", "no answer within", nothing, timeout=0.5),
    "closes at once": Bad("http", "closed without an answer", closes),
    "resets at once": Bad("http", "closed without an answer", resets),
    "garbage": Bad("http", "does not answer in HTTP/1.1", garbage),
    "garbage as status": Bad("http", "does not answer in HTTP/1.1", garbage_status),
    "head without end": Bad("http", "a head without an end", long_head),
    "slowly": Bad("http", "no answer within", slowly, timeout=0.5),
    "half of an answer": Bad("http", "in the middle of an answer", half),
    "HTTP/2 only": Bad("http", "speaks HTTP/2 only", http2),
    "TLS on a plain port": Bad("http", "speaks TLS", tls_alert),
    "no TLS on a TLS port": Bad("tls", "plain HTTP", plain_http, is_tls=True),
    "nothing on a TLS port": Bad("tls", "did not answer within", nothing, is_tls=True, timeout=0.5),
    "garbage on a TLS port": Bad("tls", "no TLS", garbage, is_tls=True),
    "closes at once on a TLS port": Bad("tls", "it closed the connection", resets, is_tls=True),
    "redirect": Bad("http", "redirect to https://other.lab/x", status("302 Found", "Location: https://other.lab/x")),
    "not found": Bad("http", "path prefix", status("404 Not Found")),
    "unauthorized": Bad("http", "--token", status("401 Unauthorized")),
    "bad gateway": Bad("http", "proxy", status("502 Bad Gateway")),
    "HTTP version": Bad("http", "another version", status("505 HTTP Version Not Supported")),
    "no WebSocket": Bad("websocket", "status 200", status("200 OK")),
}


@asynccontextmanager
async def bad_server(handle: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Runs a server with this handler; its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
