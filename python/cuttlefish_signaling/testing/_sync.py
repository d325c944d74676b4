"""The fake peers for synchronous code: the asynchronous ones, on a loop of their own."""

from __future__ import annotations

import os
import ssl
from collections.abc import Coroutine, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..errors import ConfigError, DeviceLostError, PeerClosedError
from ._cassette import AsyncReplayDevice, Cassette
from ._client import AsyncFakeClient
from ._device import AsyncFakeDevice, Profile
from ._endpoint import Endpoint
from ._loop import shared_loop
from ._message import Message, Reply
from ._peer import AsyncPeer

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")
P = TypeVar("P", bound=AsyncPeer)


class SyncMessage(Message):
    """A message that a synchronous fake peer heard."""

    def reply(self, payload: Any) -> None:
        """Forwards a payload to whoever sent this. In a function given to `on()`, return the payload instead."""
        if shared_loop.is_current:
            raise ConfigError("reply", "a function given to on() returns its reply")
        shared_loop.run(self._peer._reply(self, payload))


class Peer(Generic[P]):
    """A fake peer: `FakeDevice` or `FakeClient`. Use it in a `with`, or `start()` and `close()` it."""

    def __init__(self, peer: P) -> None:
        peer._message_class = SyncMessage
        self._peer = peer
        self._started = False

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        __tracebackhide__ = True
        if not self._started:
            coroutine.close()
            raise PeerClosedError(f"{self._peer._name} is not started: use it in a with statement, or start() it")
        return shared_loop.run(coroutine)

    def start(self) -> Self:
        """Connects; returns when the server has let it in.

        Raises:
            PeerRefusedError: The server said no.
            UnreachableError: There is no server.
            WaitTimeoutError: The server said nothing.
        """
        shared_loop.acquire()
        self._started = True
        try:
            self._run(self._peer.start())
        except BaseException:
            self._release_loop()
            raise
        return self

    def _release_loop(self) -> None:
        if self._started:
            self._started = False
            shared_loop.release()

    def close(self) -> None:
        """Says goodbye and hangs up. Raises what a function given to `on()` raised. A second time does nothing."""
        if not self._started:
            return
        try:
            self._run(self._peer.close())
        finally:
            self._release_loop()

    def drop(self) -> None:
        """Breaks off without a goodbye: TCP RST."""
        try:
            self._run(self._peer.drop())
        finally:
            self._release_loop()

    def stall(self) -> None:
        """Stops reading, as a process that hangs: it sends no pings and answers none. `send()` goes on."""
        self._run(self._peer.stall())

    def resume(self) -> None:
        """Reads again."""
        self._run(self._peer.resume())

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether it is connected."""
        return self._peer.is_open

    @property
    def errors(self) -> list[str]:
        """What the server said is wrong, in order."""
        return list(self._peer.errors)

    @property
    def config(self) -> Mapping[str, Any] | None:
        """The latest `config` message."""
        return self._peer.config

    @property
    def close_code(self) -> int | None:
        """The code the connection was closed with; None while it is open, and if it broke off."""
        return self._peer.close_code

    @property
    def close_reason(self) -> str:
        """What was said at the close."""
        return self._peer.close_reason

    def recv(
        self,
        timeout: float | None = 5.0,
        *,
        type: str | None = None,
        message_type: str | None = None,
        check_type: bool = True,
    ) -> SyncMessage:
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
        coroutine = self._peer.recv(timeout, type=type, message_type=message_type, check_type=check_type)
        message: Any = self._run(coroutine)
        return message  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[SyncMessage]:
        """What the other peer sends, until the connection ends; waits 5 s for each."""
        while True:
            try:
                yield self.recv()
            except DeviceLostError:
                raise
            except PeerClosedError:
                return

    def wait_closed(self, timeout: float | None = 5.0) -> int | None:
        """Waits for the connection's end; returns the close code, None if it broke off. Raises WaitTimeoutError."""
        return self._run(self._peer.wait_closed(timeout))

    def send_raw(self, data: str | bytes) -> None:
        """Sends text or binary as it is, whatever the protocol says. Raises PeerClosedError."""
        self._run(self._peer.send_raw(data))

    def on(self, type: str, *, reply_with: Reply) -> Self:
        """From now on, answers payloads of this type.

        Args:
            type: The payload's `"type"`.
            reply_with: A payload; a list of payloads; or a function of the message, that returns one of these or None.
                It runs on another thread than the test. What it raises is raised by `recv()` and `close()`.
        """
        self._peer.on(type, reply_with=reply_with)
        return self

    def __repr__(self) -> str:
        return repr(self._peer).replace("Async", "")


class FakeDevice(Peer[AsyncFakeDevice]):
    """A device, as far as signaling goes: `with FakeDevice(server, "cvd-1") as device: ...`.

    It sends the server's address as `Origin`, pings every 3 s and hangs up after 10 s without a pong. Without a profile
    it is a program of one's own: it offers no sub-protocol, hears errors and goes on, and does not come back.

    With one it reacts as the real devices do. It offers the sub-protocol `webrtc-operator` and keeps its peers, one for
    each client, when it reconnects. It comes back `backoff` seconds after its connection was closed; each attempt that
    fails doubles the wait, up to a minute. It closes a connection that sends an unknown message. Each error schedules
    one more reconnect, as each close does: after both, a `"legacy"` device is lost forever, and a `"current"` one
    opens a second connection, which is the beginning of a reconnect storm.

    Args:
        server: A `SignalingServer`, or a URL.
        device_id: What it registers as.
        info: Its device info; `device_info(device_id)` where nothing is said.
        profile: None, `"legacy"` (Android's own tree, through Android 15) or `"current"` (today's public repository).
        backoff: Seconds between a close and the reconnect.
        tolerant: With a profile: ignores errors and unknown messages, as no real device does. Without one it has no
            effect.
        headers: More headers for its request.
        tls: What to verify the server's certificate with; that of a `SignalingServer` is known.
        timeout: Seconds it may take to be let in.
    """

    def __init__(
        self,
        server: Endpoint | str,
        device_id: str = "cvd-1",
        *,
        info: Any = ...,
        profile: Profile = None,
        backoff: float = 1.0,
        tolerant: bool = False,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = 5.0,
    ) -> None:
        super().__init__(
            AsyncFakeDevice(
                server,
                device_id,
                info=info,
                profile=profile,
                backoff=backoff,
                tolerant=tolerant,
                headers=headers,
                tls=tls,
                timeout=timeout,
            )
        )

    @property
    def device_id(self) -> str:
        """What it registered as."""
        return self._peer.device_id

    @property
    def info(self) -> Any:
        """Its device info."""
        return self._peer.info

    @property
    def profile(self) -> Profile:
        """Which real device it models; None is a program of one's own."""
        return self._peer.profile

    @property
    def clients(self) -> list[int]:
        """The clients that have sent something, and are not gone. A device with a profile keeps those of before."""
        return self._peer.clients

    @property
    def reconnects(self) -> int:
        """How often it came back: registrations after the first."""
        return self._peer.reconnects

    @property
    def extra_connections(self) -> int:
        """How many connections it opened beside one that was open: more than 0 is a reconnect storm."""
        return self._peer.extra_connections

    @property
    def collisions(self) -> list[int]:
        """The client ids whose messages went to a peer of an earlier registration.

        The server gave an old number to a new client, which a real device can not serve.
        """
        return list(self._peer.collisions)

    @property
    def is_lost(self) -> bool:
        """Whether it is gone forever: a `"legacy"` device that heard an error and a close."""
        return self._peer.is_lost

    @property
    def lost_reason(self) -> str | None:
        """Why it is lost; None while it is not."""
        return self._peer.lost_reason

    def wait_reconnected(self, times: int = 1, timeout: float | None = 5.0) -> None:
        """Waits until it has come back so often, all in all.

        Raises:
            WaitTimeoutError: It has not.
            DeviceLostError: It is lost.
            ConfigError: It has no profile: it never comes back by itself.
        """
        self._run(self._peer.wait_reconnected(times, timeout))

    def send(self, payload: Any, client_id: int | None = None) -> None:
        """Forwards a payload (anything JSON can say) to a client; with one client alone, to that.

        Raises PeerClosedError, and ConfigError where it is not clear which client is meant.
        """
        self._run(self._peer.send(payload, client_id))


class FakeClient(Peer[AsyncFakeClient]):
    """A client of one device: `with FakeClient(server, "cvd-1") as client: ...`.

    Like a browser it offers no sub-protocol, sends no pings, and takes any error before its device info as final.

    Args:
        server: A `SignalingServer`, or a URL.
        device_id: The device it connects to.
        headers: More headers for its request; a browser would send `Origin`.
        tls: What to verify the server's certificate with; that of a `SignalingServer` is known.
        timeout: Seconds it may take to be connected, a wait for the device included.
    """

    def __init__(
        self,
        server: Endpoint | str,
        device_id: str = "cvd-1",
        *,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = 5.0,
    ) -> None:
        super().__init__(AsyncFakeClient(server, device_id, headers=headers, tls=tls, timeout=timeout))

    @property
    def device_id(self) -> str:
        """The device it is connected to."""
        return self._peer.device_id

    @property
    def device_info(self) -> Any:
        """What it may see of the device."""
        return self._peer.device_info

    @property
    def ice_servers(self) -> list[dict[str, Any]]:
        """What the server's `config` named."""
        return self._peer.ice_servers

    def send(self, payload: Any) -> None:
        """Forwards a payload (anything JSON can say) to the device. Raises PeerClosedError."""
        self._run(self._peer.send(payload))


class ReplayDevice(FakeDevice):
    """A device that says what is on a cassette: `with ReplayDevice(server, "boot.jsonl") as device: ...`.

    Each client gets what a client of the cassette got, the first what the first got; more clients than there were get
    what the last one got. A client's payload is matched by its type: the first of that type is answered with what
    followed the first of that type, and so on. With a profile it goes on where it was when it reconnects: a client with
    an old number gets the rest of what was there for the old client.

    Args:
        server: A `SignalingServer`, or a URL.
        cassette: A `Cassette`, or its file.
        device_id: What it registers as; that of the cassette where nothing is said.
        options: As for `FakeDevice`.

    Raises CassetteError where the file can not be read.
    """

    _peer: AsyncReplayDevice

    def __init__(
        self,
        server: Endpoint | str,
        cassette: Cassette | str | os.PathLike[str],
        device_id: str | None = None,
        **options: Any,
    ) -> None:
        Peer.__init__(self, AsyncReplayDevice(server, cassette, device_id, **options))

    @property
    def cassette(self) -> Cassette:
        """What it says."""
        return self._peer.cassette

    @property
    def unmatched(self) -> list[Any]:
        """Payloads of clients that the cassette has no answer to."""
        return list(self._peer.unmatched)
