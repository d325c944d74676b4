"""Grants of clients whose device is on another node: exclusive use, and a time that ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from farms import Farm

from cuttlefish_signaling import AuthorizeContext, Grant, SignalingServer
from cuttlefish_signaling.testing._engine import find_engine

from peers import PATIENCE, Peers, WebSocketPeer, assert_relays

pytestmark = pytest.mark.skipif(find_engine() is None, reason="redis-server is not installed")

IN_USE = "Connection failed: Device in use: 'cvd-1'"


def granted(ctx: AuthorizeContext) -> Grant | None:
    seconds = ctx.query.get("for")
    return Grant(exclusive="alone" in ctx.query, valid_for=float(seconds) if seconds else None)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def farm_with_device(stack: ExitStack, **settings: Any) -> tuple[Farm, WebSocketPeer]:
    """Two nodes, of which node a has the device, and node b knows it."""
    farm = Farm(stack, authorize=granted, **settings)
    for node in (farm.a, farm.b):
        node.wait_for_nodes(2, timeout=PATIENCE)
    device = Peers(farm.a, stack).device()
    farm.b.wait_for_device("cvd-1", timeout=PATIENCE)
    return farm, device


def client(node: SignalingServer, stack: ExitStack, query: str = "") -> WebSocketPeer:
    """A client that has its device."""
    made = Peers(node, stack).pending_client(query=query)
    assert [made.receive()["message_type"] for _ in range(2)] == ["config", "device_info"]
    return made


def assert_refused(node: SignalingServer, stack: ExitStack, query: str = "") -> None:
    late = Peers(node, stack).pending_client(query=query)
    assert late.receive()["message_type"] == "config"
    assert late.receive() == {"error": IN_USE}
    assert late.wait_close_frame() == (1013, IN_USE)


def test_exclusive_grant_keeps_clients_of_all_nodes_out(stack: ExitStack) -> None:
    farm, device = farm_with_device(stack)
    alone = client(farm.b, stack, "?alone=1")
    for node in (farm.a, farm.b):
        assert_refused(node, stack)
        assert_refused(node, stack, "?alone=1")
    assert_relays(alone, device)
    alone.close()
    assert device.receive() == {"message_type": "client_disconnected", "client_id": 1}
    # A client that shares the device keeps exclusive ones of other nodes out.
    shared = client(farm.a, stack)
    assert_refused(farm.b, stack, "?alone=1")
    assert_relays(client(farm.b, stack), device, 3)
    assert_relays(shared, device, 2)


def test_one_client_per_device_counts_clients_of_other_nodes(stack: ExitStack) -> None:
    farm, device = farm_with_device(stack, one_client_per_device=True)
    first = client(farm.b, stack)
    for node in (farm.a, farm.b):
        assert_refused(node, stack)
    assert_relays(first, device)


def test_grant_of_a_client_ends_its_connection_to_a_device_of_another_node(stack: ExitStack) -> None:
    farm, device = farm_with_device(stack)
    farm.b.clock.freeze()
    short, long = (client(farm.b, stack, f"?for={seconds}") for seconds in (5, 9))
    farm.b.clock.advance(4.9)
    assert_relays(short, device, 1)
    farm.b.clock.advance(0.1)
    assert short.receive() == {"error": "Authorization expired"}
    assert short.wait_close_frame() == (1008, "Authorization expired")
    assert device.receive() == {"message_type": "client_disconnected", "client_id": 1}
    assert_relays(long, device, 2)
