"""Nodes of one cluster in this process: lists, waits and disconnections over all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from farms import Farm

from cuttlefish_signaling import (
    ConfigError,
    Grant,
    NodeUnreachableError,
    PeerClosedError,
    SignalingServer,
    StaticTokens,
    WaitTimeoutError,
)
from cuttlefish_signaling.errors import NotRunningError
from cuttlefish_signaling.testing import AsyncFakeDevice, FakeClient, FakeDevice
from cuttlefish_signaling.testing._engine import find_engine

from client_kinds import CLIENTS, DEVICE_ID, INFO
from http_requests import request, request_json
from peers import PATIENCE, Peers

pytestmark = pytest.mark.skipif(find_engine() is None, reason="redis-server is not installed")


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    with ExitStack() as stack:
        made = Farm(stack)
        assert len(made.a.wait_for_nodes(2, timeout=PATIENCE)) == 2
        yield made


def test_nodes_are_listed_with_their_state(farm: Farm) -> None:
    with FakeDevice(farm.a, "listed", timeout=PATIENCE):
        farm.b.wait_for_device("listed", timeout=PATIENCE)
        nodes = farm.b.nodes()
        assert [(node.name, node.state, node.devices) for node in nodes] == [("a", "alive", 1), ("b", "this", 0)]
        assert all(node.incarnation.startswith(f"{node.name}.") and ":" in node.address for node in nodes)
        assert request_json(farm.b, "/nodes") == (200, [vars(node) for node in nodes])


def test_nodes_are_refused_to_limited_grant() -> None:
    tokens = StaticTokens({"all": None, "some": Grant(None, devices=["x"])})
    with SignalingServer(authorize=tokens) as server:

        def asked(token: str) -> tuple[int, Any]:
            answer = request(server, "GET", "/nodes", headers={"Authorization": f"Bearer {token}"})
            return answer.status, answer.json

        assert asked("all") == (200, [])
        assert asked("some") == (403, {"error": "Not authorized: the nodes are those of all devices"})
        assert asked("no")[0] == 401


def test_devices_of_all_nodes_are_listed(farm: Farm) -> None:
    with (
        FakeDevice(farm.a, "b-2", info={"group_id": "g"}, timeout=PATIENCE),
        FakeDevice(farm.b, "a-1", timeout=PATIENCE),
    ):
        farm.a.wait_for_device("a-1", timeout=PATIENCE)
        farm.b.wait_for_device("b-2", timeout=PATIENCE)
        for server in (farm.a, farm.b):
            assert [(device.device_id, device.node) for device in server.devices()] == [("a-1", "b"), ("b-2", "a")]
            assert request_json(server, "/devices?format=ids")[1] == ["a-1", "b-2"]
            listed = request_json(server, "/devices")[1]
            assert [(one["device_id"], one["node"], one["group_name"]) for one in listed] == [
                ("a-1", "b", ""),
                ("b-2", "a", "g"),
            ]
            assert [one["device_id"] for one in request_json(server, "/devices?groupId=g")[1]] == ["b-2"]
        here, there = (server.wait_for_device("b-2") for server in (farm.a, farm.b))
        assert (here.info, here.group_name) == ({"group_id": "g"}, "g")
        assert there == here
        # A list has what the registry has.
        (listed_there,) = [device for device in farm.b.devices() if device.device_id == "b-2"]
        assert (listed_there.info, listed_there.group_name, listed_there.address) == (None, "g", None)


def test_wait_for_a_device_of_another_node_ends_when_it_comes(farm: Farm) -> None:
    async def wait() -> str | None:
        waiting = asyncio.ensure_future(farm.b.wait_for_device_async("late", timeout=PATIENCE))
        await asyncio.sleep(0)
        async with AsyncFakeDevice(farm.a, "late", timeout=PATIENCE):
            return (await waiting).node

    assert asyncio.run(wait()) == "a"


def test_peers_on_other_nodes_are_disconnected(farm: Farm) -> None:
    with FakeDevice(farm.a, "kicked", timeout=PATIENCE) as device, FakeClient(farm.a, "kicked") as client:
        farm.b.wait_for_device("kicked", timeout=PATIENCE)
        (there,) = farm.a.clients("kicked")
        assert not farm.b.disconnect_client("kicked", there.client_id + 1)
        assert farm.b.disconnect_client("kicked", there.client_id)
        with pytest.raises(PeerClosedError):
            client.recv(timeout=PATIENCE)
        assert farm.b.disconnect_device("kicked")
        device.wait_closed(PATIENCE)
    assert not farm.b.disconnect_device("never-there")
    assert not farm.a.disconnect_client("never-there", 1)


@pytest.mark.parametrize("kind", ["long polling", "the reference's polling"])
def test_polled_client_is_told_that_its_device_on_another_node_has_left(farm: Farm, kind: str) -> None:
    with FakeDevice(farm.a, DEVICE_ID, info=INFO, timeout=PATIENCE), ExitStack() as stack:
        farm.b.wait_for_device(DEVICE_ID, timeout=PATIENCE)
        client = CLIENTS[kind](Peers(farm.b, stack), DEVICE_ID)
        assert farm.a.disconnect_device(DEVICE_ID)
        unknown = "Error: Unknown connection ID: " if "reference" in kind else ""
        assert client.receive()["error"] == f"{unknown}Device disconnected"


def test_wait_for_nodes_lists_the_nodes(farm: Farm) -> None:
    with pytest.raises(
        WaitTimeoutError, match=r"^waited 0.05 s for 7 nodes of the cluster to live; nodes: a \(this\), b \(alive\)"
    ):
        farm.a.wait_for_nodes(7, timeout=0.05)
    nodes: list[Any] = asyncio.run(farm.a.wait_for_nodes_async(2, timeout=PATIENCE))
    assert [node.name for node in nodes] == ["a", "b"]
    for count in (0, True, "2", None):
        with pytest.raises(ConfigError, match="^count: "):
            farm.a.wait_for_nodes(count)  # type: ignore[arg-type]
    third = farm.node("c")
    assert [node.name for node in farm.a.wait_for_nodes(3, timeout=PATIENCE)] == ["a", "b", "c"]
    third.stop()
    farm.a.wait_for_nodes(2, timeout=PATIENCE)
    assert [node.name for node in farm.a.nodes()] == ["a", "b"], "a node that has left is not listed"
    with pytest.raises(NotRunningError):
        third.nodes()


def test_server_without_cluster_has_no_nodes() -> None:
    with SignalingServer() as server, FakeDevice(server, "x"):
        assert server.nodes() == []
        assert server.wait_for_device("x").node is None
        assert not server.disconnect_device("y")
        assert "node" not in request_json(server, "/devices")[1][0]
        with pytest.raises(ConfigError, match="^cluster: is None, and this call needs a cluster"):
            server.wait_for_nodes(1)


def test_outage_of_the_engine_is_an_error_and_not_false(farm: Farm) -> None:
    farm.engine.pause()
    try:
        with pytest.raises(
            NodeUnreachableError, match='it does not know device "unknown", and the engine does not answer'
        ):
            farm.b.disconnect_device("unknown")
    finally:
        farm.engine.resume()
        farm.a.wait_for_nodes(2, timeout=PATIENCE)
        farm.b.wait_for_nodes(2, timeout=PATIENCE)
