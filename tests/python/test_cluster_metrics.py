"""The metrics of what two nodes relay between them, against exactly what was sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from farm_cluster import metrics
from farms import Farm
from test_metrics import scrape
from websockets.exceptions import ConnectionClosed

from cuttlefish_signaling import SignalingServer
from cuttlefish_signaling.testing import SignalingCluster
from cuttlefish_signaling.testing._cluster_node import ClusterNode
from cuttlefish_signaling.testing._engine import find_engine

from peers import PATIENCE, Peers, wait_until

pytestmark = pytest.mark.skipif(find_engine() is None, reason="redis-server is not installed")

PREFIX = "cluster_proxied_"


@pytest.fixture
def farm() -> Iterator[Farm]:
    with ExitStack() as stack:
        made = Farm(stack)
        for node in (made.a, made.b):
            node.wait_for_nodes(2, timeout=PATIENCE)
        yield made


def figures(node: SignalingServer) -> dict[str, float]:
    """The figures of the connections between nodes that are not 0."""
    found = scrape(node)
    return {name.removeprefix(PREFIX): value for name, value in found.items() if PREFIX in name and value}


def test_messages_and_bytes_each_way_are_those_that_were_sent(farm: Farm) -> None:
    with ExitStack() as stack:
        device, client = Peers(farm.a, stack).device(), Peers(farm.b, stack).client()
        to_device = [{"message_type": "forward", "payload": {"n": "x" * n}} for n in range(20)]
        payloads = [{"n": "ü" * n} for n in range(30)]
        for message in to_device:
            client.send(message)
        for _ in to_device:
            device.receive()
        for payload in payloads:
            device.send({"message_type": "forward", "client_id": 1, "payload": payload})
        for payload in payloads:
            assert client.receive() == {"message_type": "device_msg", "payload": payload}
        # As they go from node to node: the payload of the client, and the message that the node of the device writes.
        out = sum(len(json.dumps(message["payload"]).encode()) for message in to_device)
        back = sum(len('{"message_type":"device_msg","payload":}') + len(json.dumps(one).encode()) for one in payloads)
        expected = {
            'clients{direction="out"}': 1,
            'messages_total{direction="out"}': len(to_device),
            'messages_total{direction="in"}': len(payloads),
            'bytes_total{direction="out"}': out,
            'bytes_total{direction="in"}': back,
        }
        wait_until(lambda: figures(farm.b) == expected)
        assert figures(farm.a) == {'clients{direction="in"}': 1}
    # A client that leaves is the cause of the end of its connection.
    ended = {name: value for name, value in expected.items() if not name.startswith("clients")}
    wait_until(lambda: figures(farm.b) == ended | {'ended_total{cause="client_left"}': 1})
    assert figures(farm.a) == {}


def test_device_that_leaves_is_another_cause_than_a_lost_node(farm: Farm) -> None:
    with ExitStack() as stack:
        device, client = Peers(farm.a, stack).device(), Peers(farm.b, stack).client()
        device.close()
        assert client.receive() == {"error": "Device disconnected"}
        wait_until(lambda: figures(farm.b) == {'ended_total{cause="closed"}': 1})


def test_forwards_for_a_node_that_is_lost_are_counted_as_gone() -> None:
    with SignalingCluster(nodes=2, timeout=PATIENCE) as cluster, ExitStack() as stack:
        home, other = cluster.nodes
        Peers(home, stack).device()  # type: ignore[arg-type]
        client = Peers(other, stack).client()  # type: ignore[arg-type]
        cluster.pause(home)
        text = json.dumps({"message_type": "forward", "payload": "x" * 32_768})
        with pytest.raises(ConnectionClosed):
            # More than the sockets between the nodes hold: the client is not read in the end, and told after 5 s.
            while True:
                client.socket.send(text)
        wait_until(lambda: PREFIX + 'ended_total{cause="lost"}' in lost(other))
        found = lost(other)
        written, gone = (found.get(PREFIX + name, 0) for name in ('messages_total{direction="out"}', "gone_total"))
        assert gone > 0
        assert written + gone == found["forwards_accepted_total"]


def lost(node: ClusterNode) -> dict[str, float]:
    """The samples of a node that are not 0."""
    return {name.removeprefix("cuttlefish_signaling_"): value for name, value in metrics(node).items() if value}
