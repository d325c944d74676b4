"""The parts of the test kit for clusters: connections that are cut, processes, the engine, and settings of nodes."""

from __future__ import annotations

import fnmatch
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from linked import Network, has_none, network_of_links, received

from cuttlefish_signaling import ClusterError, ConfigError
from cuttlefish_signaling._settings import FLAGS
from cuttlefish_signaling.cli import parser
from cuttlefish_signaling.testing import SignalingCluster, _process
from cuttlefish_signaling.testing._cluster_node import OWN, arguments_of
from cuttlefish_signaling.testing._engine import Engine, find_engine
from cuttlefish_signaling.testing._links import Links, owner_of
from cuttlefish_signaling.testing._process import START_TIMEOUT, TAIL, Process

from peers import PATIENCE

__all__ = ["network_of_links"]

needs_engine = pytest.mark.skipif(find_engine() is None, reason="redis-server is not installed")

# Connections ----------------------------------------------------------------------------------------------------------


def test_bytes_pass_both_ways_until_both_ends(network: Network) -> None:
    near, far = network.pair()
    payload = os.urandom(1_000_000)
    far.settimeout(PATIENCE)
    near.sendall(payload[:1000])
    assert received(far, 1000) == payload[:1000]
    far.sendall(b"there")
    assert received(near, 5) == b"there"
    near.shutdown(socket.SHUT_WR)
    assert far.recv(1) == b""
    far.sendall(b"still")
    assert received(near, 5) == b"still"
    far.close()
    assert near.recv(1) == b""


def test_cut_pair_loses_nothing_and_ends_nothing(network: Network) -> None:
    near, far = network.pair()
    network.links.set_cut("a", "b", True)
    assert network.links.cuts() == [("a", "b")]
    near.sendall(b"one")
    far.sendall(b"two")
    assert has_none(far) and has_none(near)
    far.close()
    assert has_none(near), "the end is not told either"
    network.links.set_cut("b", "a", False)
    assert network.links.cuts() == []
    assert received(near, 3) == b"two"
    assert near.recv(1) == b""


def test_connections_across_a_cut_pair_are_made_when_it_is_healed(network: Network) -> None:
    network.links.set_cut("b", "a", True)
    near = network.dial()
    near.sendall(b"early")
    network.listener.settimeout(0.05)
    with pytest.raises(TimeoutError):
        network.accept()
    network.listener.settimeout(PATIENCE)
    network.links.set_cut("a", "b", False)
    assert received(network.accept(), 5) == b"early"


def test_other_pairs_go_on(network: Network) -> None:
    near, far = network.pair()
    network.links.set_cut("b", "c", True)
    network.links.set_cut("a", "c", True)
    near.sendall(b"x")
    assert received(far, 1) == b"x"


def test_connection_waits_for_the_address_and_ends_where_nothing_listens() -> None:
    network = Network()
    try:
        near = network.dial()
        near.sendall(b"early")
        network.connect_to_listener()
        assert received(network.accept(), 5) == b"early"
        free = socket.create_server(("127.0.0.1", 0))
        network.links.connect_to("b", free.getsockname())
        free.close()
        refused = network.dial()
        assert ended(refused)
    finally:
        network.close()


def ended(receiver: socket.socket) -> bool:
    try:
        return receiver.recv(1) == b""
    except ConnectionResetError:
        return True


def test_close_ends_all_connections(network: Network) -> None:
    near, far = network.pair()
    network.links.set_cut("a", "b", True)
    other = Links(dict)
    other.close()
    network.links.close()
    assert ended(near) and ended(far)
    network.links = Links(dict)  # The fixture closes it.


def test_owner_of_a_connection_is_the_process_that_has_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as made:
            port, to_port = made.getsockname()[1], listener.getsockname()[1]
            assert owner_of(port, to_port, {"other": os.getppid(), "gone": 2**22 - 1, "this": os.getpid()}) == "this"
            assert owner_of(port, to_port, {"other": os.getppid()}) is None
        assert owner_of(1, to_port, {"this": os.getpid()}) is None


# Processes ------------------------------------------------------------------------------------------------------------

SERVES = """
import signal
signal.signal(signal.SIGTERM, lambda *_: exit())
print("ready", flush=True)
while True:
    signal.pause()
"""


def started(directory: Path, source: str = SERVES) -> Process:
    process = Process("node a", directory / "log")
    process.start([sys.executable, "-c", source], os.environ)
    return process


def kernel_state(process: Process) -> str:
    """The letter of the state of a process (proc(5)): T is stopped."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_states_of_a_process(tmp_path: Path) -> None:
    process = Process("node a", tmp_path / "log")
    assert (process.pid, process.state, process.output()) == (None, "stopped", "")
    process.start([sys.executable, "-c", SERVES], os.environ)
    process.wait_for("it is ready", lambda: "ready" in process.output() or None)
    assert process.state == "running"
    process.pause()
    assert process.state == "paused"
    process.wait_for("it stands", lambda: kernel_state(process) == "T" or None)
    process.resume()
    assert process.state == "running"
    process.stop()
    assert (process.pid, process.state) == (None, "stopped")
    process.start([sys.executable, "-c", SERVES], os.environ)
    process.wait_for("it is ready again", lambda: process.output().count("ready") == 2 or None)
    process.pause()
    process.kill()
    assert (process.pid, process.state) == (None, "killed")
    process.end()


def test_output_of_a_process_is_that_of_its_last_start(tmp_path: Path) -> None:
    process = Process("node a", tmp_path / "log")
    says = "print('fünf', 'x' * {}, 'the last one', sep=chr(10))"
    for length in (3, TAIL):
        process.start([sys.executable, "-X", "utf8", "-c", says.format(length)], os.environ)
        process.wait_for("its last line", lambda: "one" in process.output(process.begin) or None)
        process.end()
    assert process.begin == len("fünf\nxxx\nthe last one\n".encode())
    assert process.output().startswith("fünf\nxxx\n")
    assert process.output(process.begin).startswith("fünf\nxxxx")
    # A line that is longer than the end that is read stands without its begin.
    first, last = process.last_lines().split("\n")
    assert (set(first), last) == ({"x"}, "the last one")
    assert len(first) < TAIL


def test_process_that_fails_says_only_the_lines_of_its_last_start(tmp_path: Path) -> None:
    process = Process("node a", tmp_path / "log")
    for code, said in (("print('one')", "it said: one"), ("", "it said nothing")):
        process.start([sys.executable, "-c", code], os.environ)
        with pytest.raises(ClusterError, match=f"node a has ended before it is ready: stopped; {said}"):
            process.wait_for("it is ready", lambda: None)
    # A report of the cluster has those of the start before as well.
    assert process.last_lines() == "one"


def test_process_is_looked_at_once_more_where_a_look_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = started(tmp_path)
    clock, answers = iter([0.0, 0.0, START_TIMEOUT + 1]), iter([None, "ready"])
    try:
        with monkeypatch.context() as patch:
            patch.setattr(_process, "time", SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda _: None))
            assert process.wait_for("it is ready", lambda: next(answers)) == "ready"
            clock = iter([0.0, START_TIMEOUT + 1])
            with pytest.raises(ClusterError, match=r"node a has run for 30 s without it is ready"):
                process.wait_for("it is ready", lambda: None)
    finally:
        process.end()


@pytest.mark.parametrize(
    ("use", "error"),
    [
        ("resume", "node a is running, and was to be resumed"),
        ("start", "node a is running already, as process *"),
        ("pause stop", "node a is paused, and was to be stopped: resume it, or kill it"),
        ("kill pause", "node a is killed, and was to be paused"),
        ("kill kill", "node a is killed, and was to be killed"),
        ("kill resume", "node a is killed, and was to be resumed"),
        ("stop stop", "node a is stopped, and was to be stopped"),
    ],
)
def test_call_in_a_wrong_state_says_the_state(use: str, error: str, tmp_path: Path) -> None:
    process = started(tmp_path)
    process.wait_for("it is ready", lambda: "ready" in process.output() or None)
    *before, last = use.split()
    try:
        for name in before:
            getattr(process, name)()
        with pytest.raises(ClusterError) as caught:
            process.start([], {}) if last == "start" else getattr(process, last)()
        assert fnmatch.fnmatchcase(str(caught.value), error)
    finally:
        process.end()


def test_process_that_ends_early_tells_its_last_lines(tmp_path: Path) -> None:
    process = started(tmp_path, "import sys; print('out'); sys.exit('the reason')")
    with pytest.raises(ClusterError) as caught:
        process.wait_for("it listens", lambda: None)
    text = str(caught.value)
    assert text.startswith("node a has ended before it listens: ended with status 1; it said:\n")
    assert "the reason" in text and "out" in text
    silent = Process("node b", tmp_path / "silent")
    silent.start([sys.executable, "-c", ""], os.environ)
    with pytest.raises(ClusterError, match="node b has ended before it listens: stopped; it said nothing"):
        silent.wait_for("it listens", lambda: None)
    with pytest.raises(ClusterError, match="node b cannot be started: /nowhere/program: "):
        silent.start(["/nowhere/program"], {})


# The engine -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def engine() -> Iterator[Engine]:
    # The path of the socket has to be short.
    with tempfile.TemporaryDirectory() as directory:
        made = Engine(Path(directory), 1)
        made.launch()
        yield made
        made.end()


@needs_engine
def test_engine_keeps_its_data_over_a_restart_if_it_is_told_so(engine: Engine) -> None:
    assert engine.call("SET key value") == "+OK"
    first = engine.pid
    engine.restart(empty=False)
    assert engine.state == "running" and engine.pid != first
    assert engine.call("EXISTS key") == ":1"
    engine.restart()
    assert engine.call("EXISTS key") == ":0"
    engine.kill()
    assert engine.state == "killed"
    engine.restart()
    assert engine.call("EXISTS key") == ":0"


@needs_engine
def test_engine_that_does_not_answer_is_an_error_with_its_state(engine: Engine) -> None:
    with pytest.raises(ClusterError, match="the engine refuses NONSENSE: ERR unknown command"):
        engine.call("NONSENSE")
    with pytest.raises(ClusterError, match="empty must be True or False, got 'yes'"):
        engine.restart(empty="yes")  # type: ignore[arg-type]
    engine.kill()
    for call in (lambda: engine.call("PING"), lambda: engine.restart(empty=False)):
        with pytest.raises(ClusterError, match="the engine is killed, and does not answer "):
            call()


@needs_engine
def test_engine_listens_on_no_port(engine: Engine) -> None:
    assert engine.pid is not None
    assert not [line for line in listening() if owns(engine.pid, line)]


def listening() -> list[str]:
    """The inodes of TCP sockets that listen."""
    lines = [line.split() for path in ("/proc/net/tcp", "/proc/net/tcp6") for line in Path(path).open()]
    return [words[9] for words in lines if words[3] == "0A"]


def owns(process: int, inode: str) -> bool:
    folder = f"/proc/{process}/fd"
    return any(os.readlink(f"{folder}/{number}") == f"socket:[{inode}]" for number in os.listdir(folder))


# Settings -------------------------------------------------------------------------------------------------------------


def test_settings_of_nodes_are_flags() -> None:
    given = {
        "device_wait_timeout": None,
        "max_devices": 7,
        "journal": True,
        "access_log": False,
        "allow_host": ["a", "b"],
        "on_duplicate": "replace",
        "device_socket": Path("/tmp/x"),
        "device_id_template": "{node}-{id}",
        "cluster_ca": None,
    }
    arguments = arguments_of("x", given)
    assert arguments == [
        "--device-wait-timeout=none",
        "--max-devices=7",
        "--journal",
        "--allow-host=a",
        "--allow-host=b",
        "--on-duplicate=replace",
        "--device-socket=/tmp/x",
        "--device-id-template={node}-{id}",
    ]
    assert parser().parse_args(["serve", *arguments]).max_devices == 7


def test_settings_that_the_kit_makes_are_settings() -> None:
    assert set(OWN) <= {flag.key for flag in FLAGS}


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"max_device": 1}, "SignalingCluster: max_device: unknown setting; did you mean 'max_devices'?"),
        ({"zzz": 1}, "SignalingCluster: zzz: unknown setting; the names are those of the flags of serve, with _ for -"),
        ({"port": 1}, "SignalingCluster: port: is set by the cluster of the test: leave it out"),
        ({"cluster": "redis://x"}, "SignalingCluster: cluster: is set by the cluster of the test: leave it out"),
        ({"max_devices": 0}, "SignalingCluster: max_devices: 0 is not a whole number from 1 to 1048576"),
        ({"max_devices": "7"}, "SignalingCluster: max_devices: '7' is not a whole number *"),
        ({"journal": "yes"}, "SignalingCluster: journal: 'yes' is not true or false"),
        ({"on_duplicate": "keep"}, "SignalingCluster: on_duplicate: 'keep' is not one of reject, replace"),
        ({"allow_host": "lab"}, "SignalingCluster: allow_host: 'lab' is not a list of strings"),
        ({"hook_timeout": None}, "SignalingCluster: hook_timeout: None is not a number of seconds*"),
        ({"nodes": 0}, "SignalingCluster: nodes: must be between 1 and 16, got 0"),
        ({"nodes": 17}, "SignalingCluster: nodes: must be between 1 and 16, got 17"),
        ({"nodes": True}, "SignalingCluster: nodes: must be a number of nodes, or a list *, got True"),
        ({"nodes": "3"}, "SignalingCluster: nodes: must be a number of nodes, or a list *, got '3'"),
        ({"nodes": {}}, "SignalingCluster: nodes: must be a number of nodes, or a list *, got {}"),
        ({"nodes": []}, "SignalingCluster: nodes: must have between 1 and 16 nodes, got 0"),
        ({"nodes": [3]}, "SignalingCluster: nodes: must be a number of nodes, *, got 3 in it"),
        ({"nodes": [{}, {"prot": 1}]}, "SignalingCluster: nodes[[]1]: prot: unknown setting; did you mean *"),
        ({"timeout": 0}, "timeout: must be a number of seconds, more than 0, got 0"),
        ({"timeout": "5"}, "timeout: must be a number of seconds, got '5'"),
    ],
)
def test_wrong_setting_is_named_before_anything_starts(given: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SignalingCluster(**given)
    assert fnmatch.fnmatchcase(str(caught.value), error), caught.value


def test_missing_engine_is_an_error_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ClusterError, match="needs redis-server or valkey-server in PATH"):
        SignalingCluster()
