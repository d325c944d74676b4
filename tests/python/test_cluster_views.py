"""Devices of other nodes, and their clients, as a server in Python sees them."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from farms import Farm

from cuttlefish_signaling import (
    Cluster,
    NodeUnreachableError,
    RemoteServer,
    SignalingServer,
    StaticTokens,
    WaitTimeoutError,
)
from cuttlefish_signaling.testing import (
    AsyncFakeClient,
    AsyncFakeDevice,
    FakeClient,
    FakeDevice,
    RawJson,
    SignalingCluster,
)
from cuttlefish_signaling.testing._engine import find_engine

from peers import PATIENCE

pytestmark = pytest.mark.skipif(find_engine() is None, reason="redis-server is not installed")

INFO = '{"group_id":"g","exact":1.10,"great":1e400}'


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    with ExitStack() as stack:
        made = Farm(stack)
        made.a.wait_for_nodes(2, timeout=PATIENCE)
        made.b.wait_for_nodes(2, timeout=PATIENCE)
        yield made


def test_device_of_another_node_has_its_info_byte_for_byte(farm: Farm) -> None:
    with FakeDevice(farm.a, "far", info=RawJson(INFO), timeout=PATIENCE), FakeClient(farm.a, "far"):
        here = farm.a.device("far")
        there = farm.b.wait_for_device("far", timeout=PATIENCE)
        assert here is not None and there == here == farm.b.device("far")
        assert (there.info_json, there.node, there.clients, there.group_name) == (INFO, "a", 1, "g")
        assert there.address == "127.0.0.1" and there.port
        # A list does not wait for another node.
        (listed,) = farm.b.devices()
        assert (listed.device_id, listed.info, listed.node, listed.clients) == ("far", None, "a", None)

        async def asked() -> Any:
            return await farm.b.device_async("far"), await farm.b.wait_for_device_async("far", timeout=PATIENCE)

        assert asyncio.run(asked()) == (here, here)
    assert farm.b.device("far") is None
    assert asyncio.run(farm.b.device_async("far")) is None


def test_clients_of_a_device_of_another_node(farm: Farm) -> None:
    with FakeDevice(farm.a, "far", timeout=PATIENCE):
        farm.b.wait_for_device("far", timeout=PATIENCE)
        assert farm.b.clients("far") == []
        with FakeClient(farm.b, "far", timeout=PATIENCE), FakeClient(farm.a, "far"):
            here = farm.a.clients("far")
            assert len(here) == 2
            assert farm.b.clients("far") == here == asyncio.run(farm.b.clients_async("far"))
            assert farm.b.wait_for_client("far", timeout=PATIENCE) == here[0]
            assert asyncio.run(farm.b.wait_for_client_async("far", timeout=PATIENCE)) == here[0]
            # Without a device, they are those of the devices of this node.
            assert (farm.a.clients(), farm.b.clients()) == (here, [])
    assert farm.b.clients("far") == [] == asyncio.run(farm.b.clients_async("far"))


def test_wait_for_a_client_of_another_node_ends_when_it_comes(farm: Farm) -> None:
    async def main() -> None:
        async with AsyncFakeDevice(farm.a, "far", timeout=PATIENCE):
            await farm.b.wait_for_device_async("far", timeout=PATIENCE)
            waiting = asyncio.ensure_future(farm.b.wait_for_client_async("far", timeout=PATIENCE))
            while farm.b.clients("far"):
                await asyncio.sleep(0)
            async with AsyncFakeClient(farm.a, "far"):
                assert (await waiting).device_id == "far"

    asyncio.run(main())
    with FakeDevice(farm.a, "far", timeout=PATIENCE):
        farm.b.wait_for_device("far", timeout=PATIENCE)
        with pytest.raises(WaitTimeoutError, match=r"^waited 0.05 s for a client to connect to device 'far'"):
            farm.b.wait_for_client("far", timeout=0.05)


def test_identities_of_other_nodes_are_told() -> None:
    tokens = StaticTokens({"d": {"rack": 7}, "c": "alice"})
    with ExitStack() as stack:
        farm = Farm(stack, authorize=tokens)
        farm.b.wait_for_nodes(2, timeout=PATIENCE)
        stack.enter_context(FakeDevice(farm.a, "far", headers={"Authorization": "Bearer d"}, timeout=PATIENCE))
        device = farm.b.wait_for_device("far", timeout=PATIENCE)
        stack.enter_context(FakeClient(farm.b, "far", headers={"Authorization": "Bearer c"}, timeout=PATIENCE))
        assert device.identity == {"rack": 7}
        assert [client.identity for client in farm.b.clients("far")] == ["alice"]


def test_device_of_a_local_socket_is_found_by_both_ids() -> None:
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        farm = Farm(stack)
        path = Path(directory) / "operator"
        cluster = Cluster(farm.engine.url, name="lab", node="host", device_id_template="{node}:{id}")
        control_api = ["http://127.0.0.1:0"]
        host = stack.enter_context(SignalingServer(cluster=cluster, device_socket=path, control_api=control_api))
        local = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        local.connect(str(path))
        local.sendall(b'{"message_type":"register","device_id":"cvd-1","device_info":{"n":1}}')
        whole = host.wait_for_device("host:cvd-1", timeout=PATIENCE)
        assert (whole.device_id, whole.local_id, whole.node) == ("host:cvd-1", "cvd-1", "host")
        assert host.device("cvd-1") == host.wait_for_device("cvd-1", timeout=PATIENCE) == whole
        there = farm.a.wait_for_device("host:cvd-1", timeout=PATIENCE)
        assert there == whole and there.info == {"n": 1}
        assert [device.local_id for device in farm.a.devices()] == ["cvd-1"]
        assert host.control_url is not None
        with RemoteServer(host.control_url, token=host.control_token) as remote:
            assert [device.local_id for device in remote.devices()] == ["cvd-1"]
        # On another node, the local id is that of no device.
        assert farm.a.device("cvd-1") is None
        assert host.disconnect_device("cvd-1")


def test_control_api_tells_the_number_of_clients_on_other_nodes() -> None:
    with ExitStack() as stack:
        farm = Farm(stack, control_api=["http://127.0.0.1:0"])
        stack.enter_context(FakeDevice(farm.a, "far", timeout=PATIENCE))
        farm.b.wait_for_device("far", timeout=PATIENCE)
        stack.enter_context(FakeClient(farm.b, "far", timeout=PATIENCE))
        assert farm.b.control_url is not None
        remote = stack.enter_context(RemoteServer(farm.b.control_url, token=farm.b.control_token))
        assert [(device.device_id, device.clients, device.node) for device in remote.devices()] == [("far", 1, "a")]


@contextmanager
def lost_node(**settings: Any) -> Iterator[SignalingServer]:
    """A server whose registry has the device `far` of a node that does not answer."""
    with SignalingCluster(1) as cluster, ExitStack() as stack:
        own = Cluster(cluster.engine.url, name="default", node="own")
        server = stack.enter_context(SignalingServer(cluster=own, **settings))
        server.wait_for_nodes(2, timeout=PATIENCE)
        with FakeDevice(cluster.nodes[0], "far", timeout=PATIENCE):
            server.wait_for_device("far", timeout=PATIENCE)
            cluster.kill(0)
            yield server


@pytest.mark.signaling(allow_errors=True)
def test_node_that_does_not_answer_is_named() -> None:
    with lost_node() as server:
        expected = r"^node 'node1': it has device \"far\", and cannot be asked: "
        for call in (server.device, server.clients):
            with pytest.raises(NodeUnreachableError, match=expected) as error:
                call("far")
            assert error.value.node == "node1"
        for call_async in (server.device_async, server.clients_async):
            with pytest.raises(NodeUnreachableError, match=expected):
                asyncio.run(call_async("far"))
        for wait in (server.wait_for_device, server.wait_for_client):
            with pytest.raises(NodeUnreachableError, match=expected):
                wait("far", timeout=1.0)
        for wait_async in (server.wait_for_device_async, server.wait_for_client_async):
            with pytest.raises(NodeUnreachableError, match=expected):
                asyncio.run(wait_async("far", timeout=1.0))
        assert [device.device_id for device in server.devices()] == ["far"]


@pytest.mark.signaling(allow_errors=True)
def test_number_of_clients_on_a_node_that_does_not_answer_is_not_known() -> None:
    with lost_node(control_api=["http://127.0.0.1:0"]) as server:
        assert server.control_url is not None and server.control_token is not None
        with RemoteServer(server.control_url, token=server.control_token) as remote:
            assert [(device.device_id, device.clients) for device in remote.devices()] == [("far", None)]


def test_server_without_cluster_has_its_own_devices_only() -> None:
    with SignalingServer() as server:
        assert server.device("x") is None
        with FakeDevice(server, "x", info={"n": 1}), FakeClient(server, "x"):
            device = server.device("x")
            assert device is not None and (device.info, device.node, device.local_id) == ({"n": 1}, None, None)
            assert device == asyncio.run(server.device_async("x"))
            assert len(server.clients("x")) == len(asyncio.run(server.clients_async())) == 1
            with pytest.raises(Exception, match="device_id"):
                server.device(7)  # type: ignore[arg-type]
