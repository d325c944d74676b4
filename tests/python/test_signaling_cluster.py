"""The fixture `signaling_cluster`: nodes and engine as processes, which a test kills, pauses and cuts off."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cuttlefish_signaling import ClusterError, Node, NotOursError, PeerClosedError, WaitTimeoutError
from cuttlefish_signaling.testing import ClusterFactory, FakeClientFactory, FakeDeviceFactory, SignalingCluster
from cuttlefish_signaling.testing._engine import MISSING, find_engine

from peers import PATIENCE, wait_until
from plugin_suite import run, suite

pytestmark = pytest.mark.skipif(find_engine() is None, reason="redis-server is not installed")
allows_lost_devices = pytest.mark.signaling(allow_errors=True)


def assert_pair(device: object, client: object) -> None:
    client.send({"type": "request-offer"})  # type: ignore[attr-defined]
    device.recv(type="request-offer").reply({"type": "offer"})  # type: ignore[attr-defined]
    assert client.recv(type="offer")  # type: ignore[attr-defined]


def until(condition: Callable[[], bool]) -> None:
    """Returns when a condition about other processes holds."""
    deadline = time.monotonic() + 2 * PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.01)


def states(nodes: list[Node]) -> dict[str, str]:
    return {node.name: node.state for node in nodes}


def test_pair_across_nodes(
    signaling_cluster: ClusterFactory, fake_device: FakeDeviceFactory, fake_client: FakeClientFactory
) -> None:
    cluster = signaling_cluster(nodes=3)
    assert [node.name for node in cluster.nodes] == ["node1", "node2", "node3"]
    assert len({node.pid for node in cluster.nodes} | {os.getpid(), cluster.engine.pid}) == 5
    assert states(cluster.nodes[1].nodes()) == {"node1": "alive", "node2": "this", "node3": "alive"}
    device = fake_device("cvd-1", server=cluster.nodes[0])
    for node in cluster.nodes:
        node.wait_for_device("cvd-1")
        assert_pair(device, fake_client("cvd-1", server=node))
    (listed,) = [node for node in cluster.nodes[2].nodes() if node.name == "node1"]
    assert listed.devices == 1


def test_killed_node_comes_back_at_its_url(
    signaling_cluster: ClusterFactory, fake_device: FakeDeviceFactory, fake_client: FakeClientFactory
) -> None:
    cluster = signaling_cluster(nodes=2)
    home, other = cluster.nodes
    url, pid = home.url, home.pid
    fake_device("cvd-1", server=home)
    client = fake_client("cvd-1", server=other)
    cluster.kill(home)
    assert (home.state, home.pid) == ("killed", None)
    with pytest.raises(PeerClosedError):
        client.recv(timeout=PATIENCE)
    cluster.restart("node1")
    assert home.url == url and home.pid not in (None, pid)
    cluster.wait_for_nodes(timeout=PATIENCE)
    device = fake_device("cvd-1", server=home, timeout=PATIENCE)
    assert_pair(device, fake_client("cvd-1", server=other, timeout=PATIENCE))
    cluster.restart(home)  # One that runs is killed before.
    cluster.stop(other)
    assert (home.state, other.state) == ("running", "stopped")
    cluster.wait_for_nodes(1, timeout=PATIENCE)


@allows_lost_devices
def test_paused_node_is_silent_and_goes_on(
    signaling_cluster: ClusterFactory, fake_device: FakeDeviceFactory, fake_client: FakeClientFactory
) -> None:
    cluster = signaling_cluster(nodes=2)
    home, other = cluster.nodes
    fake_device("cvd-1", server=home)
    client = fake_client("cvd-1", server=other)
    cluster.pause(0)
    assert home.state == "paused"
    with pytest.raises(PeerClosedError):  # After 5 s of silence.
        client.recv(timeout=PATIENCE)
    cluster.resume(0)
    assert home.state == "running"
    cluster.wait_for_nodes(timeout=PATIENCE)
    until(lambda: home.device_ids() == ["cvd-1"] == other.device_ids())
    assert fake_client("cvd-1", server=other, timeout=PATIENCE)


def test_partition_of_two_nodes_ends_with_heal(
    signaling_cluster: ClusterFactory, fake_device: FakeDeviceFactory, fake_client: FakeClientFactory
) -> None:
    cluster = signaling_cluster(nodes=3)
    one, other, third = cluster.nodes
    device = fake_device("cvd-1", server=one)
    client, of_third = fake_client("cvd-1", server=other), fake_client("cvd-1", server=third)
    cluster.partition(one, "node2")
    assert "partition: node1 | node2" in cluster.report()
    client.send({"type": "lost"})
    with pytest.raises(PeerClosedError):
        client.recv(timeout=PATIENCE)
    assert_pair(device, of_third)
    cluster.heal()
    assert "partition" not in cluster.report()
    until(lambda: other.nodes() != [])
    assert_pair(device, fake_client("cvd-1", server=other, timeout=PATIENCE))


def test_node_without_engine_serves_its_own_pairs(
    signaling_cluster: ClusterFactory, fake_device: FakeDeviceFactory, fake_client: FakeClientFactory
) -> None:
    cluster = signaling_cluster(nodes=2)
    one, other = cluster.nodes
    cluster.partition(one, "engine")
    device = fake_device("alone", server=one, timeout=PATIENCE)
    assert_pair(device, fake_client("alone", server=one))
    assert other.device_ids() == []
    cluster.heal(one, "engine")
    other.wait_for_device("alone", timeout=PATIENCE)
    assert_pair(device, fake_client("alone", server=other))


@pytest.mark.parametrize("how", ["empty", "kept", "paused"])
def test_pairs_outlive_an_outage_of_the_engine(
    how: str, signaling_cluster: ClusterFactory, fake_device: FakeDeviceFactory, fake_client: FakeClientFactory
) -> None:
    cluster = signaling_cluster(nodes=2)
    one, other = cluster.nodes
    device = fake_device("cvd-1", server=one)
    client = fake_client("cvd-1", server=other)
    if how == "paused":
        cluster.engine.pause()
        assert_pair(device, client)
        cluster.engine.resume()
    else:
        cluster.engine.restart(empty=how == "empty")
    assert_pair(device, client)
    cluster.wait_for_nodes(timeout=PATIENCE)
    new = fake_device("cvd-2", server=other, timeout=PATIENCE)
    one.wait_for_device("cvd-2", timeout=PATIENCE)
    assert_pair(new, fake_client("cvd-2", server=one))
    assert_pair(device, client)


def test_engine_is_killed_and_launched_again(
    signaling_cluster: ClusterFactory, fake_device: FakeDeviceFactory, fake_client: FakeClientFactory
) -> None:
    cluster = signaling_cluster(nodes=2)
    one, other = cluster.nodes
    device = fake_device("cvd-1", server=one)
    client = fake_client("cvd-1", server=other)
    cluster.engine.kill()
    assert (cluster.engine.state, cluster.engine.pid) == ("killed", None)
    assert_pair(device, client)
    cluster.engine.launch()
    assert cluster.engine.state == "running"
    cluster.wait_for_nodes(2, timeout=PATIENCE)
    until(lambda: other.device_ids() == ["cvd-1"])
    assert_pair(device, fake_client("cvd-1", server=other, timeout=PATIENCE))


def test_bytes_of_a_partition_arrive_after_its_end(
    signaling_cluster: ClusterFactory, fake_device: FakeDeviceFactory, fake_client: FakeClientFactory
) -> None:
    cluster = signaling_cluster(nodes=2)
    device = fake_device("cvd-1", server=cluster.nodes[0])
    client = fake_client("cvd-1", server=cluster.nodes[1])
    cluster.partition(0, "node2")
    client.send({"type": "late"})
    with pytest.raises(WaitTimeoutError):
        device.recv(timeout=0.1)
    cluster.heal("node1", cluster.nodes[1])
    device.recv(type="late", timeout=PATIENCE)
    assert_pair(device, client)


def test_node_tells_its_devices_its_log_and_its_addresses(
    signaling_cluster: ClusterFactory, fake_device: FakeDeviceFactory
) -> None:
    cluster = signaling_cluster(nodes=2)
    one, other = cluster.nodes
    fake_device("cvd-1", info={"n": 1}, server=one)
    other.wait_for_device("cvd-1", timeout=PATIENCE)
    assert [(device.device_id, device.info) for device in other.devices()] == [("cvd-1", {"n": 1})]
    wait_until(lambda: 'device "cvd-1" registered' in one.log())
    assert 'device "cvd-1" registered' not in other.log()
    assert one.device_url == one.url.replace("http", "ws") + "/register_device"
    assert one.client_url == one.url.replace("http", "ws") + "/connect_client"
    assert cluster.node("node2") is cluster.node(1) is cluster.node(other) is other
    for name in ("journal", "faults", "clock"):
        with pytest.raises(NotOursError, match=f"^{name} is not available: node node1 runs in a process of its own"):
            getattr(one, name)


def test_settings_of_all_nodes_and_of_one(signaling_cluster: ClusterFactory, fake_device: FakeDeviceFactory) -> None:
    cluster = signaling_cluster([{"max_devices": 1}, {}], journal=True)
    small, other = cluster.nodes
    fake_device("cvd-1", server=small)
    with pytest.raises(Exception, match="503"):
        fake_device("cvd-2", server=small)
    fake_device("cvd-2", server=other)


def test_several_clusters_do_not_meet(signaling_cluster: ClusterFactory, fake_device: FakeDeviceFactory) -> None:
    one, other = signaling_cluster(1), signaling_cluster(1)
    fake_device("cvd-1", server=one.nodes[0])
    fake_device("cvd-1", server=other.nodes[0])
    assert [len(cluster.nodes[0].nodes()) for cluster in (one, other)] == [1, 1]


def test_wait_for_nodes_tells_what_each_node_lists(signaling_cluster: ClusterFactory) -> None:
    cluster = signaling_cluster(2)
    with pytest.raises(WaitTimeoutError) as error:
        cluster.wait_for_nodes(3, timeout=0.1)
    assert str(error.value) == (
        "waited 0.1 s for the nodes to list each other: node1 lists node1, node2; node2 lists node1, node2"
    )
    cluster.pause(1)
    with pytest.raises(WaitTimeoutError, match="node1 lists node1, node2$"):
        cluster.wait_for_nodes(timeout=0.1)


def test_cluster_outside_of_pytest_leaves_nothing() -> None:
    with SignalingCluster(1) as cluster:
        pids = [cluster.nodes[0].pid, cluster.engine.pid]
        directory = cluster._directory
        assert directory.exists()
        with pytest.raises(ClusterError, match="the cluster is running already"):
            cluster.start()
    cluster.close()
    assert not directory.exists()
    assert all(not Path(f"/proc/{pid}").exists() for pid in pids)
    assert repr(cluster) == "<SignalingCluster not running>"


# In suites of users ---------------------------------------------------------------------------------------------------


def test_failed_test_reports_the_state_of_the_cluster(pytester: pytest.Pytester) -> None:
    suite(
        pytester,
        """
        def test_fails(signaling_cluster, fake_device):
            cluster = signaling_cluster(2)
            fake_device("cvd-1", server=cluster.nodes[0])
            cluster.partition(0, "engine")
            cluster.kill(1)
            assert False

        def test_that_starts_no_cluster(signaling_cluster):
            assert False
        """,
    )
    result = run(pytester, "-v")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "*- Signaling cluster -*",
            "engine: running",
            "node1: running, http://127.0.0.1:*, process *; devices: cvd-1; nodes: node1 this, node2 alive",
            "node2: killed",
            "partition: engine | node1",
            "--- the end of the log of engine",
            "--- the end of the log of node node1",
            '*device "cvd-1" registered from 127.0.0.1:*',
            "--- the end of the log of node node2",
        ]
    )
    assert result.stdout.str().count("Signaling cluster -") == 1
    pids = re.findall(r"process (\d+)", result.stdout.str())
    assert pids and not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_without_engine_the_test_is_skipped_with_the_reason(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite(pytester, "def test_it(signaling_cluster):\n    signaling_cluster(1)\n")
    monkeypatch.setenv("PATH", "/nowhere")
    result = run(pytester, "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines([f"SKIPPED *{MISSING}"])


def test_with_a_server_elsewhere_the_test_is_skipped(pytester: pytest.Pytester) -> None:
    suite(pytester, "def test_it(signaling_cluster):\n    signaling_cluster(1)\n")
    result = run(pytester, "-rs", "--signaling-url=http://127.0.0.1:1")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED *signaling_cluster starts servers of its own, and --signaling-url is http*"])
