"""A misconfigured cluster: each fault is one log line that says what to change, and nothing else suffers."""

from __future__ import annotations

import logging
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from farms import Farm
from ports import free_port
from test_metrics import scrape

from cuttlefish_signaling import Cluster, Limits, SignalingServer
from cuttlefish_signaling._log_events import EVENTS
from cuttlefish_signaling.testing import FakeClient, FakeDevice, SignalingCluster
from cuttlefish_signaling.testing._cluster_node import ClusterNode
from cuttlefish_signaling.testing._engine import find_engine

from peers import PATIENCE, Peers, assert_relays, wait_until

pytestmark = pytest.mark.skipif(find_engine() is None, reason="redis-server is not installed")

SECRET = "a secret of at least thirty-two bytes"
KEYS = "{cuttlefish:lab}:"


class World:
    """Two nodes, a pair across them, and what all nodes log."""

    def __init__(self, stack: ExitStack, caplog: pytest.LogCaptureFixture) -> None:
        self._stack, self._caplog = stack, caplog
        self.farm = Farm(stack, secret=SECRET)
        self.engine = self.farm.engine
        for node in (self.farm.a, self.farm.b):
            node.wait_for_nodes(2, timeout=PATIENCE)
        self._device = Peers(self.farm.a, stack).device()
        self.farm.b.wait_for_device("cvd-1", timeout=PATIENCE)
        self._client = Peers(self.farm.b, stack).client()

    @property
    def records(self) -> list[logging.LogRecord]:
        """The records of all nodes since the test began."""
        return self._caplog.records

    def node(self, name: str, url: str | None = None, secret: str = SECRET, **settings: Any) -> SignalingServer:
        """Starts one more node. The settings of `Cluster` begin with `cluster_`."""
        own = {key[8:]: settings.pop(key) for key in list(settings) if key.startswith("cluster_")}
        cluster = Cluster(url or self.engine.url, name="lab", node=name, secret=secret, **own)
        return self._stack.enter_context(SignalingServer(cluster=cluster, **settings))

    def logged(self, event: str, *words: str) -> None:
        """Waits for a record of an event with these words, one of each node at most. It has the level of the table."""
        level = next(one.level for one in EVENTS if one.name == event)

        def found() -> list[logging.LogRecord]:
            mine = [record for record in self.records if record.__dict__.get("event") == event]
            return [record for record in mine if all(word in record.getMessage() for word in words)]

        wait_until(found)
        assert len(found()) <= 3
        assert {record.levelname.lower() for record in found()} == {level}

    def assert_well(self) -> None:
        """The pair goes on."""
        assert_relays(self._client, self._device)

    def assert_found(self) -> None:
        """Further clients of each node find the device."""
        for node in (self.farm.a, self.farm.b):
            with FakeClient(node, "cvd-1", timeout=PATIENCE):
                pass
            assert self._device.receive()["message_type"] == "client_disconnected"

    def assert_serves_alone(self, node: SignalingServer) -> None:
        """A node serves its own devices."""
        with FakeDevice(node, f"on-{node.url}"[-20:].replace("/", "-"), timeout=PATIENCE) as device:
            with FakeClient(node, device.device_id, timeout=PATIENCE) as client:
                client.send({"type": "request-offer"})
                device.recv(type="request-offer")


@pytest.fixture
def world(caplog: pytest.LogCaptureFixture) -> Iterator[World]:
    caplog.set_level(logging.DEBUG, "cuttlefish_signaling")
    with ExitStack() as stack:
        made = World(stack, caplog)
        yield made
        made.assert_well()


# Nodes ----------------------------------------------------------------------------------------------------------------


def test_wrong_secret(world: World) -> None:
    stranger = world.node("c", secret=SECRET[::-1])
    world.logged("cluster_unsigned", "no secret of this cluster has signed", "--cluster-secret-file")
    world.assert_serves_alone(stranger)
    assert {device.device_id for device in world.farm.b.devices()} == {"cvd-1"}
    # No node takes it for one of this cluster.
    assert [node.name for node in world.farm.a.nodes()] == ["a", "b"]


def test_two_nodes_of_one_name(world: World) -> None:
    second = world.node("a")
    world.logged("cluster_name_taken", "has the name a already, and is alive", "--node")
    world.assert_serves_alone(second)
    assert [node.name for node in world.farm.b.nodes()] == ["a", "b"]


def test_address_of_another_node(world: World) -> None:
    (address,) = [node.address for node in world.farm.b.nodes() if node.name == "a"]
    late = world.node("c", cluster_address=address)
    # The node finds another one where it should find itself.
    world.logged("cluster_address", "does not reach itself at its own address", address, "--cluster-address")
    world.assert_serves_alone(late)


def test_node_that_dials_itself(world: World) -> None:
    port = free_port()
    # Its neighbour tells the address at which it is itself.
    wrong = world.node("c", cluster_address=f"127.0.0.1:{port}")
    world.logged("cluster_address", "does not reach itself", f"127.0.0.1:{port}", "--cluster-address")
    here = world.node("d", cluster_listen=f"127.0.0.1:{port}")
    world.logged("cluster_address", "this node itself listens at the address of another, c", "--cluster-address")
    world.assert_serves_alone(wrong)
    world.assert_serves_alone(here)


def has_state(node: SignalingServer | ClusterNode, name: str, state: str) -> bool:
    """Whether a node lists another one with this state."""
    return [one.state for one in node.nodes() if one.name == name] == [state]


def has_told(node: ClusterNode, text: str) -> bool:
    """Whether the log of a node has a text."""
    return text in node.log()


def test_address_that_others_cannot_reach(world: World) -> None:
    # The node joins last: those that are there look at it.
    hidden = world.node("c", cluster_address="127.0.0.1:1")
    world.logged("cluster_address", "does not reach itself at its own address", "127.0.0.1:1", "--cluster-address")
    for node in (world.farm.a, world.farm.b):
        wait_until(partial(has_state, node, "c", "unreachable"))
        assert scrape(node)["cluster_nodes_unreachable"] == 1
    words = ("cannot reach node c at 127.0.0.1:1", "open its port", "--cluster-address")
    world.logged("cluster_unreachable", *words)

    def told() -> list[str]:
        return [one.__dict__["node"] for one in world.records if one.__dict__.get("event") == "cluster_unreachable"]

    wait_until(lambda: len(told()) == 2)
    assert {one.name: one.state for one in hidden.nodes()} == {"a": "alive", "b": "alive", "c": "this"}
    # The node hears of it, whether or not it reaches itself.
    for name in ("a", "b"):
        world.logged("cluster_address", f"node {name} does not reach this node at 127.0.0.1:1", "--cluster-address")
    # Each has told it once.
    assert told() == ["c", "c"]
    world.assert_serves_alone(hidden)


def test_network_between_two_nodes_that_is_cut() -> None:
    with SignalingCluster(nodes=3, timeout=PATIENCE) as cluster:
        one, other, late = cluster.nodes
        for node in (one, other):
            cluster.partition(node, late)
        cluster.restart(late)

        # It reaches itself, and the engine.
        for node in (one, other):
            wait_until(partial(has_state, node, "node3", "unreachable"), patience=2 * PATIENCE)
            wait_until(partial(has_told, node, "cannot reach node node3 at"))
        assert has_state(one, "node2", "alive") and "does not reach itself" not in late.log()
        cluster.heal()
        for node in (one, other):
            wait_until(partial(has_state, node, "node3", "alive"))
            wait_until(partial(has_told, node, "can be reached again"))
            assert node.log().count("node node3 at") == 2


def test_other_settings(world: World) -> None:
    other = world.node("c", limits=Limits(max_message_size=128 * 1024))
    for name in ("a", "b"):
        world.logged("cluster_settings_differ", f"node {name} has other limits", "give all nodes the same settings")
    with FakeDevice(other, "cvd-2", timeout=PATIENCE):
        world.farm.a.wait_for_device("cvd-2", timeout=PATIENCE)


# The engine -----------------------------------------------------------------------------------------------------------


@contextmanager
def answering(text: bytes) -> Iterator[str]:
    """A server that answers each command with the same line. Yields its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection:
                while connection.recv(4096):
                    connection.sendall(text)

        threading.Thread(target=serve, daemon=True).start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def test_engine_that_is_too_old(world: World) -> None:
    with answering(b"-ERR unknown command 'HELLO'\r\n") as url:
        alone = world.node("c", url)
        world.logged("cluster_engine_lost", "too old", "Redis 6 or later")
        world.assert_serves_alone(alone)


def test_permission_that_lacks(world: World) -> None:
    world.engine.call("ACL SETUSER node on >pass-w0rd +hello +ping +select")
    url = world.engine.url.replace("://", "://node:pass-w0rd@")
    late = world.node("c", url)
    world.logged("cluster_engine_lost", "the user node lacks a permission", "ACL SETUSER node ~{cuttlefish:lab}:*")
    assert all("pass-w0rd" not in record.getMessage() for record in world.records)
    world.assert_serves_alone(late)
    # The line tells the remedy.
    line = next(record.getMessage() for record in world.records if "lacks a permission" in record.getMessage())
    world.engine.call(f"ACL SETUSER {line.partition('ACL SETUSER ')[2]}")
    late.wait_for_nodes(3, timeout=PATIENCE)


def test_permission_that_lacks_after_each_join_is_logged_once(world: World) -> None:
    world.engine.call("ACL SETUSER node on >pass-w0rd +@all ~{cuttlefish:lab}:* resetchannels &{cuttlefish:lab}:*")
    late = world.node("c", world.engine.url.replace("://", "://node:pass-w0rd@"))
    late.wait_for_nodes(3, timeout=PATIENCE)

    def has_rejoined(times: int) -> bool:
        return sum(value for name, value in scrape(late).items() if "cluster_rejoins_total" in name) >= times

    # A node joins, and cannot tell that a device has come or has left.
    world.engine.call("ACL SETUSER node -publish")
    for number in range(1, 5):
        with FakeDevice(late, f"held-{number}", timeout=PATIENCE):
            wait_until(partial(has_rejoined, number))
    for event in ("cluster_engine_lost", "cluster_joined"):
        mine = [record for record in world.records if record.__dict__.get("event") == event]
        told = [record.getMessage() for record in mine if "lacks a permission" in record.getMessage()]
        assert len(told) == (event == "cluster_engine_lost"), told
    joined = [record for record in world.records if "joined the cluster as c" in record.getMessage()]
    assert len(joined) <= 2


Fault = tuple[list[str], list[str], str, tuple[str, ...]]

FAULTS: dict[str, Fault] = {
    "full": (
        ["CONFIG SET maxmemory-policy noeviction", "CONFIG SET maxmemory 1"],
        ["CONFIG SET maxmemory 0"],
        "cluster_engine_lost",
        ("no memory left", "raise its maxmemory", "noeviction"),
    ),
    "read-only": (
        ["REPLICAOF 127.0.0.1 1"],
        ["REPLICAOF NO ONE"],
        "cluster_engine_lost",
        ("is a replica", "redis+sentinel://"),
    ),
    "slow": (
        ["CLIENT PAUSE 4000 ALL"],
        [],
        "cluster_engine_lost",
        ("no answer to an operation within 1s",),
    ),
    "another schema": (
        [f"HSET {KEYS}meta schema 99", "CLIENT KILL TYPE pubsub"],
        [f"HSET {KEYS}meta schema 1"],
        "cluster_engine_lost",
        ('version "99"', "run one release on all nodes"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_engine_with_a_fault(world: World, fault: str) -> None:
    begin, end, event, words = FAULTS[fault]
    for command in begin:
        world.engine.call(command)

    def told() -> bool:
        mine = [record for record in world.records if record.__dict__.get("event") == event]
        return sum(all(word in record.getMessage() for word in words) for record in mine) == 2

    # Both nodes say so, each once, and go on with what they have.
    wait_until(told)
    assert {record.levelname for record in world.records if record.__dict__.get("event") == event} == {"WARNING"}
    world.assert_well()
    for node in (world.farm.a, world.farm.b):
        world.assert_serves_alone(node)
    assert told()
    for command in end:
        world.engine.call(command)
    # A device that registers afterwards is found on the other node.
    with FakeDevice(world.farm.a, "after", timeout=PATIENCE):
        world.farm.b.wait_for_device("after", timeout=PATIENCE)


def test_engine_that_is_restored_from_an_old_copy(world: World, tmp_path: Path) -> None:
    world.engine.call("SAVE")
    directory = Path(world.engine.socket).parent
    copy = shutil.copy(directory / "dump.rdb", tmp_path / "old.rdb")
    with FakeDevice(world.farm.a, "later", timeout=PATIENCE):
        world.farm.b.wait_for_device("later", timeout=PATIENCE)
        world.engine.kill()
        shutil.copy(copy, directory / "dump.rdb")
        world.engine.launch()
        # The registry has lost that device, and gets it back. Until then a client hears "Cluster unavailable".
        wait_until(lambda: "later" in listed(world))
        world.farm.b.wait_for_device("later", timeout=PATIENCE)
        with FakeClient(world.farm.b, "later", timeout=PATIENCE):
            pass
    wait_until(lambda: rejoined(world) == {"a", "b"})


def rejoined(world: World) -> set[str]:
    """The nodes that have told of a join since the world began."""
    events = [record.__dict__ for record in world.records]
    return {event["node"] for event in events if event.get("event") == "cluster_joined"}


def listed(world: World) -> str:
    """The devices that the registry has."""
    command = ["redis-cli", "-s", world.engine.socket, "HKEYS", f"{KEYS}devices"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("forged", ["record", "change"])
def test_tenant_of_the_engine_who_forges(world: World, forged: str) -> None:
    mine = next(node.incarnation for node in world.farm.a.nodes() if node.name == "b")
    if forged == "record":
        # A stranger takes the id of a device that is connected.
        world.engine.call(f'HSET {KEYS}devices cvd-1 "{mine}/7 999999 AAAA {{}}"')
        world.engine.call(f'HSET {KEYS}meta version "999999 1a"')
    else:
        fields = "".join(f"{len(text)}:{text}" for text in ("cvd-1", f"{mine}/7", "AAAA {}"))
        world.engine.call(f'PUBLISH {KEYS}feed "999999 1a 0 claimed {fields}"')
    wait_until(lambda: [record for record in world.records if record.__dict__.get("event") == "cluster_unsigned"])
    (record, *_) = [record for record in world.records if record.__dict__.get("event") == "cluster_unsigned"]
    assert record.levelname == "WARNING" and "--cluster-secret-file" in record.getMessage()
    world.assert_well()
    world.assert_found()
