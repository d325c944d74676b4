"""Exits, signals, forks and subinterpreters."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import textwrap

import pytest

from cuttlefish_signaling import ForkedError, SignalingServer

from peers import PATIENCE, interruptible


def script(body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python code in a process of its own."""
    program = [sys.executable, "-X", "dev", "-W", "ignore", "-c", textwrap.dedent(body), *arguments]
    return subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)


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


@pytest.mark.parametrize("cluster", ["None", "Cluster('redis://127.0.0.1:1', node='a')"])
def test_forked_child_gets_error_and_parent_continues(cluster: str) -> None:
    body = """
    import os, sys
    from cuttlefish_signaling import Cluster, ForkedError, SignalingServer
    server = SignalingServer(cluster=CLUSTER).start()
    child = os.fork()
    if child == 0:
        asks = (server.devices, server.nodes, lambda: server.port, lambda: server.wait_for_device("x"), server.stop)
        for ask in asks:
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
    done = script(body.replace("CLUSTER", cluster, 1))
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
