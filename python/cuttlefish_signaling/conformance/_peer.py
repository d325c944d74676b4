"""A WebSocket peer of the kit, on the `websockets` library. It records everything that is sent and received."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

from ._model import Failed, Transcript
from ._target import Target

MOST_SHOWN = 2000
"""Characters of a message in a transcript. The rest is left out, with its length."""

MOST_UNREAD = 100
"""Messages that are read where none is expected."""

CLOSE_TIMEOUT = 1.0


@dataclass(frozen=True)
class Heard:
    """A message, or the end of the connection."""

    text: str | None = None
    """The text of a message; None for another event."""
    fragments: int = 1
    code: int | None = None
    """The code of a close frame."""
    reason: str = ""
    other: str = ""
    """Another event, described."""

    @property
    def is_end(self) -> bool:
        """Whether the connection has ended."""
        return self.text is None and not self.other.startswith(("nothing", "binary"))

    @property
    def value(self) -> Any:
        """The message as JSON; `...` if it is not JSON."""
        try:
            return ... if self.text is None else json.loads(self.text)
        except (ValueError, RecursionError):
            return ...

    def __str__(self) -> str:
        if self.text is not None:
            return shortened(self.text)
        return f"close [{self.code}] {self.reason!r}" if self.code is not None else self.other


def shortened(text: str) -> str:
    """A message for the transcript."""
    return text if len(text) <= MOST_SHOWN else f"{text[:200]} ... ({len(text)} characters)"


def compact(value: Any) -> str:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


class Peer:
    """A WebSocket connection to the server under test."""

    def __init__(self, name: str, transcript: Transcript, timeout: float) -> None:
        self.name = name
        self.timeout = timeout
        self.ended: Heard | None = None
        self.last: Heard | None = None
        """The last message, or the end."""
        self._transcript = transcript
        self._connection: ClientConnection | None = None

    @property
    def connection(self) -> ClientConnection:
        """The connection, which has to be open."""
        assert self._connection is not None
        return self._connection

    async def open(
        self,
        target: Target,
        path: str,
        *,
        subprotocols: Sequence[str] = (),
        origin: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Opens the connection. Raises Failed."""
        url = target.websocket_url(path)
        offered = f" (offers {', '.join(subprotocols)})" if subprotocols else ""
        self._transcript.add(self.name, "opens", f"{target.path(path)}{offered}")
        try:
            self._connection = await connect(
                url,
                ssl=target.context,
                subprotocols=list(subprotocols) or None,  # type: ignore[arg-type]
                origin=origin,  # type: ignore[arg-type]
                additional_headers={**target.headers, **(headers or {})},
                compression=None,
                ping_interval=None,
                open_timeout=self.timeout,
                close_timeout=CLOSE_TIMEOUT,
                max_size=None,
                max_queue=None,
                proxy=None,
                user_agent_header="cuttlefish-signaling-conform",
                # A redirect is a finding: it is not followed.
                process_exception=lambda error: error,
            )
        except (InvalidHandshake, ValueError, OSError, asyncio.TimeoutError) as error:
            raise self._not_opened(error) from None

    def _not_opened(self, error: Exception) -> Failed:
        if isinstance(error, InvalidStatus):
            heard, stage = f"HTTP status {error.response.status_code}", "http"
        elif isinstance(error, TimeoutError | asyncio.TimeoutError):
            heard, stage = f"no answer within {self.timeout:g} s", "http"
        elif isinstance(error, InvalidMessage):
            heard, stage = f"no HTTP response: {error}", "http"
        elif isinstance(error, InvalidHandshake | ValueError) and not isinstance(error, ssl.SSLError):
            heard, stage = f"an invalid handshake: {error}", "websocket"
        elif isinstance(error, ssl.SSLError):
            heard, stage = f"a TLS error: {error.reason or error}", "tls"
        else:
            heard, stage = f"no connection: {getattr(error, 'strerror', None) or error}", "tcp"
        self._transcript.add(self.name, "heard", heard)
        return Failed("the WebSocket did not open", expected="HTTP status 101", heard=heard, stage=stage)

    # Sending ----------------------------------------------------------------------------------------------------------

    async def say(self, message: Any) -> None:
        """Sends a message as compact JSON."""
        await self.send(compact(message))

    async def send(self, message: str | bytes | Sequence[str]) -> None:
        """Sends a text, a binary message, or a text in fragments. A closed connection is found by the next read."""
        if isinstance(message, bytes):
            self._transcript.add(self.name, "sends", f"binary, {len(message)} bytes")
        else:
            self._transcript.add(
                self.name, "sends", shortened(message if isinstance(message, str) else "".join(message))
            )
        try:
            await asyncio.wait_for(self.connection.send(message), self.timeout)
        except ConnectionClosed:
            pass
        except (TimeoutError, asyncio.TimeoutError):
            raise Failed(
                f"{self.name} could not send",
                expected="that the server reads",
                heard="that it does not read",
                stage="tcp",
            ) from None

    # Receiving --------------------------------------------------------------------------------------------------------

    async def receive(self, timeout: float | None = None) -> Heard:
        """The next message, or the end, or the fact that nothing came in time. It is recorded."""
        if self.ended is not None:
            return self.ended
        limit = self.timeout if timeout is None else timeout
        heard = self.last = await self._receive(limit)
        if not heard.other.startswith("nothing"):
            self._transcript.add(self.name, "closed" if heard.is_end else "receives", str(heard))
        if heard.is_end:
            self.ended = heard
        return heard

    async def _receive(self, limit: float) -> Heard:
        try:
            fragments = await asyncio.wait_for(self._fragments(), limit)
        except (TimeoutError, asyncio.TimeoutError):
            return Heard(other=f"nothing within {limit:g} s")
        except ConnectionClosed as closed:
            return end_of(closed)
        if isinstance(fragments[0], bytes):
            return Heard(other=f"binary message of {sum(map(len, fragments))} bytes")
        return Heard(text="".join(str(part) for part in fragments), fragments=len(fragments))

    async def _fragments(self) -> list[str | bytes]:
        return [part async for part in self.connection.recv_streaming()]

    async def expect_type(self, message_type: str, timeout: float | None = None) -> dict[str, Any]:
        """The next message, which has to have this type. Raises Failed."""
        heard = await self.receive(timeout)
        value = heard.value
        if not isinstance(value, dict) or value.get("message_type") != message_type:
            raise self.unexpected(heard, f'a message of type "{message_type}"')
        return value

    async def expect(self, message: Any, timeout: float | None = None) -> Heard:
        """The next message, which has to mean this. Raises Failed."""
        heard = await self.receive(timeout)
        if heard.value != message:
            raise self.unexpected(heard, compact(message))
        return heard

    async def expect_end(self, timeout: float | None = None) -> Heard:
        """The end of the connection, with what comes before left out. Raises Failed."""
        for _ in range(MOST_UNREAD):
            heard = await self.receive(timeout)
            if heard.is_end:
                return heard
            if heard.text is None:
                break
        raise self.unexpected(heard, "a close frame")

    def unexpected(self, heard: Heard, expected: str) -> Failed:
        """The failure of an expectation."""
        self._transcript.add(self.name, "expected", expected)
        self._transcript.add(self.name, "heard", str(heard))
        short = expected if len(expected) < 100 else f"{expected[:100]} ..."
        stage = "websocket" if heard.is_end and heard.code is None else "message"
        return Failed(f"{self.name} expected {short}", expected=shortened(expected), heard=str(heard), stage=stage)

    async def ping(self, data: str = "", timeout: float | None = None) -> bool:
        """Sends a ping; whether the pong came in time."""
        try:
            pong = await self.connection.ping(data or None)
            await asyncio.wait_for(asyncio.shield(pong), self.timeout if timeout is None else timeout)
        except (TimeoutError, asyncio.TimeoutError, ConnectionClosed):
            return False
        return True

    async def unread(self, *, pings: bool = True) -> list[Heard]:
        """The messages that came and were not read. After a pong, all that were sent before have arrived."""
        if self.ended is not None:
            return []
        if pings:
            await self.ping()
        found: list[Heard] = []
        while len(found) < MOST_UNREAD:
            heard = await self.receive(0.001 if pings else 0.05)
            if heard.other.startswith("nothing"):
                return found
            found.append(heard)
            if heard.is_end:
                return found
        return found

    # Leaving ----------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Leaves with a closing handshake."""
        self._transcript.add(self.name, "leaves", "close [1000]")
        try:
            await asyncio.wait_for(self.connection.close(), CLOSE_TIMEOUT + self.timeout)
        except (TimeoutError, asyncio.TimeoutError):
            self.abort()

    def drop(self) -> None:
        """Leaves without a closing handshake."""
        self._transcript.add(self.name, "leaves", "without a close frame")
        self.abort()

    def freeze(self) -> None:
        """Stops reading, and so does not answer pings."""
        self._transcript.add(self.name, "freezes", "")
        self.connection.transport.pause_reading()

    @property
    def is_open(self) -> bool:
        """Whether the peer is connected and reads."""
        return self._connection is not None and self.ended is None and self.connection.transport.is_reading()

    def abort(self) -> None:
        """Ends the TCP connection."""
        if self._connection is not None:
            self._connection.transport.abort()


def end_of(closed: ConnectionClosed) -> Heard:
    """The end of a connection: the close frame that was received, or the way in which it ended without one."""
    if closed.rcvd is not None and (closed.rcvd_then_sent or closed.sent is None):
        return Heard(code=closed.rcvd.code, reason=closed.rcvd.reason)
    if closed.sent is not None and closed.sent.code not in (1000, 1001):
        # The library closes by itself where the server breaks RFC 6455.
        return Heard(other=f"invalid WebSocket data: {closed.sent.reason or closed.sent.code}")
    if closed.rcvd is not None:
        return Heard(code=closed.rcvd.code, reason=closed.rcvd.reason)
    return Heard(other="the end of the connection, without a close frame")
