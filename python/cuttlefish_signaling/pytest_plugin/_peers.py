"""The fixtures of fake peers."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from . import _checkpoints
from ._options import OPTIONS

if TYPE_CHECKING:
    from ..testing import (
        AsyncFakeClientFactory,
        AsyncFakeDeviceFactory,
        FakeClientFactory,
        FakeDeviceFactory,
        ReplayDevice,
    )

CASSETTE = "@pytest.mark.signaling_cassette"
RECORDING = ("mode", "real", "real_device_id", "real_options")
"""The options of a `ReplayDevice` that records."""


def server_of(request: pytest.FixtureRequest) -> Any:
    """The server of the test: `signaling_server`, unless the test names only one that it shares.

    None in a test that has a cluster alone, whose nodes are not known yet.
    """
    names = request.node.fixturenames
    if "signaling_cluster" in names and not any(name.startswith("signaling_server") for name in names):
        request.getfixturevalue("signaling_cluster")  # Its processes end after the peers.
        return None
    if "signaling_server" not in names:
        for fixture in _checkpoints.SHARED:
            if fixture in names:
                return request.getfixturevalue(fixture)
    return request.getfixturevalue("signaling_server")


def raise_if_lost(item: Any, devices: list[Any]) -> None:
    """Fails a test during which a device was lost: a real device would not reconnect."""
    reasons = [device.lost_reason for device in devices if getattr(device, "is_lost", False)]
    if reasons and not _checkpoints.allows_errors(item):
        from ..errors import DeviceLostError

        raise DeviceLostError("\n".join([*reasons, _checkpoints.ALLOW_HINT]))


# Synchronous ----------------------------------------------------------------------------------------------------------


def _made(fixture: str, kind: type[Any], server: Any, device_id: Any, options: dict[str, Any]) -> Any:
    """A fake peer. Its ConfigError names the fixture."""
    from ._calls import check_peer, named

    check_peer(fixture, kind, device_id, options)
    if server is None and "server" not in options:
        from ..errors import ConfigError

        what = "is missing: the test has a cluster, so name one of its nodes: server=cluster.nodes[0]"
        raise ConfigError(f"{fixture}: server", what)
    with named(fixture):
        return kind(options.pop("server", server), device_id, **options)


def _peers(request: pytest.FixtureRequest, kind: str) -> Iterator[Any]:
    from .. import testing
    from ._calls import Factory, named

    fixture = str(request.fixturename)
    server, peers = server_of(request), []
    with ExitStack() as stack:

        def start(device_id: Any = "cvd-1", **options: Any) -> Any:
            peer = _made(fixture, getattr(testing, kind), server, device_id, options)
            with named(fixture):
                stack.enter_context(peer)
            peers.append(peer)
            return peer

        yield Factory(fixture, "fake peers", start, positional=1)
    raise_if_lost(request.node, peers)


@pytest.fixture
def fake_device(request: pytest.FixtureRequest) -> Iterator[FakeDeviceFactory]:
    """Registers devices: `fake_device("cvd-1", info=..., server=..., ...)`, with the options of `FakeDevice`.

    The default server is that of the test. The devices are closed after the test; a lost device fails the test.
    """
    yield from _peers(request, "FakeDevice")


@pytest.fixture
def fake_client(request: pytest.FixtureRequest) -> Iterator[FakeClientFactory]:
    """Connects clients: `fake_client("cvd-1", server=..., ...)`, with the options of `FakeClient`.

    The default server is that of the test. The clients are closed after the test.
    """
    yield from _peers(request, "FakeClient")


@pytest.fixture
def replay_device(request: pytest.FixtureRequest) -> Iterator[ReplayDevice]:
    """The device of `@pytest.mark.signaling_cassette(file)`. Paths are relative to the file of the test.

    `mode` and `real` let a real device answer what the cassette lacks, as for `ReplayDevice`. `--signaling-cassettes`
    and `--signaling-real` come before them.
    """
    from ..errors import ConfigError
    from ..testing import AsyncFakeDevice, ReplayDevice
    from ._calls import check_peer, named

    marker = request.node.get_closest_marker("signaling_cassette")
    if marker is None or len(marker.args) != 1:
        got = "the test does not have" if marker is None else f"got {len(marker.args)} arguments"
        raise ConfigError("replay_device", f"replay_device needs {CASSETTE}(file), which {got}")
    if not isinstance(marker.args[0], str | os.PathLike) or not os.fspath(marker.args[0]):
        raise ConfigError("replay_device", f"{CASSETTE}(file) needs the path of a file, got {marker.args[0]!r}")
    options = dict(marker.kwargs)
    device_id = options.pop("device_id", None)
    recording = _recording(request, options)
    check_peer("replay_device", AsyncFakeDevice, "cvd-1" if device_id is None else device_id, options)
    server = server_of(request)
    with named("replay_device"):
        device = ReplayDevice(
            options.pop("server", server), Path(request.path).parent / marker.args[0], device_id, **recording, **options
        )
    with device:
        yield device
    raise_if_lost(request.node, [device])


def _recording(request: pytest.FixtureRequest, options: dict[str, Any]) -> dict[str, Any]:
    """Takes the options of recording out of those of the marker. The command line and the ini file come before them."""
    recording = {name: options.pop(name) for name in RECORDING if name in options}
    given = request.config.stash[OPTIONS]
    if given.cassettes is not None:
        recording["mode"] = given.cassettes
    if given.real is not None:
        recording["real"] = given.real
    if given.ca is not None and str(recording.get("real", "")).startswith(("https:", "wss:")):
        import ssl

        from ..errors import ConfigError

        try:
            context = ssl.create_default_context(cafile=given.ca)
        except ssl.SSLError as error:
            raise ConfigError("--signaling-ca", f"{str(given.ca)!r} is not a PEM file: {error}") from None
        recording["real_options"] = {"tls": context, **(recording.get("real_options") or {})}
    return recording


# Asynchronous ---------------------------------------------------------------------------------------------------------


class AsyncPeers:
    """The asynchronous fake peers of a test. An asynchronous fixture closes them, on the loop of the test."""

    def __init__(self, item: Any) -> None:
        self._item = item
        self._peers: list[Any] = []

    def factory(self, fixture: str, kind: str, server: Any) -> Any:
        """The function that the fixture returns."""
        from .. import testing
        from ._calls import Factory, Starting, named

        def start(device_id: Any = "cvd-1", **options: Any) -> Any:
            peer = _made(fixture, getattr(testing, kind), server, device_id, options)

            async def started() -> Any:
                with named(fixture):
                    await peer.start()
                self._peers.append(peer)
                return peer

            return Starting(fixture, started)

        return Factory(fixture, "fake peers that start when they are awaited", start, positional=1)

    async def close(self) -> None:
        """Closes the peers, the last first. Raises the first error of them, and DeviceLostError."""
        errors = []
        for peer in reversed(self._peers):
            try:
                await peer.close()
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]
        raise_if_lost(self._item, self._peers)


async def async_peers(request: pytest.FixtureRequest) -> AsyncIterator[AsyncPeers]:
    """The body of the fixtures that close asynchronous peers."""
    peers = AsyncPeers(request.node)
    yield peers
    await peers.close()


ANYIO_FIXTURE = "_signaling_anyio_peers"
signaling_anyio_peers: Any = pytest.fixture(async_peers, name=ANYIO_FIXTURE)
ASYNCIO_FIXTURE = "_signaling_asyncio_peers_"
"""The fixtures of pytest-asyncio, one for each scope of its loops. `_asyncio_fixtures` has them."""


def _closing_fixture(request: pytest.FixtureRequest) -> str:
    """The fixture that closes the peers on the loop of the test. Raises ConfigError if the test has no asyncio loop."""
    from ..errors import ConfigError

    node, fixture = request.node, str(request.fixturename)
    marker = node.get_closest_marker("asyncio")
    if marker is not None:
        scope = marker.kwargs.get("loop_scope") or marker.kwargs.get("scope")
        return f"{ASYNCIO_FIXTURE}{scope or request.config.getini('asyncio_default_test_loop_scope')}"
    synchronous = fixture.removeprefix("async_")
    if "anyio_backend" in node.fixturenames:
        backend = request.getfixturevalue("anyio_backend")
        name = backend if isinstance(backend, str) else backend[0]
        if name == "asyncio":
            return ANYIO_FIXTURE
        why = f"this test runs on {name}: let anyio_backend be 'asyncio', or use {synchronous}, which needs no loop"
    elif node.get_closest_marker("trio") is not None:
        why = f"this test runs on trio: use {synchronous}, which needs no loop"
    else:
        why = (
            "this test has no event loop: make it async def with @pytest.mark.asyncio (pytest-asyncio) or "
            f"@pytest.mark.anyio, or use {synchronous}"
        )
    raise ConfigError(fixture, f"works on asyncio only, and {why}")


def _async_factory(request: pytest.FixtureRequest, kind: str) -> Any:
    server = server_of(request)
    peers: AsyncPeers = request.getfixturevalue(_closing_fixture(request))
    return peers.factory(str(request.fixturename), kind, server)


@pytest.fixture
def async_fake_device(request: pytest.FixtureRequest) -> AsyncFakeDeviceFactory:
    """Registers devices in a coroutine, with the options of `AsyncFakeDevice`.

    Use it as `device = await async_fake_device("cvd-1", ...)`, or in an `async with` statement. It works on asyncio,
    with pytest-asyncio and with anyio. The devices are closed after the test, on its loop; a lost
    device fails the test.
    """
    return _async_factory(request, "AsyncFakeDevice")  # type: ignore[no-any-return]


@pytest.fixture
def async_fake_client(request: pytest.FixtureRequest) -> AsyncFakeClientFactory:
    """Connects clients in a coroutine, with the options of `AsyncFakeClient`.

    Use it as `client = await async_fake_client("cvd-1", ...)`, or in an `async with` statement. It works on asyncio,
    with pytest-asyncio and with anyio. The clients are closed after the test, on its loop.
    """
    return _async_factory(request, "AsyncFakeClient")  # type: ignore[no-any-return]
