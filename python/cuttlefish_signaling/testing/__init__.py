"""Fake devices and clients for tests of signaling. Needs the extra `testing` (`websockets`).

    from cuttlefish_signaling import SignalingServer
    from cuttlefish_signaling.testing import FakeClient, FakeDevice

    with SignalingServer() as server, FakeDevice(server) as device, FakeClient(server) as client:
        client.send({"type": "request-offer"})
        device.recv(type="request-offer").reply({"type": "offer", "sdp": "..."})
        assert client.recv().payload["sdp"] == "..."

`AsyncFakeDevice` and `AsyncFakeClient` have the same methods for coroutines.
"""

try:
    import websockets.asyncio.client as _client
except ImportError as _error:  # pragma: no cover
    raise ImportError(
        "cuttlefish_signaling.testing needs websockets 15 or later: pip install 'cuttlefish-signaling[testing]'"
    ) from _error

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
from ._sync import FakeClient, FakeDevice, Peer, ReplayDevice, SyncMessage

del _client

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
