"""What fake devices and clients have in common: a WebSocket, an inbox, a script.

On the `websockets` library, an implementation that is not ours, so that no bug of the server is mirrored here.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
import ssl
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from .._config import check_seconds
from .._filters import check_type as check_payload_type
from ..errors import (
    ConfigError,
    DeviceLostError,
    NotRunningError,
    PeerClosedError,
    PeerRefusedError,
    SignalingError,
    UnreachableError,
    WaitTimeoutError,
)
from ._endpoint import Endpoint, endpoint, error_of
from ._message import BROKEN, FORWARDS, AsyncMessage, Message, Reply

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")


class AsyncPeer:
    """A fake peer: `AsyncFakeDevice` or `AsyncFakeClient`. Belongs to the event loop that starts it."""

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
        timeout: float = 5.0,
    ) -> None:
        check_seconds("timeout", timeout, zero=False)
        self._url, self._tls = endpoint(server, self._path, tls)
        self._server = server
        self._headers = dict(headers or {})
        self._timeout = timeout
        self._inbox: deque[Message] = deque()
        self._changed = asyncio.Event()
        self._socket: ClientConnection | None = None
        self._connections: list[ClientConnection] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._script: dict[str, Reply] = {}
        self._script_error: BaseException | None = None
        self._closing = False
        self._stalled = False
        self._ended = False
        self.errors: list[str] = []
        """What the server said is wrong, in order."""
        self.config: Mapping[str, Any] | None = None
        """The latest `config` message."""
        self.close_code: int | None = None
        """The code the connection was closed with; None while it is open, and if it broke off."""
        self.close_reason: str = ""
        """What was said at the close."""

    # Life ------------------------------------------------------------------------------------------------------------

    async def start(self) -> Self:
        """Connects; returns when the server has let it in.

        Raises:
            PeerRefusedError: The server said no.
            UnreachableError: There is no server.
            WaitTimeoutError: The server said nothing.
        """
        try:
            await self._connect()
        except BaseException:
            await self.close()
            raise
        return self

    async def _connect(self) -> None:
        # It may be started again after a close, on another loop.
        self._changed = asyncio.Event()
        self._closing = self._stalled = False
        self._inbox.clear()
        self.errors.clear()
        await self._open()
        await self._handshake()

    async def _handshake(self) -> None:
        raise NotImplementedError

    async def _open(self) -> ClientConnection:
        self._update_url()
        try:
            connection = await connect(
                self._url,
                ssl=self._tls,
                subprotocols=list(self._subprotocols) or None,  # type: ignore[arg-type]
                origin=self._origin(),  # type: ignore[arg-type]
                additional_headers=self._headers,
                compression=None,
                ping_interval=None,
                open_timeout=self._timeout,
                close_timeout=1,
                max_size=None,
                proxy=None,
            )
        except InvalidStatus as refused:
            error = error_of(refused.response.body)
            said = f"{refused.response.status_code} {error or ''}".strip()
            raise PeerRefusedError(f"{self._name}: {self._url} refused the connection: {said}", error=error) from None
        except (TimeoutError, asyncio.TimeoutError) as error:  # Two until Python 3.11.
            raise WaitTimeoutError(f"waited {self._timeout:g} s for {self._url} to answer {self._name}") from error
        except (OSError, InvalidHandshake) as error:
            raise UnreachableError(f"{self._name}: no signaling server at {self._url}: {error}") from error
        if self._closing:
            connection.transport.abort()
            raise self._closed("was closed while it connected")
        self._socket = connection
        self._connections.append(connection)
        self.close_code, self.close_reason, self._ended = None, "", False
        self._inbox = deque(message for message in self._inbox if message.message_type != "config")
        self._spawn(self._read(connection))
        if self._ping_interval is not None:
            self._spawn(self._keep_alive(connection, self._ping_interval))
        return connection

    def _update_url(self) -> None:
        """A server that was started anew may listen on another port."""
        if isinstance(self._server, str):
            return
        with suppress(NotRunningError):
            url, _ = endpoint(self._server, self._path, self._tls)
            self._url = url

    async def _keep_alive(self, connection: ClientConnection, interval: float) -> None:
        """Pings, and breaks the connection off when no pong comes. A process that hangs does neither."""
        with suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(interval)
                if self._stalled:
                    continue
                pong = asyncio.ensure_future(await connection.ping())
                await asyncio.wait([pong], timeout=self._ping_timeout)
                if not pong.done() and not self._stalled:
                    connection.transport.abort()

    def _origin(self) -> str | None:
        return None

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Says goodbye and hangs up. Raises what a function given to `on()` raised."""
        self._closing = True
        await asyncio.gather(*(self._close_connection(connection) for connection in self._connections))
        await self._end_tasks()
        self._raise_script_error()

    async def _close_connection(self, connection: ClientConnection, code: int = 1000, reason: str = "") -> None:
        if self._stalled:
            # It would not hear the answer to its goodbye.
            self._abort(connection)
            await connection.wait_closed()
            return
        # Where the other side does not answer, `websockets` hangs up after its close timeout.
        with suppress(ConnectionClosed, OSError):
            await connection.close(code, reason)

    async def drop(self) -> None:
        """Breaks off without a goodbye: TCP RST."""
        self._closing = True
        for connection in list(self._connections):
            self._abort(connection)
            await connection.wait_closed()
        await self._end_tasks()

    @staticmethod
    def _abort(connection: ClientConnection) -> None:
        raw = connection.transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.transport.abort()

    async def _end_tasks(self) -> None:
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._ended = True
        self._changed.set()

    async def stall(self) -> None:
        """Stops reading, as a process that hangs: it sends no pings and answers none. `send()` goes on."""
        self._connection().transport.pause_reading()
        self._stalled = True

    async def resume(self) -> None:
        """Reads again."""
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
        """Whether it is connected."""
        return self._socket is not None and self._socket.state.name == "OPEN"

    def _connection(self) -> ClientConnection:
        if self._socket is None or not self.is_open:
            raise self._closed("is not connected")
        return self._socket

    def _closed(self, what: str) -> PeerClosedError:
        error = self.errors[-1] if self.errors else None
        how = "broke off" if self.close_code is None else f"was closed [{self.close_code}] {self.close_reason!r}"
        said = f"; the server's last error: {error!r}" if error else ""
        return PeerClosedError(f"{self._name} {what}: the connection {how}{said}", error=error, code=self.close_code)

    # Hearing ----------------------------------------------------------------------------------------------------------

    async def _read(self, connection: ClientConnection) -> None:
        try:
            async for text in connection:
                text = text if isinstance(text, str) else text.decode("utf-8", "replace")
                await self._receive(text, connection)
        except ConnectionClosed:
            pass
        finally:
            self._connections.remove(connection)
            if self._connections:
                self._socket = self._connections[-1]
            else:
                self.close_code, self.close_reason = _close_code_of(connection), connection.close_reason or ""
            self._ended = self._closing or not self._reconnects_after(connection)
            self._changed.set()

    def _reconnects_after(self, connection: ClientConnection) -> bool:
        """A connection has ended, and not from this side. Whether the peer goes on without it."""
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
        await self._on_message(message)
        if message.message_type in FORWARDS and message.type in self._script:
            await self._send_reply(message, self._script[message.type])

    def _parse(self, text: str) -> Message:
        try:
            fields = json.loads(text)
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            return self._message_class(BROKEN, text, {}, self)
        kind = fields.get("message_type", "error" if "error" in fields else BROKEN)
        return self._message_class(
            str(kind), text, fields, self, self._creates_peer(str(kind), fields.get("client_id"))
        )

    def _creates_peer(self, message_type: str, client_id: Any) -> bool:
        """Whether a message makes this peer create a peer of its own."""
        return False

    async def _update_connections(self, message: Message, connection: ClientConnection) -> None:
        """What the real one does about its connection on such a message."""

    async def _on_message(self, message: Message) -> None:
        """What the real one does on such a message."""

    async def recv(
        self,
        timeout: float | None = 5.0,
        *,
        type: str | None = None,
        message_type: str | None = None,
        check_type: bool = True,
    ) -> AsyncMessage:
        """Takes the next message out of the inbox, or waits for it. What does not match stays there, in order.

        Args:
            timeout: Seconds; None waits for ever.
            type: Only a payload of this `"type"`.
            message_type: Only such a message: `"client_disconnected"`, `"error"`, `"config"`, `"broken"`. Without it,
                what the other peer sent.
            check_type: False, for a type that looks like a typo of another.

        Raises:
            WaitTimeoutError: None came; it says what did.
            PeerClosedError: None came, and none can come any more.
        """
        __tracebackhide__ = True
        if check_type:
            check_payload_type(type, lambda: {message.type for message in self._inbox if message.type})
        wanted = (message_type,) if message_type else FORWARDS
        what = f"a message{f' of type {type!r}' if type else ''}{f' {message_type!r}' if message_type else ''}"

        def check() -> AsyncMessage | None:
            self._raise_script_error()
            for message in self._inbox:
                if message.message_type in wanted and (type is None or message.type == type):
                    self._inbox.remove(message)
                    return message  # type: ignore[return-value]  # SyncMessage, for synchronous peers.
            if self._ended:
                raise self._closed(f"waits for {what} in vain")
            return None

        return await self._wait_until(
            check, timeout, lambda: f"waited {timeout:g} s for {what}; {self._inbox_summary()}"
        )

    async def _wait_until(self, check: Callable[[], T | None], timeout: float | None, failure: Callable[[], str]) -> T:
        """Looks whenever there is news. Raises WaitTimeoutError with the text of `failure`."""
        __tracebackhide__ = True
        check_seconds("timeout", timeout, optional=True)
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while (found := check()) is None:
            self._changed.clear()
            left = None if deadline is None else deadline - loop.time()
            if left is not None and left <= 0:
                raise WaitTimeoutError(f"{self._name} {failure()}")
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)
        return found

    def _inbox_summary(self) -> str:
        if not self._inbox:
            return "nothing came"
        came = ", ".join(str(message) for message in list(self._inbox)[:10])
        more = f" and {len(self._inbox) - 10} more" if len(self._inbox) > 10 else ""
        return f"what came and was not taken: {came}{more}"

    async def wait_closed(self, timeout: float | None = 5.0) -> int | None:
        """Waits for the connection's end; returns the close code, None if it broke off. Raises WaitTimeoutError."""
        connection = self._socket
        if connection is None:
            return None
        await self._wait_until(
            lambda: connection not in self._connections or None,
            timeout,
            lambda: f"waited {timeout:g} s for its connection to end; it is open; {self._inbox_summary()}",
        )
        return _close_code_of(connection)

    async def __aiter__(self) -> AsyncIterator[AsyncMessage]:
        """What the other peer sends, until the connection ends; waits 5 s for each."""
        while True:
            try:
                yield await self.recv()
            except DeviceLostError:
                raise
            except PeerClosedError:
                return

    # Speaking ---------------------------------------------------------------------------------------------------------

    async def send_raw(self, data: str | bytes) -> None:
        """Sends text or binary as it is, whatever the protocol says. Raises PeerClosedError."""
        try:
            await self._connection().send(data)
        except ConnectionClosed:
            raise self._closed("can not send") from None

    async def _send_message(self, **message: Any) -> None:
        await self.send_raw(json.dumps(message, ensure_ascii=False))

    async def _reply(self, message: Message, payload: Any) -> None:
        raise NotImplementedError

    def on(self, type: str, *, reply_with: Reply) -> Self:
        """From now on, answers payloads of this type.

        Args:
            type: The payload's `"type"`.
            reply_with: A payload; a list of payloads; or a function of the `Message`, `def` or `async def`, that
                returns one of these or None. What it raises is raised by `recv()` and `close()`.
        """
        if not isinstance(type, str):
            raise ConfigError("type", f"must be a string, got {type!r}")
        self._script[type] = reply_with
        return self

    async def _send_reply(self, message: Message, reply: Reply) -> None:
        try:
            if callable(reply):
                reply = reply(message)
                if inspect.isawaitable(reply):
                    reply = await reply
            if reply is None:
                return
            for payload in reply if isinstance(reply, list) else [reply]:
                await self._reply(message, payload)
        except PeerClosedError:
            pass  # Whoever asked has left, or is about to hear of it.
        except Exception as error:
            self._script_error = error
            self._changed.set()

    def _raise_script_error(self) -> None:
        error, self._script_error = self._script_error, None
        if error is not None:
            raise error

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name} {'open' if self.is_open else 'closed'}>"


def _close_code_of(connection: ClientConnection) -> int | None:
    """The close code; None where it broke off, which `websockets` calls 1006."""
    return None if connection.close_code == 1006 else connection.close_code


def refused_by_server(peer: AsyncPeer, what: str) -> SignalingError:
    """The server did not let it in."""
    error = peer.errors[-1] if peer.errors else None
    how = error or f"closed [{peer.close_code}] {peer.close_reason!r}"
    return PeerRefusedError(f"{peer._name}: the server refused to {what}: {how}", error=error, code=peer.close_code)
