"""Three nodes of a cluster as processes of the command line, with an engine on redis-server."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from ports import free_port
from websockets.sync.client import connect

from peers import PATIENCE, WebSocketPeer, assert_relays, wait_until

REDIS = shutil.which("redis-server")

pytestmark = pytest.mark.skipif(REDIS is None, reason="there is no redis-server: apt-get install redis-server")


class Farm:
    """An engine and nodes, each a process."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self.nodes: dict[str, subprocess.Popen[str]] = {}
        self._urls: dict[str, str] = {}
        self._port = free_port()
        self.start_engine()

    def start_engine(self) -> None:
        """Starts an empty engine."""
        options = ("--bind", "127.0.0.1", "--port", str(self._port), "--save", "", "--dir", str(self._folder))
        self.engine = subprocess.Popen([str(REDIS), *options], stdout=subprocess.DEVNULL, text=True)
        self._stack.callback(end, self.engine)
        wait_until(self._accepts)

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def start(self, name: str) -> None:
        """Starts a node, and waits until it has joined."""
        engine = f"redis://127.0.0.1:{self._port}"
        command = [sys.executable, "-m", "cuttlefish_signaling", "serve", "--no-tls", "--port", "0"]
        command += ["--device-wait-timeout", "20", "--cluster", engine, "--node", name]
        log = self._stack.enter_context(self._log(name).open("w"))
        node = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        self._stack.callback(end, node)
        assert node.stdout
        lines = iter(node.stdout.readline, "")
        self._urls[name] = next(line for line in lines if line.startswith("clients: ")).split()[1]
        self.nodes[name] = node
        wait_until(lambda: "joined the cluster" in self._log(name).read_text())

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def log(self, name: str) -> str:
        """The log of a node."""
        return self._log(name).read_text()

    def _connect(self, url: str) -> WebSocketPeer:
        return WebSocketPeer(self._stack.enter_context(connect(url, open_timeout=PATIENCE, close_timeout=1)))

    def device(self, name: str, device_id: str = "cvd-1") -> WebSocketPeer:
        """A device on a node, which has its config."""
        device = self._connect(self._urls[name].replace("connect_client", "register_device"))
        device.send({"message_type": "register", "device_id": device_id, "device_info": {}})
        assert device.receive()["message_type"] == "config"
        return device

    def client(self, name: str, device_id: str = "cvd-1") -> WebSocketPeer:
        """A client on a node, which has its device info."""
        client = self._connect(self._urls[name])
        client.send({"message_type": "connect", "device_id": device_id})
        assert client.receive()["message_type"] == "config"
        assert client.receive() == {"message_type": "device_info", "device_info": {}}
        return client


def end(process: subprocess.Popen[str]) -> None:
    """Kills a process."""
    process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    with ExitStack() as stack:
        farm = Farm(tmp_path, stack)
        for name in "abc":
            farm.start(name)
        yield farm


def assert_told(client: WebSocketPeer) -> None:
    """The client hears that its device has left."""
    assert client.receive() == {"error": "Device disconnected"}
    assert client.wait_closed() == 1000


def test_pair_on_two_nodes_and_the_stop_of_a_node(farm: Farm) -> None:
    device, client = farm.device("a"), farm.client("b")
    assert_relays(client, device)
    client.close()
    assert device.receive() == {"message_type": "client_disconnected", "client_id": 1}
    client = farm.client("c")
    begun = time.monotonic()
    farm.nodes["a"].send_signal(signal.SIGTERM)
    assert_told(client)
    assert farm.nodes["a"].wait(PATIENCE) == 0
    assert time.monotonic() - begun < PATIENCE
    assert "left the cluster" in farm.log("a")
    # The id is free at once.
    device = farm.device("b")
    assert_relays(farm.client("c"), device)


def test_clients_of_a_killed_node_are_told_and_its_device_comes_back_on_another(farm: Farm) -> None:
    farm.device("a")
    client, waiting = farm.client("b"), farm.client("c")
    farm.nodes["a"].kill()
    assert_told(client)
    assert_told(waiting)
    # The new connection waits until the lease of the killed node has ended, and is then found.
    device = farm.device("b")
    assert_relays(farm.client("c"), device)


def test_paused_node_is_given_up_and_joins_again_with_its_devices(farm: Farm) -> None:
    device, client = farm.device("a"), farm.client("b")
    os.kill(farm.nodes["a"].pid, signal.SIGSTOP)
    assert_told(client)
    os.kill(farm.nodes["a"].pid, signal.SIGCONT)
    assert device.receive() == {"message_type": "client_disconnected", "client_id": 1}
    assert_relays(farm.client("b"), device, client_id=2)


def test_engine_that_restarts_empty_ends_no_pair_and_hears_of_all_devices_again(farm: Farm) -> None:
    device, client = farm.device("a"), farm.client("b")
    end(farm.engine)
    assert_relays(client, device)
    late = farm.device("c", "cvd-2")
    farm.start_engine()
    wait_until(lambda: all(farm.log(name).count("joined the cluster") == 2 for name in "abc"))
    assert_relays(client, device)
    assert_relays(farm.client("b", "cvd-2"), late)
    assert_relays(farm.client("c"), device, client_id=2)
    # The log tells of the outage once for each node and cause, and not at each attempt.
    for name in "abc":
        assert farm.log(name).count("cannot use the engine") <= 3, farm.log(name)
