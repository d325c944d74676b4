"""The signaling server that judges a program: it plays the other side, and records what the program sends."""

from __future__ import annotations

import asyncio
import http
import ssl
import time
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response

from ._model import Failed, Transcript
from ._peer import Heard, Peer

SUBPROTOCOL = "webrtc-operator"

MOST_MESSAGES = 500
"""Messages of a program that are read where it may send any number."""


class CountingConnection(ServerConnection):
    """A connection that counts the pings of its peer."""

    pings = 0

    def process_event(self, event: Any) -> None:
        """Handles a frame."""
        if isinstance(event, Frame) and event.opcode is Opcode.PING:
            self.pings += 1
        super().process_event(event)


class Guest(Peer):
    """A connection of the program."""

    def __init__(self, connection: CountingConnection, transcript: Transcript, timeout: float) -> None:
        super().__init__("program", transcript, timeout)
        self._connection = connection  # type: ignore[assignment]
        assert connection.request is not None
        self.request = connection.request
        self.path = urlsplit(self.request.path).path
        transcript.add(self.name, "opens", self.request.path)

    @property
    def pings(self) -> int:
        """The pings of the program."""
        return self.connection.pings  # type: ignore[attr-defined, no-any-return]

    async def message(self, timeout: float | None = None) -> dict[str, Any]:
        """The next message of the program, which has to be valid. Raises Failed."""
        return self.checked(await self.receive(timeout))

    def checked(self, heard: Heard) -> dict[str, Any]:
        """A message. Raises Failed if it is none of the protocol."""
        value = heard.value
        if not isinstance(value, dict) or not isinstance(value.get("message_type"), str):
            raise self.unexpected(heard, 'a text with a JSON object that has a "message_type"')
        return value

    async def stays(self) -> list[dict[str, Any]]:
        """The messages until a pong. Raises Failed if the program closes, or does not answer the ping."""
        if not await self.ping():
            heard = await self.receive(0.001)
            while heard.text is not None:
                heard = await self.receive(0.001)
            raise self.unexpected(heard, "the pong of a program that stays connected")
        messages: list[dict[str, Any]] = []
        for _ in range(MOST_MESSAGES):
            heard = await self.receive(0.001)
            if heard.other.startswith("nothing"):
                return messages
            messages.append(self.checked(heard))
        raise Failed("the program does not stop sending", expected=f"{MOST_MESSAGES} messages at most", heard="more")


class Host:
    """The server."""

    def __init__(self, host: str, port: int, timeout: float, tls: ssl.SSLContext | None = None) -> None:
        self._host, self._port, self._tls = host, port, tls
        self.timeout = timeout
        self.statuses: list[int] = []
        """The HTTP statuses with which the next handshakes are refused."""
        self.attempts: list[float] = []
        """The times of all opening handshakes, refused ones included."""
        self.arrivals: asyncio.Queue[CountingConnection] = asyncio.Queue()
        self._stack = AsyncExitStack()
        self.address = ("", 0)

    async def __aenter__(self) -> Host:
        server: Server = await self._stack.enter_async_context(
            serve(
                self._handle,
                self._host,
                self._port,
                ssl=self._tls,
                process_request=self._judge,
                select_subprotocol=lambda _, offered: SUBPROTOCOL if SUBPROTOCOL in offered else None,  # type: ignore[arg-type, return-value]
                create_connection=CountingConnection,
                compression=None,
                ping_interval=None,
                max_size=None,
                max_queue=None,
                close_timeout=1,
                open_timeout=self.timeout,
            )
        )
        self.address = next(iter(server.sockets)).getsockname()[:2]
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    @property
    def url(self) -> str:
        """The URL of the server, without a path."""
        host = f"[{self.address[0]}]" if ":" in self.address[0] else self.address[0]
        return f"{'wss' if self._tls else 'ws'}://{host}:{self.address[1]}"

    def _judge(self, connection: ServerConnection, request: Request) -> Response | None:
        self.attempts.append(time.monotonic())
        if self.statuses:
            return connection.respond(http.HTTPStatus(self.statuses.pop(0)), "refused by the conformance kit\n")
        return None

    async def _handle(self, connection: ServerConnection) -> None:
        assert isinstance(connection, CountingConnection)
        await self.arrivals.put(connection)
        await connection.wait_closed()

    def forget(self) -> None:
        """Aborts the connections that no rule has taken, and starts to count anew."""
        self.statuses.clear()
        self.attempts.clear()
        while not self.arrivals.empty():
            self.arrivals.get_nowait().transport.abort()
