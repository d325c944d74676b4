"""The types of the fixtures that are functions, for annotations: `def test(fake_device: FakeDeviceFactory): ...`."""

from __future__ import annotations

import ssl
from collections.abc import Generator, Iterable, Mapping
from types import TracebackType
from typing import Any, Protocol, TypeVar

from .._server import SignalingServer
from .._timeouts import DEFAULT_TIMEOUT
from ._client import AsyncFakeClient
from ._cluster import SignalingCluster
from ._device import AsyncFakeDevice, Profile
from ._endpoint import Endpoint
from ._sync import FakeClient, FakeDevice

T_co = TypeVar("T_co", covariant=True)


class ServerFactory(Protocol):
    """The type of the fixture `signaling_server_factory`: it starts a server with these settings."""

    __call__: type[SignalingServer]
    """Starts a server. A type checker takes the arguments from the class: a method would have to repeat them."""


class ClusterFactory(Protocol):
    """The type of the fixture `signaling_cluster`: it starts a cluster, which runs until the end of the test."""

    def __call__(
        self, nodes: int | Iterable[Mapping[str, Any]] = 3, *, timeout: float = DEFAULT_TIMEOUT, **settings: Any
    ) -> SignalingCluster:
        """Starts a cluster. The arguments are those of `SignalingCluster`."""


class ProxyFactory(Protocol):
    """The type of the fixture `signaling_proxy`: it starts a proxy in front of a server."""

    def __call__(self, url: str, /, **settings: Any) -> SignalingServer:
        """Starts a proxy. `url` is that of the server behind it; the settings are those of `SignalingServer`."""


class FakeDeviceFactory(Protocol):
    """The type of the fixture `fake_device`: it registers a device on the server of the test, or on another one."""

    def __call__(
        self,
        device_id: str = "cvd-1",
        *,
        server: Endpoint | str = ...,
        info: Any = ...,
        profile: Profile = None,
        backoff: float = 1.0,
        tolerant: bool = False,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> FakeDevice:
        """Registers a device. The other arguments are those of `FakeDevice`."""


class FakeClientFactory(Protocol):
    """The type of the fixture `fake_client`: it connects a client on the server of the test, or on another one."""

    def __call__(
        self,
        device_id: str = "cvd-1",
        *,
        server: Endpoint | str = ...,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> FakeClient:
        """Connects a client. The other arguments are those of `FakeClient`."""


class StartingPeer(Protocol[T_co]):
    """An asynchronous fake peer that starts: `await` it, or use it in an `async with` statement."""

    def __await__(self) -> Generator[Any, Any, T_co]: ...

    async def __aenter__(self) -> T_co: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class AsyncFakeDeviceFactory(Protocol):
    """The type of the fixture `async_fake_device`: `device = await async_fake_device("cvd-1")`."""

    def __call__(
        self,
        device_id: str = "cvd-1",
        *,
        server: Endpoint | str = ...,
        info: Any = ...,
        profile: Profile = None,
        backoff: float = 1.0,
        tolerant: bool = False,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> StartingPeer[AsyncFakeDevice]:
        """Registers a device. The other arguments are those of `AsyncFakeDevice`."""


class AsyncFakeClientFactory(Protocol):
    """The type of the fixture `async_fake_client`: `client = await async_fake_client("cvd-1")`."""

    def __call__(
        self,
        device_id: str = "cvd-1",
        *,
        server: Endpoint | str = ...,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> StartingPeer[AsyncFakeClient]:
        """Connects a client. The other arguments are those of `AsyncFakeClient`."""
