"""systemd's watchdog: `WATCHDOG=1` tells that the runtime, the event thread and the hooks' event loop make progress."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cuttlefish_signaling import ConfigError
from cuttlefish_signaling.cli.systemd import watchdog_interval

from peers import PATIENCE, wait_until
from test_cli import ServeProcess, serve

BEAT, READY = b"WATCHDOG=1", b"READY=1"
PERIOD = 100_000
"""Microseconds of the watchdog. The server beats twice as often."""

HOOKS = """
import ctypes, os, socket, sys, time

def tell(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.sendto(text, os.environ["NOTIFY_SOCKET"])

def hold_the_interpreter():
    # The lock is held from before BEGIN: PyDLL keeps it in a call, and no other thread asks for it between two calls.
    holding = ctypes.PyDLL(None)
    interval = sys.getswitchinterval()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.connect(os.environ["NOTIFY_SOCKET"])
        sys.setswitchinterval(3600)
        holding.send(systemd.fileno(), b"BEGIN", 5, 0)
        holding.sleep(2)
        holding.send(systemd.fileno(), b"END", 3, 0)
        sys.setswitchinterval(interval)

def authorize(ctx):
    kind = ctx.query["kind"]
    if kind == "loop":
        return block_the_loop()
    if kind == "interpreter":
        return hold_the_interpreter()
    tell(b"BEGIN")
    time.sleep(2)
    tell(b"END")

async def block_the_loop():
    tell(b"BEGIN")
    time.sleep(2)
    tell(b"END")
"""


class Systemd:
    """The socket of a service manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(PATIENCE)

    def hears(self, text: bytes) -> int:
        """Waits for a message. Returns the number of beats before it."""
        beats = 0
        while (message := self.socket.recv(200)) != text:
            assert message == BEAT, message
            beats += 1
        return beats

    def beats_within(self, seconds: float) -> int:
        """The beats until none comes for so long."""
        beats = 0
        self.socket.settimeout(seconds)
        try:
            while beats < 1000:
                assert self.socket.recv(200) == BEAT
                beats += 1
        except TimeoutError:
            pass
        finally:
            self.socket.settimeout(PATIENCE)
        return beats


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    found = Systemd(tmp_path / "notify")
    yield found
    found.socket.close()


@contextmanager
def watched(systemd: Systemd, *flags: str, **variables: str) -> Iterator[ServeProcess]:
    environment = {"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": str(PERIOD), **variables}
    with serve("--no-tls", "--port", "0", *flags, environment=environment) as served:
        assert systemd.hears(READY) == 0
        yield served


def test_beats_come_until_the_server_stops(systemd: Systemd) -> None:
    with watched(systemd) as served:
        for _ in range(5):
            assert systemd.hears(BEAT) == 0
        assert served.ends()[0] == 0
        while (message := systemd.socket.recv(200)) == BEAT:
            pass
        assert message.startswith(b"STOPPING=1\n")


def test_there_is_no_beat_without_a_watchdog_for_this_process(systemd: Systemd) -> None:
    with watched(systemd, WATCHDOG_PID="1") as served:
        assert served.ends()[0] == 0
        assert systemd.socket.recv(200).startswith(b"STOPPING=1\n")


@pytest.mark.parametrize(
    ("kind", "least", "most"), [("interpreter", 0, 1), ("loop", 0, 1), ("thread", 2, 1000)], ids=["gil", "loop", "def"]
)
def test_hook_that_hangs_stops_beats_unless_it_has_a_thread_of_its_own(
    systemd: Systemd, tmp_path: Path, kind: str, least: int, most: int
) -> None:
    """One beat may be under way. A `def` hook keeps its own thread only, and `/readyz` tells it if all threads hang."""
    (tmp_path / "hooks.py").write_text(HOOKS)
    with watched(systemd, "--hooks", str(tmp_path / "hooks.py"), "--hook-timeout", "60") as served:
        systemd.hears(BEAT)
        with socket.create_connection(("127.0.0.1", served.port), PATIENCE) as peer:
            peer.sendall(f"GET /devices?kind={kind} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            systemd.hears(b"BEGIN")
            assert least <= systemd.hears(b"END") <= most
            assert peer.recv(15) == b"HTTP/1.1 200 OK"
        assert systemd.hears(BEAT) == 0


class Stopped:
    """Stops the threads of this name in another process, as a debugger does."""

    SEIZE, INTERRUPT, DETACH, ALL_THREADS = 0x4206, 0x4207, 17, 0x40000000

    def __init__(self, process: subprocess.Popen[str], name: str) -> None:
        tasks = Path(f"/proc/{process.pid}/task")

        self.threads: list[int] = []

        def listed() -> bool:
            self.threads = [int(task.name) for task in tasks.iterdir() if (task / "comm").read_text().strip() == name]
            return bool(self.threads)

        # The kernel may list fewer threads while one of them ends.
        wait_until(listed)
        self._ptrace = ctypes.CDLL(None, use_errno=True).ptrace
        self._ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]

    def _call(self, request: int, thread: int) -> None:
        if self._ptrace(request, thread, None, None) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def __enter__(self) -> None:
        for thread in self.threads:
            self._call(self.SEIZE, thread)
            self._call(self.INTERRUPT, thread)
            os.waitpid(thread, self.ALL_THREADS)

    def __exit__(self, *_: object) -> None:
        for thread in self.threads:
            self._call(self.DETACH, thread)


def test_runtime_without_progress_is_not_called_alive(systemd: Systemd) -> None:
    with watched(systemd) as served:
        systemd.hears(BEAT)
        with Stopped(served.process, "cuttlefish-signaling"[:15]):
            systemd.beats_within(0.5)  # Those under way.
            assert systemd.beats_within(1.5) == 0
        assert systemd.hears(BEAT) == 0
        assert served.ends()[0] == 0


def test_log_tells_the_threads_when_the_watchdog_aborts_the_server(systemd: Systemd) -> None:
    with watched(systemd) as served:
        systemd.hears(BEAT)
        status, log = served.ends(6)
    assert status == -6
    assert "Fatal Python error: Aborted" in log
    assert "process.py" in log, "the main thread waits for a signal"


@pytest.mark.parametrize(
    ("variables", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "own"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "9" * 19}, 1e9),
    ],
)
def test_interval_is_half_of_the_period(variables: dict[str, str], interval: float | None) -> None:
    own = {name: str(os.getpid()) if text == "own" else text for name, text in variables.items()}
    assert watchdog_interval(own) == interval


@pytest.mark.parametrize("text", ["0", "x", "-1", "1.5", "9" * 20])
def test_period_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="^WATCHDOG_USEC: .* is not a number of microseconds"):
        watchdog_interval({"WATCHDOG_USEC": text})
