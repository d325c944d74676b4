"""The server in a process: threads, descriptors, memory, and the GIL."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ports import free_port

from cuttlefish_signaling import Limits, SignalingServer

import raw
from peers import PATIENCE, assert_returns, peers_of, wait_until


def threads() -> set[str]:
    """The threads of this process, of Python and others."""
    return set(os.listdir("/proc/self/task"))


def leaked_threads(before: set[str]) -> set[str]:
    """Threads that were started since, and do not end.

    `join()`, Python's and Rust's, returns before the kernel removes the thread from its list: a plain
    `threading.Thread` is often listed after `join()`. A thread that was not joined stays.
    """
    deadline = time.monotonic() + PATIENCE
    while (extra := threads() - before) and time.monotonic() < deadline:
        os.sched_yield()
    return extra


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident_kib(process: int | str = "self") -> int:
    """Anonymous memory: pages of files are mapped when code runs first. The figure of `status` is approximate."""
    with open(f"/proc/{process}/smaps_rollup") as rollup:
        return next(int(line.split()[1]) for line in rollup if line.startswith("Anonymous:"))


def test_1000_start_stop_rounds_leak_nothing() -> None:
    with SignalingServer(workers=2) as server, peers_of(server) as peers:
        peers.device()
        peers.client()
    gc.collect()
    before, open_before = threads(), descriptors()
    memory = []
    for number in range(1000):
        if number % 250 == 0:
            gc.collect()
            memory.append(resident_kib())
        with SignalingServer(workers=1 + number % 2) as server:
            if number % 50 == 0:
                with peers_of(server) as peers:
                    peers.device()
                    peers.client()
    gc.collect()
    assert leaked_threads(before) == set()
    assert descriptors() == open_before
    # The last 500 rounds take less than a KiB each; a leak takes tens of KiB.
    assert resident_kib() - memory[2] < 500, [*memory, resident_kib()]


def test_idle_server_has_two_threads() -> None:
    """One serves, and one of Python waits for the first event."""
    before = threads()
    with SignalingServer(), SignalingServer():
        assert len(threads() - before) == 4


def test_start_stop_rounds_with_hooks_leak_nothing() -> None:
    async def ice(ctx: object) -> list[object]:
        await asyncio.sleep(0)
        return []

    # Objects of earlier tests must not be collected meanwhile.
    gc.collect()
    before, open_before = threads(), descriptors()
    for _ in range(20):
        with SignalingServer(ice_servers=ice, filter_device_info=lambda i, c: i) as server, peers_of(server) as peers:
            peers.device()
            peers.client()
    gc.collect()
    assert leaked_threads(before) == set()
    assert descriptors() == open_before


def test_stop_with_open_handshakes_leaks_nothing() -> None:
    before = threads()
    server = SignalingServer().start()
    sockets = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    for one in sockets[:10]:
        one.sendall(b"GET /register_device HTT")
    assert_returns(server.stop)
    assert leaked_threads(before) == set()
    for one in sockets:
        one.settimeout(PATIENCE)
        try:
            assert one.recv(1) == b""
        except ConnectionResetError:
            pass
        one.close()


def test_stop_is_bounded_while_hook_hangs(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()
    asked = threading.Event()

    def hang(ctx: object) -> list[object]:
        asked.set()
        release.wait()
        return []

    try:
        server = SignalingServer(ice_servers=hang, stop_timeout=1.0).start()
        with peers_of(server) as peers:
            device = peers.pending_device()
            assert asked.wait(PATIENCE)
            assert_returns(server.stop)
            assert device.wait_closed() == 1001
        assert any("a hook hangs" in record.getMessage() for record in caplog.records)
    finally:
        release.set()


def test_stop_is_bounded_while_async_hook_hangs() -> None:
    before, python_threads = threads(), set(threading.enumerate())
    asked = threading.Event()

    async def hang(ctx: object) -> list[object]:
        asked.set()
        await asyncio.Event().wait()
        return []

    server = SignalingServer(ice_servers=hang).start()
    with peers_of(server) as peers:
        device = peers.pending_device()
        assert asked.wait(PATIENCE)
        assert_returns(server.stop)
        assert device.wait_closed() == 1001
        device.close()
    gc.collect()
    # A thread of a test before this one may still be ending.
    started = set(threading.enumerate()) - python_threads
    assert {thread.name for thread in started if "cuttlefish" in thread.name} == set()
    assert leaked_threads(before) == set()


def test_stop_is_bounded_with_unresponsive_peer() -> None:
    with SignalingServer() as server, raw.Raw(server.port, "/register_device"):
        assert_returns(server.stop)


def test_concurrent_stops_return() -> None:
    server = SignalingServer().start()
    stoppers = [threading.Thread(target=server.stop) for _ in range(8)]
    for stopper in stoppers:
        stopper.start()
    for stopper in stoppers:
        stopper.join(PATIENCE)
        assert not stopper.is_alive()
    assert not server.is_running


@pytest.mark.parametrize("in_time", [True, False])
def test_later_stop_waits_for_first_and_returns_its_outcome(in_time: bool) -> None:
    """The peer closes only when all have called `stop`, or not at all."""
    server = SignalingServer(limits=Limits(goodbye_timeout=30, close_timeout=30)).start()
    outcomes: list[bool] = []
    timeout = PATIENCE if in_time else 0.5
    stoppers = [threading.Thread(target=lambda: outcomes.append(server.stop(timeout=timeout))) for _ in range(8)]
    with raw.Raw(server.port, "/register_device"):
        for stopper in stoppers:
            stopper.start()
        wait_until(lambda: not server.is_running)
        if not in_time:
            for stopper in stoppers:
                stopper.join(PATIENCE)
    for stopper in stoppers:
        stopper.join(PATIENCE)
    assert outcomes == [in_time] * 8
    assert server.stop() is in_time
    with server:
        assert server.stop() is True
    assert server.stop() is True


def test_start_waits_for_stop_of_another_thread() -> None:
    port = free_port()
    server = SignalingServer(port=port, limits=Limits(goodbye_timeout=30, close_timeout=30)).start()
    with raw.Raw(server.port, "/register_device"):
        stopper = threading.Thread(target=lambda: server.stop(timeout=0.5))
        stopper.start()
        wait_until(lambda: not server.is_running)
        serving = threading.Thread(target=server.serve_forever)
        server.start()
        serving.start()
        stopper.join(PATIENCE)
        assert server.is_running, "the stop ended its own run only"
        assert server.port == port
        server.stop()
        serving.join(PATIENCE)
        assert not serving.is_alive()


def test_signal_handler_may_stop_during_stop() -> None:
    body = """
    import signal
    from cuttlefish_signaling import Limits, SignalingServer
    from raw import Raw
    outcomes = []
    signal.signal(signal.SIGALRM, lambda *_: outcomes.append(server.stop()))
    server = SignalingServer(limits=Limits(goodbye_timeout=30, close_timeout=30)).start()
    with Raw(server.port, "/register_device"):
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        outcomes.append(server.stop(timeout=0.6))
    assert outcomes == [False, False], outcomes
    """
    program = textwrap.dedent(body)
    done = subprocess.run(
        [sys.executable, "-c", program], timeout=60, env={**os.environ, "PYTHONPATH": str(Path(raw.__file__).parent)}
    )
    assert done.returncode == 0


def test_garbage_collected_server_stops() -> None:
    before = threads()
    # A port of this worker alone: another one listens at no port of this range.
    port = free_port()
    server = SignalingServer(port=port).start()
    with pytest.warns(ResourceWarning, match="was not stopped"):
        del server
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert leaked_threads(before) == set()


CONVERSE = """
import sys
from websockets.sync.client import connect
url = sys.argv[1]
with connect(url + "/register_device") as d, connect(url + "/connect_client") as c:
    d.send('{"message_type":"register","device_id":"cvd-1"}'); d.recv()
    c.send('{"message_type":"connect","device_id":"cvd-1"}'); c.recv(); c.recv()
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(100):
        c.send('{"message_type":"forward","payload":1}'); d.recv(timeout=20)
        d.send('{"message_type":"forward","client_id":1,"payload":1}'); c.recv(timeout=20)
    print("done", flush=True)
"""


def test_relay_continues_while_gil_is_held() -> None:
    """The process of the pair ends without `done` if no message is relayed: its receives time out."""
    libc = ctypes.PyDLL(None)  # Calls without releasing the GIL.
    with SignalingServer() as server:
        pair = subprocess.Popen(
            [sys.executable, "-c", CONVERSE, server.url.replace("http", "ws")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert pair.stdin is not None
        assert pair.stdout is not None
        assert pair.stdout.readline() == "ready\n"
        pair.stdin.write("go\n")
        pair.stdin.flush()
        answer = ctypes.create_string_buffer(4)
        length = libc.read(pair.stdout.fileno(), answer, 4)
        pair.communicate(timeout=PATIENCE)
    assert answer.raw[:length] == b"done"
    assert pair.returncode == 0


CROWD = """
    import sys
    sys.path.insert(0, sys.argv[2])
    from raw import register
    crowd = [register(int(sys.argv[1]), f"cvd-{number}") for number in range(900)]
    for device in crowd:
        device.receive()
    print("here", flush=True)
    sys.stdin.readline()
"""


SERVER = """
    import logging
    from cuttlefish_signaling import SignalingServer

    class Departures(logging.Handler):
        count = 0

        def emit(self, record):
            self.count += getattr(record, "event", None) == "device_left"
            if self.count == 900:
                self.count = 0
                print("all have left", flush=True)

    logging.getLogger("cuttlefish_signaling").addHandler(Departures())
    logging.getLogger("cuttlefish_signaling").setLevel(logging.INFO)
    with SignalingServer() as server:
        print(server.port, flush=True)
        input()
"""


def test_memory_is_returned_after_disconnects() -> None:
    with companion(SERVER) as server:  # A process of its own: memory that other tests have freed would hide the growth.
        port = server.stdout.readline().strip()
        # Tables and modules of Python that the first crowd needs stay.
        resident_with_crowd(server, port)
        before = resident_kib(server.pid)
        grown = resident_with_crowd(server, port) - before
        assert grown > 1_000, "the second crowd takes memory that the first one has returned"
        left = resident_kib(server.pid) - before
        assert left < grown / 2


def resident_with_crowd(server: Any, port: str) -> int:
    """The memory of the server in KiB while 900 devices are registered.

    When it returns, they have left, and their memory is returned: that precedes the delivery of the last log record.
    """
    with companion(CROWD, port, str(Path(__file__).parents[1])) as crowd:
        assert crowd.stdout.readline() == "here\n"
        memory = resident_kib(server.pid)
    assert server.stdout.readline() == "all have left\n"
    return memory


@contextmanager
def companion(program: str, *arguments: str) -> Iterator[Any]:
    """A program in an interpreter of its own, which ends when it reads a line."""
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
        process.communicate("go\n", PATIENCE)
    finally:
        process.kill()
        process.communicate()


def test_core_does_not_name_python_api() -> None:
    root = Path(__file__).parents[2] / "src"
    files = [file for file in root.rglob("*.rs") if "bindings" not in file.parts and file.name != "bindings.rs"]
    assert len(files) > 10
    assert [file for file in files if "pyo3" in file.read_text()] == []
    attaching = [f for f in (root / "bindings").rglob("*.rs") if "Python::attach" in f.read_text()]
    assert attaching == []
