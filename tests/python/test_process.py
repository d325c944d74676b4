"""The server in a process: threads, descriptors, memory, exits, signals, forks, and the GIL."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import multiprocessing
import os
import signal
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

from cuttlefish_signaling import ForkedError, SignalingServer

import raw
from peers import PATIENCE, assert_returns, interruptible, peers_of, wait_until


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


def script(body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python code in a process of its own."""
    program = [sys.executable, "-X", "dev", "-W", "ignore", "-c", textwrap.dedent(body), *arguments]
    return subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)


def resident_kib(process: int | str = "self") -> int:
    """Anonymous memory: pages of files are mapped when code runs first."""
    with open(f"/proc/{process}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))


def test_1000_start_stop_rounds_leak_nothing() -> None:
    with SignalingServer(workers=2) as server, peers_of(server) as peers:
        peers.device()
        peers.client()
    gc.collect()
    before, open_before = threads(), descriptors()
    ports, memory = [], []
    for number in range(1000):
        if number % 250 == 0:
            gc.collect()
            memory.append(resident_kib())
        with SignalingServer(workers=1 + number % 2) as server:
            ports.append(server.port)
            if number % 50 == 0:
                with peers_of(server) as peers:
                    peers.device()
                    peers.client()
    gc.collect()
    assert leaked_threads(before) == set()
    assert descriptors() == open_before
    # The last 500 rounds take less than a KiB each; a leak takes tens of KiB.
    assert resident_kib() - memory[2] < 500, [*memory, resident_kib()]
    for port in ports[-20:]:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_idle_server_has_one_thread() -> None:
    before = threads()
    with SignalingServer(), SignalingServer():
        assert len(threads() - before) == 2


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
        server = SignalingServer(ice_servers=hang, stop_timeout=0.2).start()
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


def test_garbage_collected_server_stops() -> None:
    before = threads()
    server = SignalingServer().start()
    port = server.port
    with pytest.warns(ResourceWarning, match="was not stopped"):
        del server
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert leaked_threads(before) == set()


EXITS = """
import os, sys, threading
from cuttlefish_signaling import SignalingServer
from websockets.sync.client import connect
import contextlib

way = sys.argv[1]

async def ice(ctx):
    return []

server = SignalingServer(ice_servers=ice, filter_device_info=lambda info, ctx: info)
server.start()
stack = contextlib.ExitStack()
device = connect(server.device_url, close_timeout=0.1).__enter__()
device.send('{"message_type":"register","device_id":"cvd-1","device_info":{}}')
device.recv()
client = connect(server.client_url, close_timeout=0.1).__enter__()
client.send('{"message_type":"connect","device_id":"cvd-1"}')
client.recv(), client.recv()
if way == "end":
    pass
elif way == "sys.exit":
    sys.exit(3)
elif way == "exception":
    raise KeyError("mine")
elif way == "waiting thread":
    def wait():
        try:
            server.wait_for_device("never", timeout=None)
        except Exception:
            pass
    threading.Thread(target=wait, daemon=True).start()
elif way == "hanging hook":
    server.set_ice_servers(lambda ctx: threading.Event().wait())
"""


@pytest.mark.parametrize(
    ("way", "status"), [("end", 0), ("sys.exit", 3), ("exception", 1), ("waiting thread", 0), ("hanging hook", 0)]
)
def test_exit_without_stop_is_clean(way: str, status: int) -> None:
    """Ten exits for each of five ways."""
    running = [
        subprocess.Popen([sys.executable, "-c", EXITS, way], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(10)
    ]
    for process in running:
        try:
            _, errors = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        assert process.returncode == status, errors
        assert "Fatal" not in errors
        assert "panicked" not in errors
        assert ("KeyError: 'mine'" in errors) == (way == "exception")


@pytest.mark.parametrize(
    "wait",
    [
        "server.wait_for_device('never', timeout=None)",
        "server.wait_for_client(timeout=None)",
        "server.journal.expect('offer', timeout=None)",
        "asyncio.run(server.wait_for_device_async('never', timeout=None))",
        "server.serve_forever()",
    ],
)
def test_sigint_interrupts_each_wait(wait: str) -> None:
    body = f"""
    import asyncio, os, signal, sys
    from cuttlefish_signaling import SignalingServer
    server = SignalingServer(journal=True).start()
    print("waiting", flush=True)
    try:
        {wait}
    except KeyboardInterrupt:
        print("interrupted")
    else:
        print("returned")
    server.stop()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    while process.poll() is None:
        # A signal may come before the wait has begun: it is sent again until the process ends.
        process.send_signal(signal.SIGINT)
        try:
            process.wait(0.5)
        except subprocess.TimeoutExpired:
            continue
    output, errors = process.communicate(timeout=PATIENCE)
    if "serve_forever" in wait:
        assert output == "returned\n" or "KeyboardInterrupt" in errors, errors
    else:
        assert output == "interrupted\n" or "KeyboardInterrupt" in errors, errors


def test_forked_child_gets_error_and_parent_continues() -> None:
    body = """
    import os, sys
    from cuttlefish_signaling import ForkedError, SignalingServer
    server = SignalingServer().start()
    child = os.fork()
    if child == 0:
        for ask in (server.devices, lambda: server.port, lambda: server.wait_for_device("x"), server.stop):
            try:
                ask()
            except ForkedError as error:
                assert str(os.getppid()) in str(error)
            else:
                os._exit(9)
        assert not server.is_running
        assert "not running" in repr(server)
        with SignalingServer() as mine:
            assert mine.devices() == []
        sys.exit(7)     # A full exit, with atexit functions.
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7, status
    assert server.devices() == []
    server.stop()
    print("fine")
    """
    done = script(body)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


def in_child(server: SignalingServer, answer: object) -> None:
    try:
        server.devices()
    except ForkedError as error:
        answer.put(str(error))  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_multiprocessing_fork_gets_forked_error(server: SignalingServer) -> None:
    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    child = context.Process(target=in_child, args=(server, answer))
    child.start()
    assert "this process is a fork of it" in answer.get(timeout=PATIENCE)
    child.join(PATIENCE)
    assert child.exitcode == 0
    assert server.devices() == []


def ask_for_a_server(answer: object) -> None:
    with SignalingServer() as mine:
        answer.put(mine.devices())  # type: ignore[attr-defined]


def test_multiprocessing_spawn_has_its_own_servers(server: SignalingServer) -> None:
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    with pytest.raises(TypeError, match=r"cannot be copied or sent to another process; send server\.url"):
        context.Process(target=in_child, args=(server, answer)).start()
    child = context.Process(target=ask_for_a_server, args=(answer,))
    child.start()
    assert answer.get(timeout=PATIENCE) == []
    child.join(PATIENCE)
    assert child.exitcode == 0


def test_import_in_subinterpreter_is_refused() -> None:
    body = """
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters
    import sys
    from cuttlefish_signaling import SignalingServer
    with SignalingServer() as server:
        sub = interpreters.create()
        interpreters.run_string(sub, sys.argv[1])
        interpreters.destroy(sub)
        assert server.devices() == []
    """
    refused = """
    try:
        from cuttlefish_signaling import SignalingServer
    except ImportError as error:
        print(error, flush=True)
    """
    done = script(body, textwrap.dedent(refused))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cuttlefish_signaling cannot be used in a subinterpreter: use it in the main")


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
from cuttlefish_signaling import SignalingServer

with SignalingServer() as server:
    print(server.port, flush=True)
    input()
"""


def test_memory_is_returned_after_disconnects() -> None:
    with companion(SERVER) as server:  # A process of its own: memory that other tests have freed would hide the growth.
        port = server.stdout.readline().strip()
        before = resident_kib(server.pid)
        with companion(CROWD, port, str(Path(__file__).parents[1])) as crowd:
            assert crowd.stdout.readline() == "here\n"
            grown = resident_kib(server.pid) - before
            assert grown > 2_000, "900 devices take some memory"
        wait_until(lambda: resident_kib(server.pid) - before < grown / 2)


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
