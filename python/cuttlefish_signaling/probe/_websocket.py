"""The steps of WebSockets: handshakes at both endpoints, and pings. I/O to facts, on the library `websockets`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ..errors import ConfigError
from ._deadline import DeadlineError, within
from ._facts import CLOSED, TIMEOUT, EndpointFacts, PingFacts
from ._http import Route, error_of

try:
    from websockets.asyncio.client import ClientConnection, connect
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus
except ImportError as _error:  # pragma: no cover
    raise ConfigError("probe", "needs websockets: pip install 'cuttlefish-signaling[probe]'") from _error

DEVICES, CLIENTS = "/register_device", "/connect_client"
SUBPROTOCOL = "webrtc-operator"

CLOSE_SECONDS = 1.0
"""Seconds for a closing handshake."""

MOST_OF_MESSAGE = 4 * 1024 * 1024
"""Bytes of a message that are read."""


class Direct(connect):
    """A connection that follows no redirect: devices follow none either."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Returns the redirect as the error."""
        return exc


async def opened(route: Route, path: str, subprotocols: Sequence[str] = ()) -> ClientConnection:
    """Opens a WebSocket. Raises the exceptions of `websockets`."""
    headers = route.headers()
    origin = headers.pop("Origin", None) if path != DEVICES else None
    headers.pop("Origin", None)
    options: dict[str, Any] = {} if route.context is None else {"server_hostname": route.target.host}
    return await Direct(
        route.target.url(path),
        ssl=route.context,
        host=route.address,
        port=route.target.port,
        origin=origin,  # type: ignore[arg-type]
        additional_headers=headers,
        subprotocols=list(subprotocols) or None,  # type: ignore[arg-type]
        compression=None,
        ping_interval=None,
        open_timeout=None,
        close_timeout=CLOSE_SECONDS,
        max_size=MOST_OF_MESSAGE,
        proxy=None,
        **options,
    )


async def closed(connection: ClientConnection) -> None:
    """Closes a WebSocket, in `CLOSE_SECONDS` at most."""
    with suppress(ConnectionClosed, OSError, DeadlineError):
        await within(2 * CLOSE_SECONDS, connection.close())
    connection.transport.abort()


async def try_endpoint(
    route: Route, path: str, subprotocol: str | None, seconds: float
) -> tuple[EndpointFacts, ClientConnection | None]:
    """Makes a handshake. Returns the facts, and the connection if it is open."""
    common: dict[str, Any] = {
        "wanted_subprotocol": subprotocol,
        "has_token": route.options.token is not None,
        "origin": route.options.origin or "",
    }
    try:
        connection = await within(seconds, opened(route, path, [subprotocol] if subprotocol else []))
    except Exception as error:
        return EndpointFacts(path, **_failure(error), **common), None
    return EndpointFacts(path, subprotocol=connection.subprotocol, **common), connection


def _failure(error: Exception) -> dict[str, Any]:
    if isinstance(error, InvalidStatus):
        response = error.response
        return {
            "outcome": "status",
            "status": response.status_code,
            "error": error_of(bytes(response.body or b"")),
            "location": response.headers.get("Location", ""),
        }
    if isinstance(error, DeadlineError | TimeoutError):
        return {"outcome": TIMEOUT}
    if isinstance(error, ConnectionError | EOFError):
        return {"outcome": CLOSED}
    if isinstance(error, InvalidMessage) and isinstance(error.__cause__, EOFError | ConnectionError):
        return {"outcome": CLOSED}
    if isinstance(error, InvalidHandshake | OSError | ValueError):
        return {"outcome": "bad_handshake" if isinstance(error, InvalidHandshake) else "other", "reason": str(error)}
    raise error


async def ping(connection: ClientConnection, count: int, seconds: float) -> PingFacts:
    """Sends pings one after another."""
    times: list[float] = []

    async def send() -> None:
        for _ in range(count):
            begin = time.perf_counter()
            await (await connection.ping())
            times.append(time.perf_counter() - begin)

    try:
        await within(seconds, send())
    except DeadlineError:
        return PingFacts(count, tuple(times), TIMEOUT)
    except ConnectionClosed as error:
        return PingFacts(count, tuple(times), CLOSED, str(error))
    except asyncio.CancelledError:
        raise
    return PingFacts(count, tuple(times))
