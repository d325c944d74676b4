"""A node of a cluster that drains: clients of other nodes wait, and newcomers on other nodes get its devices."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from farms import Farm

from cuttlefish_signaling.testing._engine import find_engine

from peers import PATIENCE, Peers, assert_relays, wait_until

pytestmark = pytest.mark.skipif(find_engine() is None, reason="redis-server is not installed")

HOUR = 3600.0


@pytest.fixture
def farm() -> Iterator[Farm]:
    with ExitStack() as stack:
        made = Farm(stack, device_wait_timeout=HOUR)
        for node in (made.a, made.b):
            node.wait_for_nodes(2, timeout=PATIENCE)
        yield made


def begin_drain(farm: Farm, stack: ExitStack) -> None:
    """Begins to drain node a. Returns when node b knows it."""
    thread = threading.Thread(target=lambda: farm.a.stop(drain=HOUR), daemon=True)
    thread.start()
    stack.callback(thread.join)
    stack.callback(farm.a._end_drain)
    wait_until(lambda: [node.state for node in farm.b.nodes()] == ["draining", "this"])


def test_new_client_of_another_node_waits_until_the_device_has_moved(farm: Farm) -> None:
    with ExitStack() as stack:
        device = Peers(farm.a, stack).device()
        farm.b.wait_for_device("cvd-1", timeout=PATIENCE)
        elsewhere = Peers(farm.b, stack)
        client = elsewhere.client()
        begin_drain(farm, stack)
        # A pair goes on, and clients of the node itself are served.
        assert_relays(client, device)
        assert_relays(Peers(farm.a, stack).client(), device, 2)
        late = elsewhere.pending_client()
        assert late.receive()["message_type"] == "config"
        farm.b.wait_for_client("cvd-1", waiting=True, timeout=PATIENCE)
        assert [one.client_id for one in farm.a.clients("cvd-1")] == [1, 2]
        # The device comes to the other node, which asks the one that drains, and wins.
        moved = elsewhere.device()
        assert late.receive()["message_type"] == "device_info"
        assert_relays(late, moved)
        assert client.receive() == {"error": "Device disconnected"}
        assert device.receive() == {"error": "Device replaced: cvd-1"}
        assert device.wait_closed() == 1008


def test_client_that_waits_no_longer_hears_that_the_cluster_is_unavailable(farm: Farm) -> None:
    with ExitStack() as stack:
        Peers(farm.a, stack).device()
        farm.b.wait_for_device("cvd-1", timeout=PATIENCE)
        begin_drain(farm, stack)
        late = Peers(farm.b, stack).pending_client()
        assert late.receive()["message_type"] == "config"
        farm.b.wait_for_client("cvd-1", waiting=True, timeout=PATIENCE)
        farm.b.clock.advance(HOUR)
        assert late.receive() == {"error": "Connection failed: Cluster unavailable"}
        assert late.wait_closed() == 1013
