"""A network of nodes and engine that is slow, loses the bytes of one direction, or resets connections."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from linked import Network, has_none, network_of_links, received

from cuttlefish_signaling import ClusterError, ConfigError, PeerClosedError
from cuttlefish_signaling.testing import FakeClient, FakeDevice, SignalingCluster
from cuttlefish_signaling.testing._engine import MISSING, find_engine

from peers import PATIENCE

__all__ = ["network_of_links"]

needs_engine = pytest.mark.skipif(find_engine() is None, reason=MISSING)

# The relay ------------------------------------------------------------------------------------------------------------


def test_slow_way_takes_its_time_and_keeps_the_order(network: Network) -> None:
    near, far = network.pair()
    network.links.set_speed("a", "b", 0.1, 20_000)
    assert network.links.slow() == [("a", "b")]
    payload = os.urandom(4_000)
    began = time.monotonic()
    near.sendall(payload[:1])
    assert received(far, 1) == payload[:1]
    assert time.monotonic() - began >= 0.1, "the delay"
    near.sendall(payload[1:])
    assert received(far, 3_999) == payload[1:]
    # The bytes of the last step arrive at its begin.
    assert time.monotonic() - began >= 0.2 + 2_900 / 20_000, "the bandwidth"
    network.links.set_speed("b", "a", 0.0, None)
    assert network.links.slow() == []
    far.sendall(b"back")
    assert received(near, 4) == b"back"


def test_one_way_loses_the_bytes_of_one_end(network: Network) -> None:
    near, far = network.pair()
    network.links.set_cut("a", "b", True, one_way=True)
    assert network.links.cuts() == [("a", "b")]
    near.sendall(b"lost")
    far.sendall(b"there")
    assert received(near, 5) == b"there"
    assert has_none(far)
    network.links.set_cut("b", "a", False, one_way=True)
    assert has_none(far), "it was the other way"
    network.links.set_cut("a", "b", False)
    assert received(far, 4) == b"lost"


def test_healed_pair_keeps_a_connection_that_was_to_be_reset(network: Network) -> None:
    near, far = network.pair()
    near.sendall(b"before")
    assert received(far, 6) == b"before"
    assert network.links.reset("a", "b") == 1
    assert network.links.breaking() == [("a", "b")]
    network.links.set_cut("b", "a", False)
    assert network.links.breaking() == []
    near.sendall(b"after")
    assert received(far, 5) == b"after"


def test_reset_breaks_a_connection_amid_its_next_bytes(network: Network) -> None:
    near, far = network.pair()
    assert network.links.reset("a", "c") == 0
    near.sendall(b"whole")
    assert received(far, 5) == b"whole"
    assert network.links.reset("b", "a") == 1
    assert has_none(far), "it is open until bytes pass"
    near.sendall(b"x" * 1000)
    heard = b""
    with pytest.raises(ConnectionResetError):
        while part := far.recv(1000):
            heard += part
    assert len(heard) <= 500
    with pytest.raises(ConnectionResetError):
        near.recv(1)
    again, far_again = network.pair()
    again.sendall(b"well")
    assert received(far_again, 4) == b"well"


# Nodes ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[SignalingCluster]:
    with SignalingCluster(2, timeout=PATIENCE) as made:
        yield made


@pytest.fixture
def healed(cluster: SignalingCluster) -> Iterator[SignalingCluster]:
    """The cluster, whose network is whole again after the test."""
    yield cluster
    cluster.heal()
    cluster.wait_for_nodes(2, timeout=PATIENCE)


def exchange(client: FakeClient, device: FakeDevice, count: int, begin: int = 0, number_of_client: int = 1) -> None:
    """Sends payloads both ways at the same time. All arrive, in order."""
    numbers = list(range(begin, begin + count))
    for number in numbers:
        client.send({"n": number, "pad": "x" * 200})
        device.send({"n": number, "pad": "x" * 200}, number_of_client)
    assert [device.recv(timeout=PATIENCE).payload["n"] for _ in numbers] == numbers
    assert [client.recv(timeout=PATIENCE).payload["n"] for _ in numbers] == numbers


SLOW: dict[str, Any] = {"delay": 0.2, "bytes_per_s": 10_000}


@needs_engine
def test_pair_goes_on_over_a_slow_network_between_its_nodes(healed: SignalingCluster) -> None:
    here, there = healed.nodes
    with FakeDevice(here, "slow", timeout=PATIENCE) as device, FakeClient(there, "slow", timeout=PATIENCE) as client:
        exchange(client, device, 1)
        healed.slow(here, there, **SLOW)
        exchange(client, device, 30, begin=1)
        with FakeClient(there, "slow", timeout=PATIENCE) as late:
            late.send("met over the slow network")
            assert device.recv(type=None, timeout=PATIENCE).payload == "met over the slow network"
        healed.heal()
        exchange(client, device, 3, begin=100)


@needs_engine
def test_devices_register_and_are_found_over_a_slow_network_to_the_engine(healed: SignalingCluster) -> None:
    here, there = healed.nodes
    for node in healed.nodes:
        healed.slow(node, "engine", **SLOW)
    assert "slow: engine - node1" in healed.report()
    with FakeDevice(here, "late", timeout=PATIENCE) as device, FakeClient(there, "late", timeout=PATIENCE) as client:
        exchange(client, device, 10)
    healed.wait_for_nodes(2, timeout=PATIENCE)


@needs_engine
def test_reset_amid_a_message_ends_the_pair_and_nothing_else(healed: SignalingCluster) -> None:
    here, there = healed.nodes
    with (
        FakeDevice(here, "reset", timeout=PATIENCE) as device,
        FakeClient(here, "reset", timeout=PATIENCE) as local,
        FakeClient(there, "reset", timeout=PATIENCE) as client,
    ):
        exchange(client, device, 1, number_of_client=2)
        assert healed.reset(here, there) >= 1
        client.send({"lost": "x" * 5_000})
        with pytest.raises(PeerClosedError) as closed:
            client.recv(timeout=PATIENCE)
        assert (closed.value.code, closed.value.reason) == (1000, "Device disconnected")
        # One client has left, and its message has not come, not even a part of it.
        assert device.recv(message_type="client_disconnected", timeout=PATIENCE).client_id == 2
        device.send("go on", 1)
        assert local.recv(timeout=PATIENCE).payload == "go on"
        with FakeClient(there, "reset", timeout=PATIENCE) as again:
            again.send("again")
            heard = device.recv(timeout=PATIENCE)
            assert (heard.payload, heard.client_id) == ("again", 3)


@needs_engine
@pytest.mark.parametrize("silent", [0, 1], ids=["node of the device", "node of the client"])
def test_silence_in_one_direction_is_noticed_on_both_sides(healed: SignalingCluster, silent: int) -> None:
    here, there = healed.nodes
    name = f"mute-{silent}"
    with FakeDevice(here, name, timeout=PATIENCE) as device, FakeClient(there, name, timeout=PATIENCE) as client:
        exchange(client, device, 1)
        healed.partition(healed.nodes[silent], healed.nodes[1 - silent], one_way=True)
        with pytest.raises(PeerClosedError) as closed:
            client.recv(timeout=PATIENCE)
        assert (closed.value.code, closed.value.reason) == (1000, "Device disconnected")
        assert device.recv(message_type="client_disconnected", timeout=PATIENCE).client_id == 1
        healed.heal()
        healed.wait_for_nodes(2, timeout=PATIENCE)
        with FakeClient(there, name, timeout=PATIENCE) as again:
            again.send("again")
            assert device.recv(timeout=PATIENCE).payload == "again"


@needs_engine
def test_wrong_numbers_are_named(cluster: SignalingCluster) -> None:
    with pytest.raises(ConfigError, match="^delay: "):
        cluster.slow(0, 1, delay=-1)
    with pytest.raises(ConfigError, match="^bytes_per_s: "):
        cluster.slow(0, 1, bytes_per_s=0)
    with pytest.raises(ClusterError, match="both are node1"):
        cluster.reset(0, 0)
