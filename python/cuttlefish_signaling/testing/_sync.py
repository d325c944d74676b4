"""The fake peers for synchronous code. They run the asynchronous ones on the shared event loop.

Their docstrings are those of the asynchronous twins.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Coroutine, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .._annotations import late_annotations
from .._field_docs import with_field_docs
from .._loops import stood_still
from .._raw_json import RawJson
from .._timeouts import DEFAULT_TIMEOUT
from ..errors import ConfigError, PeerClosedError, WaitTimeoutError
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
F = TypeVar("F", bound=Callable[..., Any])


def documented_by(twin: object) -> Callable[[F], F]:
    """Copies the docstring of an asynchronous class, method or property, with the names of the synchronous classes."""

    def copy(target: F) -> F:
        if twin.__doc__ is not None:  # None with `python -OO`.
            target.__doc__ = twin.__doc__.replace("async with ", "with ").replace("Async", "")
        return target

    return copy


@with_field_docs
class SyncMessage(Message):
    """A message that a synchronous fake peer received."""

    def reply(self, payload: Any) -> None:
        """Forwards a payload to the sender of this message. A function given to `on()` returns its reply instead."""
        if shared_loop.is_current:
            raise ConfigError("reply", "cannot be called in a function given to on(): return the payload instead")
        shared_loop.run(self._peer._reply(self, payload))


class Peer(Generic[P]):
    """A fake peer: `FakeDevice` or `FakeClient`. Use it in a `with` statement, or call `start()` and `close()`."""

    def __init__(self, peer: P) -> None:
        peer._message_class = SyncMessage
        self._peer = peer
        self._started = False

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if shared_loop.is_current:
            coroutine.close()
            self._refuse_on_loop()
        if not self._started:
            coroutine.close()
            if self._peer._socket is not None:
                raise self._peer._closed("is closed")
            raise PeerClosedError(f"{self._peer._name} is not started: use it in a with statement, or call start()")
        try:
            return shared_loop.run(coroutine)
        except WaitTimeoutError as error:
            error.args = (f"{error}{stood_still(type(self._peer).__name__)}",)
            raise

    def _refuse_on_loop(self) -> None:
        """Raises ConfigError on the thread of the event loop, which would wait for itself."""
        if shared_loop.is_current:
            what = "cannot be used in a function given to on(), which runs on the event loop of the fake peers"
            raise ConfigError(self._peer._name, f"{what}: return the payload instead, or use the Async peers")

    @documented_by(AsyncPeer.start)
    def start(self) -> Self:
        self._refuse_on_loop()
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

    @documented_by(AsyncPeer.close)
    def close(self) -> None:
        if not self._started:
            return
        self._refuse_on_loop()
        try:
            self._run(self._peer.close())
        finally:
            self._release_loop()

    @documented_by(AsyncPeer.drop)
    def drop(self) -> None:
        self._refuse_on_loop()
        try:
            self._run(self._peer.drop())
        finally:
            self._release_loop()

    @documented_by(AsyncPeer.stall)
    def stall(self) -> None:
        self._run(self._peer.stall())

    @documented_by(AsyncPeer.resume)
    def resume(self) -> None:
        self._run(self._peer.resume())

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    @documented_by(AsyncPeer.is_open)
    def is_open(self) -> bool:
        return self._peer.is_open

    @property
    def errors(self) -> list[str]:
        """The errors that the server sent, in order."""
        return list(self._peer.errors)

    @property
    def config(self) -> Mapping[str, Any] | None:
        """The latest `config` message."""
        return self._peer.config

    @property
    def close_code(self) -> int | None:
        """The code of the close frame. None while the connection is open, and if it ended without a close frame."""
        return self._peer.close_code

    @property
    def close_reason(self) -> str:
        """The reason in the close frame."""
        return self._peer.close_reason

    @documented_by(AsyncPeer.recv)
    def recv(
        self,
        timeout: float | None = DEFAULT_TIMEOUT,
        *,
        type: str | None = None,
        message_type: str | None = None,
        check_type: bool = True,
    ) -> SyncMessage:
        coroutine = self._peer.recv(timeout, type=type, message_type=message_type, check_type=check_type)
        message: Any = self._run(coroutine)
        return message  # type: ignore[no-any-return]

    @documented_by(AsyncPeer.__aiter__)
    def __iter__(self) -> Iterator[SyncMessage]:
        while True:
            try:
                yield self.recv()
            except PeerClosedError as closed:
                if self._peer._is_ordinary(closed):
                    return
                raise

    @documented_by(AsyncPeer.wait_closed)
    def wait_closed(self, timeout: float | None = DEFAULT_TIMEOUT) -> int | None:
        return self._run(self._peer.wait_closed(timeout))

    @documented_by(AsyncPeer.send_raw)
    def send_raw(self, data: str | bytes) -> None:
        self._run(self._peer.send_raw(data))

    def on(self, type: str, *, reply_with: Reply) -> Self:
        """Replies to each payload of this type from now on.

        Args:
            type: The payload's `"type"`.
            reply_with: A payload, a list of payloads, or a function of the `Message`, `def` or `async def`, that
                returns one of these or None. It runs on another thread than the test. `recv()` and `close()` raise its
                exceptions.
        """
        self._peer.on(type, reply_with=reply_with)
        return self

    def __repr__(self) -> str:
        return repr(self._peer).replace("Async", "")


@documented_by(AsyncFakeDevice)
class FakeDevice(Peer[AsyncFakeDevice]):
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
        timeout: float = DEFAULT_TIMEOUT,
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
        """The id that the device registers."""
        return self._peer.device_id

    @property
    def info(self) -> Any:
        """The device info that the device registers."""
        return self._peer.info

    @property
    def profile(self) -> Profile:
        """The real device whose behavior it has; None for a program that is not a Cuttlefish device."""
        return self._peer.profile

    @property
    @documented_by(AsyncFakeDevice.clients)
    def clients(self) -> list[int]:
        return self._peer.clients

    @property
    def reconnects(self) -> int:
        """The number of registrations after the first."""
        return self._peer.reconnects

    @property
    def extra_connections(self) -> int:
        """The number of connections that were opened beside an open one. More than 0 is a reconnect storm."""
        return self._peer.extra_connections

    @property
    def collisions(self) -> list[int]:
        """The client ids whose messages went to a WebRTC peer of an earlier registration.

        The server gave an old number to a new client, which a real device cannot serve.
        """
        return list(self._peer.collisions)

    @property
    @documented_by(AsyncFakeDevice.is_lost)
    def is_lost(self) -> bool:
        return self._peer.is_lost

    @property
    def lost_reason(self) -> str | None:
        """The reason why the device is lost; None if it is not."""
        return self._peer.lost_reason

    @documented_by(AsyncFakeDevice.wait_reconnected)
    def wait_reconnected(self, times: int = 1, timeout: float | None = DEFAULT_TIMEOUT) -> None:
        self._run(self._peer.wait_reconnected(times, timeout))

    @documented_by(AsyncFakeDevice.send)
    def send(self, payload: Any, client_id: int | None = None) -> None:
        self._run(self._peer.send(payload, client_id))


@documented_by(AsyncFakeClient)
class FakeClient(Peer[AsyncFakeClient]):
    def __init__(
        self,
        server: Endpoint | str,
        device_id: str = "cvd-1",
        *,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        super().__init__(AsyncFakeClient(server, device_id, headers=headers, tls=tls, timeout=timeout))

    @property
    def device_id(self) -> str:
        """The id of the device."""
        return self._peer.device_id

    @property
    def device_info(self) -> Any:
        """The device info that the server sent."""
        return self._peer.device_info

    @property
    def device_info_json(self) -> RawJson | None:
        """The device info, byte for byte; None before the server has sent it."""
        return self._peer.device_info_json

    @property
    @documented_by(AsyncFakeClient.ice_servers)
    def ice_servers(self) -> list[dict[str, Any]]:
        return self._peer.ice_servers

    @documented_by(AsyncFakeClient.send)
    def send(self, payload: Any) -> None:
        self._run(self._peer.send(payload))


late_annotations(globals())
