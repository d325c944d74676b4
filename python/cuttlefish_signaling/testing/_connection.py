"""A WebSocket connection of a fake peer, on the `websockets` library.

The library shares no code with the server, so a bug of the server cannot be hidden by the same bug here.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from ..errors import PeerRefusedError, UnreachableError, WaitTimeoutError
from ._endpoint import error_of

CLOSE_TIMEOUT = 1.0
"""Seconds from a close frame to the end of the TCP connection."""

ORDINARY = (1000, 1001)
"""Close codes of a connection that did its work."""


class Connection(ClientConnection):
    """A connection that ends within `CLOSE_TIMEOUT` of the server's close frame.

    A server that has closed may read nothing any more. A send that waits for it would otherwise wait for as long as the
    server keeps the TCP connection open.
    """

    _abort: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Handles bytes of the server."""
        super().data_received(data)
        if self.protocol.close_rcvd is not None and self._abort is None:
            self._abort = self.loop.call_later(CLOSE_TIMEOUT, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Handles the end of the TCP connection."""
        if self._abort is not None:
            self._abort.cancel()
        super().connection_lost(exc)


async def open_connection(
    name: str,
    url: str,
    *,
    tls: ssl.SSLContext | None,
    origin: str | None,
    subprotocols: Sequence[str],
    headers: Mapping[str, str],
    timeout: float,
) -> ClientConnection:
    """Opens a WebSocket connection for the peer of this name.

    Raises PeerRefusedError, UnreachableError or WaitTimeoutError.
    """
    try:
        return await connect(
            url,
            ssl=tls,
            subprotocols=list(subprotocols) or None,  # type: ignore[arg-type]
            origin=origin,  # type: ignore[arg-type]
            additional_headers=headers,
            compression=None,
            ping_interval=None,
            open_timeout=timeout,
            close_timeout=CLOSE_TIMEOUT,
            max_size=None,
            proxy=None,
            create_connection=Connection,
        )
    except InvalidStatus as refused:
        error = error_of(refused.response.body)
        status = f"{refused.response.status_code} {error or ''}".strip()
        raise PeerRefusedError(f"{name}: {url} refused the connection: {status}", error=error) from None
    except (TimeoutError, asyncio.TimeoutError) as error:  # Two classes until Python 3.11.
        raise WaitTimeoutError(f"{name} waited {timeout:g} s for the opening handshake of {url}") from error
    except (OSError, InvalidHandshake) as error:
        raise UnreachableError(f"{name}: no signaling server at {url}: {error}") from error


async def keep_alive(
    connection: ClientConnection, interval: float, timeout: float, is_stalled: Callable[[], bool]
) -> None:
    """Sends a ping now and each `interval`, and aborts the connection if a pong takes longer than `timeout`.

    A stalled peer does neither, like a process that hangs.
    """
    with suppress(ConnectionClosed):
        while True:
            if not is_stalled():
                pong = asyncio.ensure_future(await connection.ping())
                await asyncio.wait([pong], timeout=timeout)
                if not pong.done() and not is_stalled():
                    connection.transport.abort()
            await asyncio.sleep(interval)


def reset(connection: ClientConnection) -> None:
    """Aborts the connection with TCP RST, without a close frame."""
    raw = connection.transport.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.transport.abort()


def end_of(connection: ClientConnection) -> tuple[int | None, str]:
    """The code and the reason of the server's close frame; None and an empty text without one.

    Both are known as soon as the close frame is there, before the TCP connection ends.
    """
    closed = connection.protocol.close_rcvd
    return (None, "") if closed is None else (closed.code, closed.reason)


def how_ended(connection: ClientConnection) -> str:
    """How a connection ended, for the text of an error."""
    code, reason = end_of(connection)
    if code is not None:
        return f"the connection was closed [{code}] {reason!r}"
    return "the connection ended without a close frame"
