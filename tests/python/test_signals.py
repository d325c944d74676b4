"""Signals that stop `serve`, and output that cannot be written."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cuttlefish_signaling.cli.process import SAME_REQUEST, Interrupted, StopSignals

import raw
from peers import PATIENCE
from test_cli import ENVIRONMENT, serve

STOPS = (signal.SIGINT, signal.SIGTERM)
SERVE = (sys.executable, "-m", "cuttlefish_signaling", "serve", "--no-tls", "--port", "0")


@pytest.fixture
def signals() -> Iterator[StopSignals]:
    taken = StopSignals()
    taken.take()
    yield taken
    taken.restore()
    taken.close()


@pytest.mark.parametrize("second", STOPS)
@pytest.mark.parametrize("first", STOPS)
def test_signal_is_part_of_first_for_a_second_and_then_ends_at_once(
    signals: StopSignals, first: int, second: int
) -> None:
    assert not signals.on_signal(signal.SIGWINCH, 0.0)
    assert signals.first is None
    assert not signals.on_signal(first, 100.0)
    assert signals.wait() == signal.Signals(first).name
    assert not signals.on_signal(second, 100.0)
    assert not signals.on_signal(second, 100.0 + SAME_REQUEST)
    assert not signals.on_signal(signal.SIGWINCH, 200.0)
    assert signals.on_signal(second, 100.5 + SAME_REQUEST)
    assert signals.wait() == signal.Signals(first).name


def test_handlers_are_restored() -> None:
    before = [signal.getsignal(number) for number in STOPS]
    taken = StopSignals()
    taken.take()
    assert [signal.getsignal(number) for number in STOPS] != before
    taken.restore()
    taken.close()
    assert [signal.getsignal(number) for number in STOPS] == before
    assert signal.set_wakeup_fd(-1) == -1


@contextmanager
def processes(count: int, preexec: Callable[[], object] | None = None) -> Iterator[list[Any]]:
    """So many servers, which start and end side by side: each is slowed by the others."""
    found = [
        subprocess.Popen(
            SERVE, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=preexec
        )
        for _ in range(count)
    ]
    try:
        for process in found:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("devices: ")
        yield found
    finally:
        for process in found:
            process.kill()
            process.communicate()


def test_stop_signals_in_any_order_end_with_status_0() -> None:
    orders = [(first, second) for first in STOPS for second in STOPS]
    with processes(len(orders)) as servers:
        for process, order in zip(servers, orders, strict=True):
            for number in order:
                process.send_signal(number)
        ends = [(process.communicate(timeout=PATIENCE)[1], process.returncode) for process in servers]
    for (log, status), order in zip(ends, orders, strict=True):
        assert status == 0, (order, log)
        assert "Traceback" not in log, order


def test_stop_signals_in_a_freeze_end_with_status_0() -> None:
    with processes(1) as (process,):
        for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
            process.send_signal(number)
        assert process.wait(PATIENCE) == 0


def test_signals_that_a_supervisor_has_blocked_are_taken() -> None:
    with processes(1, lambda: signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)) as (process,):
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def test_process_1_takes_signals() -> None:
    """The kernel ignores signals to process 1 that have their default action."""
    unshare = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("needs util-linux's unshare and the right to make a PID namespace")
    # Without the end at once this one would take 10 s, the time for closing handshakes.
    code = "import os, cuttlefish_signaling.cli.process as p; assert os.getpid() == 1; p.SAME_REQUEST = 0"
    run = (
        *unshare,
        sys.executable,
        "-c",
        f"{code}; from cuttlefish_signaling.cli import main; raise SystemExit(main())",
    )
    with serve("--no-tls", program=run) as served, raw.Raw(served.port, "/register_device"):
        with open(f"/proc/{served.process.pid}/task/{served.process.pid}/children") as file:
            child = int(file.read())
        assert served.process.stderr is not None
        os.kill(child, signal.SIGTERM)
        while "stopping" not in (line := served.process.stderr.readline()):
            assert line, "it has not stopped"
        os.kill(child, signal.SIGTERM)
        assert "SIGTERM after SIGTERM: ends at once" in served.process.communicate(timeout=PATIENCE)[1]
        assert served.process.returncode == 0


def test_ignored_sighup_stays_ignored() -> None:
    with processes(1, lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as (process,):
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("clients: ").strip()
        process.send_signal(signal.SIGHUP)
        health = url.replace("ws:", "http:").replace("/connect_client", "/healthz")
        with urllib.request.urlopen(health, timeout=PATIENCE) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        assert "stopping: SIGTERM" in process.communicate(timeout=PATIENCE)[1]
        assert process.returncode == 0


HOOKS = """
import multiprocessing, os, signal

signal.set_wakeup_fd(-1)  # As an event loop does when it is closed.
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGHUP, lambda *_: os.write(2, b"read anew\\n"))


def authorize(request):
    child = multiprocessing.get_context("fork").Process(target=signal.pause)
    child.start()
    child.terminate()
    child.join()
    os.write(2, b"child ended with %d\\n" % child.exitcode)
"""


def test_hooks_keep_their_own_signals(tmp_path: Path) -> None:
    """A handler of SIGHUP, processes that hooks start and end, and what they change while they are loaded."""
    hooks = tmp_path / "hooks.py"
    hooks.write_text(HOOKS)
    with serve("--no-tls", "--hooks", str(hooks)) as served:
        assert served.process.stderr is not None
        raw.connect(served.port, "absent")
        lines = iter(served.process.stderr.readline, "")
        assert f"child ended with -{int(signal.SIGTERM)}\n" in lines
        served.process.send_signal(signal.SIGHUP)
        assert "read anew\n" in lines
        status, log = served.ends()
    assert status == 0
    assert "stopping: SIGTERM" in log


def full_pipe() -> int:
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    try:
        while os.write(sender, bytes(4096)):
            pass
    except BlockingIOError:
        pass
    os.set_blocking(sender, True)
    os.set_inheritable(receiver, True)  # The server holds the other end: it stays open, and is not read.
    return sender


def broken_pipe() -> int:
    receiver, sender = os.pipe()
    os.close(receiver)
    return sender


@pytest.mark.parametrize(
    ("stdout", "reason"),
    [
        (full_pipe, "its pipe is full and is not read"),
        (broken_pipe, "Broken pipe"),
        (lambda: os.open("/dev/full", os.O_WRONLY), "No space left on device"),
        (None, None),
    ],
)
def test_stdout_that_takes_nothing_does_not_end_serve(
    stdout: Callable[[], int] | None, reason: str | None, tmp_path: Path
) -> None:
    path = str(tmp_path / "notify")
    descriptor = stdout() if stdout else None
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        systemd.settimeout(PATIENCE)
        process = subprocess.Popen(
            SERVE,
            env={**ENVIRONMENT, "NOTIFY_SOCKET": path},
            stdout=descriptor,
            stderr=subprocess.PIPE,
            text=True,
            close_fds=False,
            preexec_fn=None if stdout else lambda: os.close(1),
        )
        try:
            assert systemd.recv(100) == b"READY=1"
            assert os.path.exists(f"/proc/{process.pid}/fd/1")
            assert not os.readlink(f"/proc/{process.pid}/fd/1").startswith("socket:")
            process.terminate()
            _, log = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            process.communicate()
            if descriptor is not None:
                os.close(descriptor)
    assert process.returncode == 0, log
    assert "Traceback" not in log
    assert ("the URLs cannot be written to stdout" in log) == (reason is not None)
    assert reason is None or reason in log


@pytest.mark.parametrize("arguments", [("serve", "--dry-run", "--port", "0"), ("serve", "--print-ca")])
def test_answer_that_cannot_be_written_is_error(arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "cuttlefish_signaling", *arguments],
            env=ENVIRONMENT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert ran.returncode == 1
    assert ran.stderr.endswith("cuttlefish-signaling: error: cannot write to stdout: No space left on device\n")


def test_signal_whose_handler_comes_before_the_thread_has_noted_it_is_not_lost() -> None:
    taken = StopSignals()
    try:
        taken.interrupt()
        assert taken.first is None
        with pytest.raises(Interrupted), taken.interruptible():
            pytest.fail("the wait has begun")
    finally:
        taken.restore()
        taken.close()
