"""An engine that fails for a time, and a node that is paused: pairs go on, and devices are found again."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from farms import Farm
from test_cluster_faults import KEYS, World, world
from test_cluster_start import running_engine
from test_metrics import scrape
from test_process import leaked_threads, threads

from cuttlefish_signaling import Cluster, SignalingServer
from cuttlefish_signaling.testing import FakeClient, FakeDevice, SignalingCluster
from cuttlefish_signaling.testing._engine import MISSING, Engine, find_engine

from peers import PATIENCE, Peers, assert_returns, wait_until

__all__ = ["world"]

pytestmark = pytest.mark.skipif(find_engine() is None, reason=MISSING)


def launch(engine: Engine, *options: str) -> None:
    """Starts the engine with options of its own."""
    directory = Path(engine.socket).parent
    command = [str(find_engine()), "--port", "0", "--unixsocket", engine.socket, "--dir", str(directory), "--save", ""]
    engine.start([*command, *options], os.environ)
    engine.wait_for("it answers", lambda: engine._answers("PING", "+PONG"))


def told(world: World, event: str) -> list[str]:
    """The texts of an event, of all nodes."""
    return [record.getMessage() for record in world.records if record.__dict__.get("event") == event]


def counted(server: SignalingServer, name: str) -> float:
    """The sum of a counter."""
    return sum(value for sample, value in scrape(server).items() if sample.startswith(name))


def assert_is_whole(world: World) -> None:
    """The pair goes on, its device is found, and one that registers now as well."""
    world.assert_well()
    world.assert_found()
    with FakeDevice(world.farm.a, "later", timeout=PATIENCE):
        world.farm.b.wait_for_device("later", timeout=PATIENCE)
        with FakeClient(world.farm.b, "later", timeout=PATIENCE):
            pass


def test_engine_that_restarts_with_its_file_has_forgotten_nothing(world: World) -> None:
    world.engine.call("CONFIG SET appendfsync always")
    world.engine.call("CONFIG SET appendonly yes")
    command = ["redis-cli", "-s", world.engine.socket, "INFO", "persistence"]
    wait_until(lambda: "aof_rewrite_in_progress:0" in subprocess.check_output(command, text=True))
    world.engine.kill()
    wait_until(lambda: len(told(world, "cluster_engine_lost")) == 2)
    world.assert_well()
    launch(world.engine, "--appendonly", "yes")
    wait_until(lambda: len(told(world, "cluster_joined")) == 2)
    assert_is_whole(world)
    assert told(world, "cluster_forgotten") == []


def test_feed_that_the_engine_cuts_is_noticed_and_the_registry_read_again(world: World) -> None:
    nodes = (world.farm.a, world.farm.b)
    before = [counted(node, "cluster_resyncs_total") for node in nodes]
    world.engine.call('CONFIG SET client-output-buffer-limit "pubsub 1 0 0"')
    # A change that no node hears of, since this one is more than the part of the buffer that the limit does not count.
    world.engine.call(f'HSET {KEYS}meta version "999999 1a"')
    world.engine.call(f"PUBLISH {KEYS}feed {'x' * 40_000}")
    wait_until(lambda: len(told(world, "cluster_engine_lost")) == 2)
    world.engine.call('CONFIG SET client-output-buffer-limit "pubsub 32mb 8mb 60"')
    wait_until(lambda: len(told(world, "cluster_joined")) == 2)
    wait_until(
        lambda: all(counted(node, "cluster_resyncs_total") > was for node, was in zip(nodes, before, strict=True))
    )
    assert_is_whole(world)


def test_engine_that_sleeps_ends_no_pair(world: World) -> None:
    world.engine.kill()
    launch(world.engine, "--enable-debug-command", "local", "--appendonly", "no")
    wait_until(lambda: len(told(world, "cluster_joined")) == 2)
    begun = len(told(world, "cluster_engine_lost"))
    sleep = ["redis-cli", "-s", world.engine.socket, "DEBUG", "SLEEP", "3"]
    with subprocess.Popen(sleep, stdout=subprocess.PIPE, text=True) as sleeping:
        silent = "no answer to an operation within 1s"
        wait_until(lambda: sum(silent in text for text in told(world, "cluster_engine_lost")[begun:]) == 2)
        world.assert_well()
        assert sleeping.communicate()[0] == "OK\n"
    assert_is_whole(world)


def test_password_that_the_engine_refuses(world: World) -> None:
    world.engine.call("ACL SETUSER node on >right +@all ~* &*")
    late = world.node("c", world.engine.url.replace("://", "://node:wr0ng-pass@"))
    world.logged("cluster_engine_lost", "the engine refuses the user or the password: change them in the URL")
    assert all("wr0ng-pass" not in record.getMessage() for record in world.records)
    world.assert_serves_alone(late)
    world.engine.call("ACL SETUSER node >wr0ng-pass")
    late.wait_for_nodes(3, timeout=PATIENCE)


# Processes ------------------------------------------------------------------------------------------------------------


def test_node_that_is_paused_for_less_than_its_lease_loses_nothing() -> None:
    with ExitStack() as stack:
        cluster = stack.enter_context(SignalingCluster(3))
        one, other, third = cluster.nodes
        device = stack.enter_context(FakeDevice(one, "cvd-1", timeout=PATIENCE))
        client = stack.enter_context(FakeClient(other, "cvd-1", timeout=PATIENCE))
        cluster.pause(one)
        client.send({"type": "request-offer"})
        # The others go on meanwhile.
        with FakeDevice(other, "cvd-2", timeout=PATIENCE):
            third.wait_for_device("cvd-2", timeout=PATIENCE)
        cluster.resume(one)
        device.recv(type="request-offer", timeout=PATIENCE).reply({"type": "offer"})
        assert client.recv(type="offer", timeout=PATIENCE)
        assert "this process was paused" not in one.log()


def test_node_that_is_paused_beyond_its_lease_gives_up_what_another_node_has_got() -> None:
    with ExitStack() as stack:
        cluster = stack.enter_context(SignalingCluster(3))
        one, other, third = cluster.nodes
        old = stack.enter_context(FakeDevice(one, "cvd-1", timeout=PATIENCE))
        kept = stack.enter_context(FakeDevice(one, "cvd-2", timeout=PATIENCE))
        cluster.pause(one)
        # It waits for the end of the lease.
        new = stack.enter_context(FakeDevice(other, "cvd-1", timeout=PATIENCE))
        cluster.resume(one)
        assert old.wait_closed(timeout=PATIENCE) == 1008
        cluster.wait_for_nodes(timeout=PATIENCE)
        for device in (new, kept):
            client = stack.enter_context(FakeClient(third, device.device_id, timeout=PATIENCE))
            client.send({"type": "request-offer"})
            device.recv(type="request-offer", timeout=PATIENCE).reply({"type": "offer"})
            assert client.recv(type="offer", timeout=PATIENCE)
        assert "this process was paused" in one.log()
        wait_until(lambda: all(sorted(node.device_ids()) == ["cvd-1", "cvd-2"] for node in cluster.nodes))


# The process of a node ------------------------------------------------------------------------------------------------


def test_node_has_no_more_threads_than_a_server_alone() -> None:
    with ExitStack() as stack:
        engine = running_engine(stack)
        before = threads()
        nodes = [SignalingServer(cluster=Cluster(engine.url, node=name)) for name in "ab"]
        with nodes[0], nodes[1]:
            nodes[0].wait_for_nodes(2, timeout=PATIENCE)
            # For each, one serves, and one of Python waits for events.
            assert len(threads() - before) == 4
        assert leaked_threads(before) == set()


@pytest.mark.parametrize("frozen", [False, True])
def test_stop_returns_while_the_engine_hangs(frozen: bool) -> None:
    with ExitStack() as stack:
        farm = Farm(stack)
        farm.a.wait_for_nodes(2, timeout=PATIENCE)
        Peers(farm.a, stack).device()
        if frozen:
            farm.engine.pause()
            stack.callback(farm.engine.resume)
        for node in (farm.a, farm.b):
            assert_returns(node.stop)
        assert not farm.a.is_running
