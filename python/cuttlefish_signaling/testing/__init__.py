"""Fake devices and clients for tests of signaling. Needs the extra `testing` (`websockets`).

    from cuttlefish_signaling import SignalingServer
    from cuttlefish_signaling.testing import FakeClient, FakeDevice

    with SignalingServer() as server, FakeDevice(server) as device, FakeClient(server) as client:
        client.send({"type": "request-offer"})
        device.recv(type="request-offer").reply({"type": "offer", "sdp": "..."})
        assert client.recv().payload["sdp"] == "..."

`AsyncFakeDevice` and `AsyncFakeClient` have the same methods for coroutines.
"""

from __future__ import annotations

try:
    import websockets.asyncio.client as _client
except ImportError as _error:  # pragma: no cover
    raise ImportError(
        "cuttlefish_signaling.testing needs websockets 15 or later: pip install 'cuttlefish-signaling[testing]'"
    ) from _error

del _client

TYPE_CHECKING = False

if TYPE_CHECKING:
    from .._raw_json import RawJson
    from ._attached import AttachedDevice, AttachedServer
    from ._cassette import Cassette
    from ._client import AsyncFakeClient
    from ._cluster import SignalingCluster
    from ._cluster_node import ClusterNode
    from ._device import AsyncFakeDevice, device_info
    from ._engine import Engine
    from ._factories import (
        AsyncFakeClientFactory,
        AsyncFakeDeviceFactory,
        ClusterFactory,
        FakeClientFactory,
        FakeDeviceFactory,
        ProxyFactory,
        ServerFactory,
    )
    from ._message import AsyncMessage, Message
    from ._peer import AsyncPeer
    from ._replay import AsyncReplayDevice
    from ._sync import FakeClient, FakeDevice, Peer, SyncMessage
    from ._sync_replay import ReplayDevice

__all__ = [
    "AsyncFakeClient",
    "AsyncFakeClientFactory",
    "AsyncFakeDevice",
    "AsyncFakeDeviceFactory",
    "AsyncMessage",
    "AsyncPeer",
    "AsyncReplayDevice",
    "AttachedDevice",
    "AttachedServer",
    "Cassette",
    "ClusterFactory",
    "ClusterNode",
    "Engine",
    "FakeClient",
    "FakeClientFactory",
    "FakeDevice",
    "FakeDeviceFactory",
    "Message",
    "Peer",
    "ProxyFactory",
    "RawJson",
    "ReplayDevice",
    "ServerFactory",
    "SignalingCluster",
    "SyncMessage",
    "device_info",
]

_LAZY = {
    "AsyncFakeClient": "._client",
    "AsyncFakeClientFactory": "._factories",
    "AsyncFakeDevice": "._device",
    "AsyncFakeDeviceFactory": "._factories",
    "AsyncMessage": "._message",
    "AsyncPeer": "._peer",
    "AsyncReplayDevice": "._replay",
    "AttachedDevice": "._attached",
    "AttachedServer": "._attached",
    "Cassette": "._cassette",
    "ClusterFactory": "._factories",
    "ClusterNode": "._cluster_node",
    "Engine": "._engine",
    "FakeClient": "._sync",
    "FakeClientFactory": "._factories",
    "FakeDevice": "._sync",
    "FakeDeviceFactory": "._factories",
    "Message": "._message",
    "Peer": "._sync",
    "ProxyFactory": "._factories",
    "RawJson": ".._raw_json",
    "ReplayDevice": "._sync_replay",
    "ServerFactory": "._factories",
    "SignalingCluster": "._cluster",
    "SyncMessage": "._sync",
    "device_info": "._device",
}
"""The module of each name in `__all__`."""


def __getattr__(name: str) -> object:
    """Imports a name when it is first used. A test with fake peers needs a third of the modules."""
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(module, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
