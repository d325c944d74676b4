"""The base class of fake devices and clients: connections, an inbox, and scripted replies."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from .._annotations import late_annotations
from .._checks import check_seconds
from .._loops import running_loop
from .._raw_json import write
from .._timeouts import DEFAULT_TIMEOUT, seconds_of
from ..errors import (
    DeviceLostError,
    NotRunningError,
    PeerClosedError,
    WaitTimeoutError,
)
from ._connection import CLOSE_TIMEOUT, ORDINARY, end_of, how_ended, keep_alive, open_connection, reset
from ._endpoint import Endpoint, checked_headers, endpoint
from ._inbox import Inbox, parse_message
from ._message import FORWARDS, AsyncMessage, Message
from ._script import ScriptedPeer
from ._texts import dropped_by_server
from ._wait import wait_until

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")


class AsyncPeer(ScriptedPeer):
    """A fake peer: `AsyncFakeDevice` or `AsyncFakeClient`. It belongs to the event loop that starts it."""

    _path: str
    _name: str
    _subprotocols: tuple[str, ...] = ()
    _ping_interval: float | None = None
    _ping_timeout = 10.0
    _message_class: type[Message] = AsyncMessage

    def __init__(
        self,
        server: Endpoint | str,
        *,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        timeout = seconds_of(timeout)
        check_seconds("timeout", timeout, zero=False)
        self._url, self._tls = endpoint(server, self._path, tls)
        self._server = server
        self._headers = checked_headers(headers)
        self._timeout = timeout
        self._inbox = Inbox()
        super().__init__()
        self._socket: ClientConnection | None = None  # The connection to send on; after the end, the last one.
        self._connections: list[ClientConnection] = []
        self._closing = False
        self._stalled = False
        self._ended = False
        self._last_end = ""  # How the last connection ended, for the texts of errors.
        self.errors: list[str] = []
        """The errors that the server sent, in order."""
        self.config: Mapping[str, Any] | None = None
        """The latest `config` message."""
        self.close_code: int | None = None
        """The code of the close frame. None while the connection is open, and if it ended without a close frame."""
        self.close_reason: str = ""
        """The reason in the close frame."""

    # Connecting and closing -------------------------------------------------------------------------------------------

    async def start(self) -> Self:
        """Connects. Returns when the server has accepted the peer.

        Raises:
            PeerRefusedError: The server refused the peer.
            UnreachableError: No signaling server answers.
            WaitTimeoutError: The server did not answer in time.
        """
        running_loop(type(self).__name__, f"use {type(self).__name__.removeprefix('Async')}, which works on each loop")
        try:
            await self._connect()
        except BaseException:
            await self.close()
            raise
        return self

    async def _connect(self) -> None:
        # A peer can be started again after a close, on another event loop.
        self._reset_replies()
        self._closing = self._stalled = False
        self._socket, self._last_end = None, ""
        self._inbox.clear()
        self.errors.clear()
        await self._open()
        await self._handshake()

    async def _handshake(self) -> None:
        """Sends the first message, and waits until the server has accepted the peer."""
        raise NotImplementedError

    async def _open(self) -> ClientConnection:
        self._update_url()
        connection = await open_connection(
            self._name,
            self._url,
            tls=self._tls,
            origin=self._origin(),
            subprotocols=self._subprotocols,
            headers=self._headers,
            timeout=self._timeout,
        )
        if self._closing:
            connection.transport.abort()
            raise self._closed("was closed while it connected")
        self._socket = connection
        self._connections.append(connection)
        self.close_code, self.close_reason, self._ended = None, "", False
        self._inbox.discard("config")
        self._spawn(self._read(connection))
        return connection

    def _update_url(self) -> None:
        """Asks the server for its URL again: after a restart it may listen on another port."""
        if isinstance(self._server, str):
            return
        with suppress(NotRunningError):
            self._url, _ = endpoint(self._server, self._path, self._tls)

    def _origin(self) -> str | None:
        """The header `Origin` of the request."""
        return None

    async def close(self) -> None:
        """Closes the connection with a close frame. A second call does nothing.

        Waits up to 1 s for replies that are being made. Raises the exception of a function that was given to `on()`.
        """
        self._closing = True
        closes = [self._close_connection(connection) for connection in self._connections]
        await (closes[0] if len(closes) == 1 else asyncio.gather(*closes))  # One needs no task of its own.
        if self._connections or self._replying is not None:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._finish(), CLOSE_TIMEOUT)
        await self._end_tasks()
        self._script.raise_error()

    async def _finish(self) -> None:
        """Waits until each message that came before the end has been read, and has its reply."""
        await self._wait_until(lambda: not self._connections or None, None, lambda: "")
        await self._finish_replies()

    async def _close_connection(self, connection: ClientConnection, code: int = 1000, reason: str = "") -> None:
        if self._stalled:
            # A stalled peer does not read the close frame of the other side.
            reset(connection)
            await connection.wait_closed()
            return
        # Without an answer, `websockets` closes the TCP connection after its close timeout.
        with suppress(ConnectionClosed, OSError):
            await connection.close(code, reason)

    async def drop(self) -> None:
        """Aborts the connection with TCP RST, without a close frame."""
        self._closing = True
        for connection in list(self._connections):
            reset(connection)
            await connection.wait_closed()
        await self._end_tasks()

    async def _end_tasks(self) -> None:
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
        self._ended = True
        self._changed.set()

    async def stall(self) -> None:
        """Stops reading, like a process that hangs: the peer sends no pings and answers none. `send()` still works."""
        self._connection().transport.pause_reading()
        self._stalled = True

    async def resume(self) -> None:
        """Reads again after `stall()`."""
        if self._ended:
            raise self._closed("is not connected")
        self._stalled = False
        for connection in self._connections:
            connection.transport.resume_reading()
        self._changed.set()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def is_open(self) -> bool:
        """Whether the peer is connected."""
        return self._socket is not None and self._socket.state is State.OPEN

    def _connection(self) -> ClientConnection:
        if self._socket is None or not self.is_open:
            raise self._closed("is not connected")
        return self._socket

    def _closed(self, what: str) -> PeerClosedError:
        """The error for a peer that has no connection; `what` says what it cannot do."""
        error = self.errors[-1] if self.errors else None
        if self._socket is None:
            return PeerClosedError(f"{self._name} {what}: no connection has been opened", error=error)
        code, reason = end_of(self._socket)
        last = f"; the server's last error: {error!r}" if error else ""
        how = how_ended(self._socket) + dropped_by_server(self)
        return PeerClosedError(f"{self._name} {what}: {how}{last}", error=error, code=code, reason=reason)

    # Receiving --------------------------------------------------------------------------------------------------------

    async def _read(self, connection: ClientConnection) -> None:
        # Most connections of tests end before the first ping, so the task begins with it.
        interval = self._ping_interval
        pings = interval and connection.loop.call_later(interval, self._begin_pings, connection, interval)
        try:
            async for text in connection:
                text = text if isinstance(text, str) else text.decode("utf-8", "replace")
                await self._receive(text, connection)
        except ConnectionClosed:
            pass
        finally:
            if pings:
                pings.cancel()
            self._connections.remove(connection)
            self._last_end = how_ended(connection) + ("" if self._closing else dropped_by_server(self))
            if self._connections:
                self._socket = self._connections[-1]
            else:
                self.close_code, self.close_reason = end_of(connection)
            self._ended = self._closing or not self._reconnects_after(connection)
            self._changed.set()
            self._on_end()

    def _begin_pings(self, connection: ClientConnection, interval: float) -> None:
        self._spawn(keep_alive(connection, interval, self._ping_timeout, lambda: self._stalled))

    def _on_end(self) -> None:
        """Called when a connection has ended, for waits on other events than `_changed`."""

    def _reconnects_after(self, connection: ClientConnection) -> bool:
        """Schedules a reconnect after the end of a connection that this side did not close, if the peer does that."""
        return False

    async def _receive(self, text: str, connection: ClientConnection) -> None:
        message = self._parse(text)
        if message.error is not None:
            self.errors.append(message.error)
        if message.message_type == "config":
            self.config = message.fields
        self._inbox.append(message)
        self._changed.set()
        await self._update_connections(message, connection)
        self._answer(message)

    def _parse(self, text: str) -> Message:
        message_type, fields = parse_message(text)
        is_new_peer = self._creates_peer(message_type, fields.get("client_id"))
        return self._message_class(message_type, text, fields, self, is_new_peer)

    def _creates_peer(self, message_type: str, client_id: Any) -> bool:
        """Whether a device creates a WebRTC peer for this message."""
        return False

    async def _update_connections(self, message: Message, connection: ClientConnection) -> None:
        """Registers, closes or schedules connections as the real peer does for this message."""

    async def recv(
        self,
        timeout: float | None = DEFAULT_TIMEOUT,
        *,
        type: str | None = None,
        message_type: str | None = None,
        check_type: bool = True,
    ) -> AsyncMessage:
        """Takes the first matching message out of the inbox, or waits for one. Other messages stay there, in order.

        Args:
            timeout: Seconds to wait; None waits forever.
            type: Take only payloads with this `"type"`.
            message_type: Take only messages of this type: `"client_disconnected"`, `"error"`, `"config"`, `"broken"`.
                Without it, take only payloads that the other peer sent.
            check_type: False accepts a type that looks like a misspelled known one.

        Raises:
            WaitTimeoutError: No matching message came in time. The text lists the messages in the inbox.
            PeerClosedError: The inbox has no matching message, and the connection is closed.
        """
        timeout = seconds_of(timeout)
        if check_type:
            from .._filters import check_type as check_payload_type

            check_payload_type(type, self._inbox.payload_types)
        wanted = (message_type,) if message_type else FORWARDS
        what = f"a message{f' of type {type!r}' if type else ''}{f' {message_type!r}' if message_type else ''}"

        def check() -> AsyncMessage | None:
            self._script.raise_error()
            message = self._inbox.take(wanted, type)
            if message is None and self._ended:
                raise self._closed(f"cannot receive {what}")
            return message  # type: ignore[return-value]  # SyncMessage, for synchronous peers.

        return await self._wait_until(
            check, timeout, lambda: f"waited {timeout:g} s for {what}; {self._inbox.summary()}"
        )

    async def _wait_until(self, check: Callable[[], T | None], timeout: float | None, failure: Callable[[], str]) -> T:
        return await wait_until(check, self._changed, timeout, lambda: f"{self._name} {failure()}{self._state()}")

    def _state(self) -> str:
        """The reason why a wait may have been in vain, for its error text: the last close, or `stall()`."""
        ended = f"; {self._last_end}{', then it connected again' if self.is_open else ''}" if self._last_end else ""
        return f"{ended}{dropped_by_server(self)}; it is stalled, so it reads nothing" if self._stalled else ended

    async def wait_closed(self, timeout: float | None = DEFAULT_TIMEOUT) -> int | None:
        """Waits until the connection is closed. Returns the close code; None if there was no close frame.

        Raises WaitTimeoutError.
        """
        timeout = seconds_of(timeout)
        check_seconds("timeout", timeout, optional=True)
        connection = self._socket
        if connection is None:
            return None
        await self._wait_until(
            lambda: connection not in self._connections or None,
            timeout,
            lambda: f"waited {timeout:g} s for its connection to close; it is still open; {self._inbox.summary()}",
        )
        return end_of(connection)[0]

    async def __aiter__(self) -> AsyncIterator[AsyncMessage]:
        """The messages that the other peer sends. Waits 5 s for each.

        Ends when the peer is closed, or the server closes with 1000 or 1001. Raises PeerClosedError after another end.
        """
        while True:
            try:
                yield await self.recv()
            except PeerClosedError as closed:
                if self._is_ordinary(closed):
                    return
                raise

    def _is_ordinary(self, closed: PeerClosedError) -> bool:
        """Whether the end of the connection is that of a session that did its work."""
        return not isinstance(closed, DeviceLostError) and (self._closing or closed.code in ORDINARY)

    # Sending ----------------------------------------------------------------------------------------------------------

    async def send_raw(self, data: str | bytes) -> None:
        """Sends a text or binary message unchanged, also one that the protocol forbids.

        Waits while the server does not read (backpressure). Raises PeerClosedError, also if the connection is closed
        meanwhile.
        """
        connection = self._socket
        if connection is not None:
            with suppress(ConnectionClosed):
                await connection.send(data)
                if connection.state is State.OPEN:
                    return
            # The error that the server sent before the close frame may be unread yet.
            with suppress(WaitTimeoutError):
                await self._wait_until(lambda: connection not in self._connections or None, CLOSE_TIMEOUT, lambda: "")
        raise self._closed("cannot send")

    async def _send_message(self, **message: Any) -> None:
        await self.send_raw(write(message))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name} {'open' if self.is_open else 'closed'}>"


late_annotations(globals())
