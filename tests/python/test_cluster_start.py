"""The start of a node, with its engine and without: `on_outage="hold"` needs it, and no node joins another version."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import pytest
from ports import free_port

from cuttlefish_signaling import Cluster, EngineUnreachableError, SignalingServer, _lifecycle
from cuttlefish_signaling.cli import main
from cuttlefish_signaling.testing import FakeClient, FakeDevice
from cuttlefish_signaling.testing._engine import Engine, find_engine
from cuttlefish_signaling.testing._links import Links

from peers import PATIENCE, wait_until
from test_cli import ENVIRONMENT

PASSWORD = "cAnArY-0123456789"
FLAGS = ("--no-tls", "--port", "0", "--cluster-on-outage", "hold")


@pytest.fixture
def absent() -> str:
    """The URL of an engine that does not run."""
    return f"redis://user:{PASSWORD}@127.0.0.1:{free_port()}"


def shown(url: str) -> str:
    """The URL as errors have it."""
    return f"redis://{url.rpartition('@')[2]}"


def node(url: str) -> SignalingServer:
    return SignalingServer(cluster=Cluster(url, node="a", on_outage="hold"))


def test_start_without_the_engine_is_an_error_and_leaves_no_server(
    absent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_lifecycle, "ENGINE_TIMEOUT", 0.2)
    server = node(absent)
    with pytest.raises(EngineUnreachableError) as error:
        server.start()
    assert error.value.engine == shown(absent)
    assert str(error.value).startswith(f"engine {shown(absent)}: the node has not joined its cluster within 0.2 s")
    assert 'Cluster.on_outage is "hold"' in error.value.what
    assert f"no server listens on {shown(absent).removeprefix('redis://')}" in error.value.what
    assert not server.is_running

    async def start() -> None:
        async with server:
            raise AssertionError("the server has started")

    with pytest.raises(EngineUnreachableError):
        asyncio.run(start())
    assert not server.is_running


@pytest.mark.skipif(find_engine() is None, reason="redis-server is not installed")
@pytest.mark.parametrize("on_outage", ["admit", "hold"])
def test_registry_of_another_version_is_an_error_of_the_start(
    on_outage: Literal["admit", "hold"], capsys: pytest.CaptureFixture[str]
) -> None:
    with ExitStack() as stack:
        engine = running_engine(stack)
        engine.call("HSET {cuttlefish:lab}:meta schema 99 epoch 1")
        server = SignalingServer(cluster=Cluster(engine.url, name="lab", node="a", on_outage=on_outage))
        wanted = 'version "99", and this node knows version 1: run one release on all nodes'
        with pytest.raises(EngineUnreachableError, match=wanted):
            server.start()

        async def start() -> None:
            async with server:
                raise AssertionError("the server has started")

        with pytest.raises(EngineUnreachableError, match=wanted):
            asyncio.run(start())
        assert not server.is_running
        flags = ("--no-tls", "--port", "0", "--cluster-on-outage", on_outage, "--cluster-name", "lab")
        assert main(["serve", *flags, "--cluster", engine.url]) == 1
        assert wanted in capsys.readouterr().err.splitlines()[-1]
        # The registry is as it was, and another name of the service is another registry.
        assert engine.call("HLEN {cuttlefish:lab}:meta") == ":2"
        with SignalingServer(cluster=Cluster(engine.url, node="a", on_outage=on_outage)) as other:
            assert [one.state for one in other.nodes()] == ["this"]


def running_engine(stack: ExitStack) -> Engine:
    """An engine that runs until the end of the stack."""
    links = Links(dict)
    stack.callback(links.close)
    engine = Engine(Path(stack.enter_context(tempfile.TemporaryDirectory())), links.listen("engine"))
    engine.launch()
    stack.callback(engine.end)
    links.connect_to("engine", engine.socket)
    return engine


def test_error_of_the_command_line_names_flag_and_engine(
    absent: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_lifecycle, "ENGINE_TIMEOUT", 0.2)
    assert main(["serve", *FLAGS, "--cluster", absent]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"cuttlefish-signaling: error: engine {shown(absent)}: ")
    assert '--cluster-on-outage is "hold"' in told
    assert PASSWORD not in told


def test_signal_ends_the_wait_for_the_engine(absent: str) -> None:
    command = [sys.executable, "-m", "cuttlefish_signaling", "serve", *FLAGS, "--cluster", absent]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("cannot use the engine" in line for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(PATIENCE) == 0, rest
    assert "stopping: SIGTERM" in rest


@pytest.mark.skipif(find_engine() is None, reason="redis-server is not installed")
def test_start_returns_once_the_engine_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lifecycle, "ENGINE_TIMEOUT", PATIENCE)
    with ExitStack() as stack:
        links = Links(dict)
        stack.callback(links.close)
        engine = Engine(Path(stack.enter_context(tempfile.TemporaryDirectory())), links.listen("engine"))
        server = node(engine.url)
        starting = threading.Thread(target=server.start)
        starting.start()
        stack.callback(server.stop)
        wait_until(lambda: server.is_running)
        assert starting.is_alive() and server.nodes() == []
        engine.launch()
        stack.callback(engine.end)
        links.connect_to("engine", engine.socket)
        starting.join()
        assert [one.state for one in server.nodes()] == ["this"]


@pytest.mark.skipif(find_engine() is None, reason="redis-server is not installed")
def test_device_that_registers_after_the_wait_of_the_start_waits_for_the_join() -> None:
    with ExitStack() as stack:
        engine = running_engine(stack)
        other = stack.enter_context(SignalingServer(cluster=Cluster(engine.url, node="b")))
        engine.pause()
        began = time.time()
        late = stack.enter_context(SignalingServer(cluster=Cluster(engine.url, node="a"), journal=True))
        assert late.nodes() == [], "the start has waited, and the engine has not answered"
        device = FakeDevice(late, "cvd-1", timeout=PATIENCE)
        registering = stack.enter_context(ThreadPoolExecutor()).submit(stack.enter_context, device)
        wait_until(lambda: late.journal.messages(message_type="register"))
        resumed = time.time()
        engine.resume()
        registering.result()
        (config,) = late.journal.messages(message_type="config", device="cvd-1")
        # On a machine that was too busy for that, the device has waited until the node serves alone.
        assert config.at >= min(resumed, began + _lifecycle.FIRST_ANSWER_TIMEOUT + 2.0)
        other.wait_for_device("cvd-1", timeout=PATIENCE)
        with FakeClient(other, "cvd-1", timeout=PATIENCE):
            pass
