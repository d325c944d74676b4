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
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from .._config import Tls, check_seconds
from .._filters import check_type as check_payload_type
from ..errors import (
    ConfigError,
    PeerClosedError,
    PeerRefusedError,
    SignalingError,
    UnreachableError,
    WaitTimeoutError,
)

if TYPE_CHECKING:
    from typing_extensions import Self

Reply: TypeAlias = Any
"""A payload, a list of payloads, or a function of the message that returns one of these, or None for no reply."""

FORWARDS = ("client_msg", "device_msg")
BROKEN = "broken"


class Endpoint(Protocol):
    """Anything with the URLs of a signaling server: a `SignalingServer`, an `AttachedServer`."""

    @property
    def device_url(self) -> str: ...
    @property
    def client_url(self) -> str: ...
    @property
    def tls(self) -> Tls | None: ...


@dataclass(frozen=True)
class Message:
    """A message that a fake peer heard."""

    message_type: str
    """`client_msg`, `device_msg`, `client_disconnected`, `config`, `error`; `broken` for what is no JSON object."""
    text: str = field(repr=False)
    """The text as it came."""
    fields: Mapping[str, Any] = field(repr=False)
    """The whole message, parsed; empty where it is broken."""
    _peer: AsyncPeer = field(repr=False, compare=False)

    @property
    def payload(self) -> Any:
        """The payload; None in messages that have none."""
        return self.fields.get("payload")

    @property
    def type(self) -> str | None:
        """The payload's `"type"`, if it has one."""
        payload = self.payload
        name = payload.get("type") if isinstance(payload, dict) else None
        return name if isinstance(name, str) else None

    @property
    def client_id(self) -> int | None:
        """The client it is about; None on clients."""
        return self.fields.get("client_id")

    @property
    def error(self) -> str | None:
        """What the server says is wrong, in an `error`."""
        return self.fields.get("error")

    def __str__(self) -> str:
        client = "" if self.client_id is None else f" of client {self.client_id}"
        what = self.error or self.type or (json.dumps(self.payload) if "payload" in self.fields else "")
        return f"{self.message_type}{client}{f' ({what[:80]})' if what else ''}"


class AsyncMessage(Message):
    """A message that an asynchronous fake peer heard."""

    async def reply(self, payload: Any) -> None:
        """Forwards a payload to whoever sent this."""
        await self._peer._reply(self, payload)


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
        self._url, self._tls = _endpoint(server, self._path, tls)
        self._headers = dict(headers or {})
        self._timeout = timeout
        self._inbox: deque[Message] = deque()
        self._news = asyncio.Event()
        self._socket: ClientConnection | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._script: dict[str, Reply] = {}
        self._script_error: BaseException | None = None
        self._closing = False
        self._stalled = False
        self._over = False
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
            await self._enter()
        except BaseException:
            await self.close()
            raise
        return self

    async def _enter(self) -> None:
        # It may be started again after a close.
        self._closing = self._stalled = False
        self._inbox.clear()
        await self._open()
        await self._introduce()

    async def _introduce(self) -> None:
        raise NotImplementedError

    async def _open(self) -> None:
        try:
            self._socket = await connect(
                self._url,
                ssl=self._tls,
                subprotocols=list(self._subprotocols) or None,  # type: ignore[arg-type]
                origin=self._origin(),  # type: ignore[arg-type]
                additional_headers=self._headers,
                compression=None,
                ping_interval=self._ping_interval,
                ping_timeout=self._ping_timeout,
                open_timeout=self._timeout,
                close_timeout=1,
                max_size=None,
                proxy=None,
            )
        except InvalidStatus as refused:
            error = _error_of(refused.response.body)
            said = f"{refused.response.status_code} {error or ''}".strip()
            raise PeerRefusedError(f"{self._name}: {self._url} refused the connection: {said}", error=error) from None
        except (TimeoutError, asyncio.TimeoutError) as error:  # Two until Python 3.11.
            raise WaitTimeoutError(f"waited {self._timeout:g} s for {self._url} to answer {self._name}") from error
        except (OSError, InvalidHandshake) as error:
            raise UnreachableError(f"{self._name}: no signaling server at {self._url}: {error}") from error
        self.close_code, self.close_reason, self._over = None, "", False
        self._inbox = deque(message for message in self._inbox if message.message_type != "config")
        self._spawn(self._read(self._socket))

    def _origin(self) -> str | None:
        return None

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Says goodbye and hangs up. Raises what a function given to `on()` raised."""
        self._closing = True
        if self._socket is not None and self._stalled:
            # It would not hear the answer to its goodbye.
            self._break_off(self._socket)
        elif self._socket is not None:
            # Where the other side does not answer, `websockets` hangs up after its close timeout.
            with suppress(ConnectionClosed, OSError):
                await self._socket.close()
        await self._end_tasks()
        self._raise_script_error()

    async def drop(self) -> None:
        """Breaks off without a goodbye: TCP RST."""
        self._closing = True
        if self._socket is not None:
            self._break_off(self._socket)
            await self._socket.wait_closed()
        await self._end_tasks()

    @staticmethod
    def _break_off(connection: ClientConnection) -> None:
        raw = connection.transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.transport.abort()

    async def _end_tasks(self) -> None:
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._over = True
        self._news.set()

    async def stall(self) -> None:
        """Stops reading, as a process that hangs: not even pings are answered. Sending goes on."""
        self._connection().transport.pause_reading()
        self._stalled = True

    async def resume(self) -> None:
        """Reads again."""
        self._connection().transport.resume_reading()
        self._stalled = False

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
                await self._hear(text if isinstance(text, str) else text.decode("utf-8", "replace"))
        except ConnectionClosed:
            pass
        self.close_code = _code_of(connection)
        self.close_reason = connection.close_reason or ""
        self._over = self._closing or not self._lost()
        self._news.set()

    def _lost(self) -> bool:
        """The connection has ended, and not from this side. Whether the peer comes back."""
        return False

    async def _hear(self, text: str) -> None:
        message = self._parse(text)
        if message.error is not None:
            self.errors.append(message.error)
        if message.message_type == "config":
            self.config = message.fields
        self._inbox.append(message)
        self._news.set()
        await self._react(message)
        if message.message_type in FORWARDS and message.type in self._script:
            await self._answer(message, self._script[message.type])

    def _parse(self, text: str) -> Message:
        try:
            fields = json.loads(text)
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            return self._message_class(BROKEN, text, {}, self)
        kind = fields.get("message_type", "error" if "error" in fields else BROKEN)
        return self._message_class(str(kind), text, fields, self)

    async def _react(self, message: Message) -> None:
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
        check_seconds("timeout", timeout, optional=True)
        if check_type:
            check_payload_type(type, lambda: {message.type for message in self._inbox if message.type})
        wanted = (message_type,) if message_type else FORWARDS
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while True:
            self._raise_script_error()
            for message in self._inbox:
                if message.message_type in wanted and (type is None or message.type == type):
                    self._inbox.remove(message)
                    return message  # type: ignore[return-value]  # SyncMessage, for synchronous peers.
            what = f"a message{f' of type {type!r}' if type else ''}{f' {message_type!r}' if message_type else ''}"
            if self._over:
                raise self._closed(f"waits for {what} in vain")
            self._news.clear()
            left = None if deadline is None else deadline - loop.time()
            if left is not None and left <= 0:
                raise WaitTimeoutError(f"{self._name} waited {timeout:g} s for {what}; {self._waiting()}")
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), left)

    def _waiting(self) -> str:
        if not self._inbox:
            return "nothing came"
        came = ", ".join(str(message) for message in list(self._inbox)[:10])
        more = f" and {len(self._inbox) - 10} more" if len(self._inbox) > 10 else ""
        return f"what came and was not taken: {came}{more}"

    async def wait_closed(self, timeout: float | None = 5.0) -> int | None:
        """Waits for the connection's end; returns the close code, None if it broke off. Raises WaitTimeoutError."""
        check_seconds("timeout", timeout, optional=True)
        if self._socket is None:
            return None
        try:
            await asyncio.wait_for(self._socket.wait_closed(), timeout)
        except asyncio.TimeoutError:
            text = f"{self._name} waited {timeout:g} s for its connection to end; it is open; {self._waiting()}"
            raise WaitTimeoutError(text) from None
        return _code_of(self._socket)

    async def __aiter__(self) -> AsyncIterator[AsyncMessage]:
        """What the other peer sends, until the connection ends; waits 5 s for each."""
        while True:
            try:
                yield await self.recv()
            except PeerClosedError:
                return

    # Speaking ---------------------------------------------------------------------------------------------------------

    async def send_raw(self, data: str | bytes) -> None:
        """Sends text or binary as it is, whatever the protocol says. Raises PeerClosedError."""
        try:
            await self._connection().send(data)
        except ConnectionClosed:
            raise self._closed("can not send") from None

    async def _say(self, **message: Any) -> None:
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

    async def _answer(self, message: Message, reply: Reply) -> None:
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
            self._news.set()

    def _raise_script_error(self) -> None:
        error, self._script_error = self._script_error, None
        if error is not None:
            raise error

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name} {'open' if self.is_open else 'closed'}>"


def _code_of(connection: ClientConnection) -> int | None:
    """The close code; None where it broke off, which `websockets` calls 1006."""
    return None if connection.close_code == 1006 else connection.close_code


def _endpoint(server: Endpoint | str, path: str, tls: ssl.SSLContext | None) -> tuple[str, ssl.SSLContext | None]:
    """The WebSocket URL of an endpoint, and what to verify its certificate with."""
    if not isinstance(server, str):
        url = server.device_url if path == "/register_device" else server.client_url
        own = server.tls.client_context() if tls is None and server.tls is not None else None
        return url, tls or own or getattr(server, "ssl_context", None)
    scheme, separator, rest = server.partition("://")
    scheme = {"http": "ws", "https": "wss"}.get(scheme, scheme)
    if not separator or scheme not in ("ws", "wss"):
        raise ConfigError("server", f"{server!r} is neither a server nor a URL with http, https, ws or wss")
    base, slash, query = rest.partition("?")
    base = base.rstrip("/")
    url = f"{scheme}://{base if base.endswith(path) else base + path}{slash}{query}"
    return url, tls or (ssl.create_default_context() if scheme == "wss" else None)


def _error_of(body: bytes | bytearray | None) -> str | None:
    try:
        return str(json.loads(body or b"")["error"])
    except (ValueError, KeyError, TypeError):
        return None


def _refused(peer: AsyncPeer, what: str) -> SignalingError:
    """The server did not let it in."""
    error = peer.errors[-1] if peer.errors else None
    how = error or f"closed [{peer.close_code}] {peer.close_reason!r}"
    return PeerRefusedError(f"{peer._name}: the server refused to {what}: {how}", error=error, code=peer.close_code)
