"""The secret of a cluster is replaced on running nodes: by `reload()`, and by SIGHUP."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
from farms import Farm

from cuttlefish_signaling import Cluster, IceServer, SignalingServer
from cuttlefish_signaling.testing import FakeClient, FakeDevice, SignalingCluster
from cuttlefish_signaling.testing._cluster_node import ClusterNode
from cuttlefish_signaling.testing._engine import find_engine

from peers import PATIENCE, Peers, WebSocketPeer, assert_relays, wait_until

pytestmark = pytest.mark.skipif(find_engine() is None, reason="redis-server is not installed")

OLD, NEW = "the old secret of at least 32 bytes", "the new secret of at least 32 bytes"
STEPS = ([OLD, NEW], [NEW, OLD], [NEW])
TURN = IceServer(["turn:turn.example"], username="u", credential="c")


class Pairs:
    """Two nodes with one secret, a device on each, and a client of each device on the other node."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.farm = Farm(stack, secret=OLD)
        self.nodes = {"a": self.farm.a, "b": self.farm.b}
        for node in self.nodes.values():
            node.wait_for_nodes(2, timeout=PATIENCE)
        self.farm.a.set_ice_servers([TURN])
        wait_until(lambda: self._ice_of(self.farm.b, "probe") == [TURN._json()])
        self._devices = {name: Peers(node, stack).device(name) for name, node in self.nodes.items()}
        self._clients = {"a": self._client(self.farm.b, "a"), "b": self._client(self.farm.a, "b")}
        self._last_ids = dict.fromkeys(self.nodes, 1)

    def _client(self, node: SignalingServer, device: str) -> WebSocketPeer:
        node.wait_for_device(device, timeout=PATIENCE)
        return Peers(node, self._stack).client(device)

    def _ice_of(self, node: SignalingServer, device: str) -> list[dict[str, object]]:
        with FakeDevice(node, device, timeout=PATIENCE), FakeClient(node, device, timeout=PATIENCE) as client:
            return client.ice_servers

    def assert_found(self) -> None:
        """Each device is found from each node, and the pairs of the start relay."""
        for name, device in self._devices.items():
            assert_relays(self._clients[name], device)
            for node in self.nodes.values():
                client = self._client(node, name)
                self._last_ids[name] += 1
                assert_relays(client, device, self._last_ids[name])
                client.close()
                assert device.receive()["message_type"] == "client_disconnected"

    def cluster(self, node: str, secret: list[str]) -> Cluster:
        return Cluster(self.farm.engine.url, name="lab", node=node, secret=secret)

    def replace(self, name: str, secrets: list[str]) -> None:
        self.nodes[name].reload(cluster=self.cluster(name, secrets))

    def assert_signed(self, secret: str) -> None:
        """A node that has this secret alone finds both devices and the shared ICE servers."""
        with SignalingServer(cluster=self.cluster("c", [secret])) as node:
            wait_until(lambda: {device.device_id for device in node.devices()} == {"a", "b"})
            wait_until(lambda: self._ice_of(node, "own") == [TURN._json()])
            with FakeClient(node, "a", timeout=PATIENCE):
                self._last_ids["a"] += 1
            assert self._devices["a"].receive()["message_type"] == "client_disconnected"

    def assert_unknown(self, secret: str, caplog: pytest.LogCaptureFixture) -> None:
        """A node that has this secret alone finds nothing, and says so."""
        with SignalingServer(cluster=self.cluster("c", [secret])) as node:
            wait_until(lambda: "no secret of this cluster has signed" in caplog.text)
            assert node.devices() == []
            assert self._ice_of(node, "own") == []


def test_secret_is_replaced_step_by_step_and_no_pair_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cuttlefish_signaling")
    with ExitStack() as stack:
        pairs = Pairs(stack)
        for secrets in STEPS:
            for name in pairs.nodes:
                caplog.clear()
                pairs.replace(name, secrets)
                wait_until(lambda: "signed with the first line of the new secret" in caplog.text)
                pairs.assert_found()
            assert not [record for record in caplog.records if record.levelno >= logging.WARNING], caplog.text
            pairs.assert_signed(secrets[0])
        caplog.clear()
        pairs.assert_unknown(OLD, caplog)
        pairs.assert_found()


def hang_up(node: ClusterNode, count: int) -> None:
    """Has a node read its settings again. Returns when it signs with the new secret, for the `count`th time."""
    assert node.pid is not None
    os.kill(node.pid, signal.SIGHUP)
    wait_until(lambda: node.log().count("first line of the new secret") == count)
    wait_until(lambda: node.log().count("reloaded: cluster\n") == count)


def test_file_of_the_secret_is_read_again_on_sighup(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("one", "two")]
    for file in files:
        file.write_text(f"{OLD}\n")
    with ExitStack() as stack:
        cluster = stack.enter_context(
            SignalingCluster([{"cluster_secret_file": file} for file in files], timeout=PATIENCE)
        )
        device = stack.enter_context(FakeDevice(cluster.nodes[0], "cvd-1", timeout=PATIENCE))
        client = stack.enter_context(FakeClient(cluster.nodes[1], "cvd-1", timeout=PATIENCE))
        for count, secrets in enumerate(STEPS, 1):
            for node, file in zip(cluster.nodes, files, strict=True):
                file.write_text("".join(f"{secret}\n" for secret in secrets))
                hang_up(node, count)
                client.send({"type": "request-offer"})
                device.recv(type="request-offer").reply({"type": "offer"})
                client.recv(type="offer")
                with FakeClient(cluster.nodes[1], "cvd-1", timeout=PATIENCE):
                    pass
        assert all(secret not in node.log() for node in cluster.nodes for secret in (OLD, NEW))
