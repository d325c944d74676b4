"""Socket activation: `LISTEN_FDS`, by the tests' own service manager and by `systemd-socket-activate`."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ports import free_port

from cuttlefish_signaling import ConfigError, SignalingServer
from cuttlefish_signaling.cli.activation import VARIABLES, Inherited, take_sockets

from activation import end, launch, listening
from http_requests import request
from peers import PATIENCE, SeqpacketPeer, unverified_context, wait_until
from test_cli import ENVIRONMENT

REGISTER = {"message_type": "register", "device_id": "cvd-1", "device_info": {}}
REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def ask(address: Any, context: ssl.SSLContext | None = None) -> str:
    """Sends a request on a connection of its own. Returns the first line of the answer."""
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as plain:
        plain.settimeout(PATIENCE)
        plain.connect(address)
        secure = context.wrap_socket(plain) if context else plain
        with secure:
            secure.sendall(REQUEST)
            return secure.recv(1 << 16).decode().partition("\r\n")[0]


# The sockets of the command line --------------------------------------------------------------------------------------


def test_stream_sockets_are_the_listeners_where_no_address_is_given(tmp_path: Path) -> None:
    path = str(tmp_path / "http")
    with listening() as first, listening() as second, listening(path) as unix:
        process = launch([first.fileno(), second.fileno(), unix.fileno()], "serve", "--no-tls")
        try:
            for address in (first.getsockname(), second.getsockname(), path):
                assert ask(address) == "HTTP/1.1 200 OK"
            status, output, log = end(process)
        finally:
            process.kill()
        assert status == 0, log
        for one in (first, second):
            assert f"listening: http://127.0.0.1:{one.getsockname()[1]}\n" in output
    assert f"listening: unix:{path}" in output
    assert os.path.exists(path), "the file belongs to the service manager"


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--listen", "https://127.0.0.1:{port}"], ""),
        (["--port", "{port}"], ""),
        (["--host", "127.0.0.1", "--port", "{port}"], ""),
        (["--listen", "https+fd:web"], "web"),
        (["--listen", "https+fd:3"], "web"),
        ([], ""),
    ],
)
def test_sockets_are_found_by_address_by_name_and_by_number(flags: list[str], names: str) -> None:
    with listening() as found:
        port = found.getsockname()[1]
        process = launch([found.fileno()], "serve", *(flag.format(port=port) for flag in flags), names=names)
        try:
            assert ask(("127.0.0.1", port), unverified_context()) == "HTTP/1.1 200 OK"
            status, output, log = end(process)
        finally:
            process.kill()
    assert status == 0, log
    assert f"listening: https://127.0.0.1:{port}\n" in output


@pytest.mark.parametrize("names", ["device-socket:control-socket", "by:path"])
def test_local_sockets_are_found_by_name_and_by_path(tmp_path: Path, names: str) -> None:
    devices, control = tmp_path / "operator", tmp_path / "control"
    flags = ["--device-socket", str(devices), "--control-socket", str(control)] if names == "by:path" else []
    with listening(str(devices), socket.SOCK_SEQPACKET) as one, listening(str(control), socket.SOCK_SEQPACKET) as two:
        process = launch([one.fileno(), two.fileno()], "serve", "--no-tls", "--port", "0", *flags, names=names)
        try:
            device = SeqpacketPeer(devices)
            device.send(REGISTER)
            assert device.receive()["message_type"] == "config"
            caller = SeqpacketPeer(control)
            caller.send({"message_type": "pre-register", "group_name": "g", "devices": [{"device_id": "cvd-2"}]})
            assert caller.receive()
            status, _, log = end(process)
            assert device.receive() is None
        finally:
            process.kill()
    assert status == 0, log
    assert devices.exists() and control.exists()


@pytest.mark.parametrize(
    ("kind", "flags", "error"),
    [
        ("tcp", ["--port", "1"], r"descriptor 3 (web): listens on 127.0.0.1:"),
        ("tcp", ["--listen", "http+fd:other"], "--listen: 'http+fd:other': systemd has passed no socket of this name"),
        ("unix", ["--listen", "https+fd:web"], "is a Unix socket, which has no TLS: http+fd:web"),
        ("seqpacket", ["--listen", "http+fd:web"], "is no stream socket"),
        ("seqpacket", ["--port", "0"], "listens on "),
        ("udp", ["--port", "0"], "has another type than SOCK_STREAM and SOCK_SEQPACKET"),
        ("connected", ["--port", "0"], "does not listen: systemd passes a connection where the socket unit has Accept"),
        ("file", ["--port", "0"], "descriptor 3 (web): is no socket that can be used"),
        ("twice", ["--no-tls"], "LISTEN_FDS: http://127.0.0.1:"),
    ],
)
def test_sockets_that_cannot_be_used_are_told(tmp_path: Path, kind: str, flags: list[str], error: str) -> None:
    path = str(tmp_path / "socket")
    tcp = listening()
    makers: dict[str, Callable[[], list[Any]]] = {
        "tcp": lambda: [tcp],
        "unix": lambda: [listening(path)],
        "seqpacket": lambda: [listening(path, socket.SOCK_SEQPACKET)],
        "udp": lambda: [socket.socket(socket.AF_INET, socket.SOCK_DGRAM)],
        "connected": lambda: [socket.socketpair()[0]],
        "file": lambda: [open(os.devnull)],
        "twice": lambda: [tcp, tcp.dup()],
    }
    found = [*makers[kind](), tcp]
    names = ":".join(["web"] * (len(found) - 1))
    process = launch([one.fileno() for one in found[:-1]], "serve", *flags, names=names)
    try:
        output, log = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        for one in found:
            one.close()
    assert process.returncode == 2, (output, log)
    *first, last = log.splitlines()
    assert error in last and all(" starts on " in record for record in first), log


@pytest.mark.parametrize(
    ("variables", "error"),
    [
        ({"LISTEN_FDS": "x"}, "LISTEN_FDS: 'x' is not a number of sockets from 0 to 1024"),
        ({"LISTEN_FDS": "9999"}, "LISTEN_FDS: '9999' is not a number"),
        ({"LISTEN_FDS": "2", "LISTEN_FDNAMES": "web"}, "LISTEN_FDNAMES: has 1 names for 2 sockets"),
        ({"LISTEN_FDS": "1000"}, "LISTEN_FDS: descriptor "),
    ],
)
def test_wrong_variables_are_refused(variables: dict[str, str], error: str) -> None:
    environment = {"LISTEN_PID": str(os.getpid()), "OTHER": "kept", **variables}
    # A process that opens no descriptor of the tests.
    program = (
        "import os, sys; from cuttlefish_signaling.cli import activation; os.environ['LISTEN_PID'] = str(os.getpid())"
    )
    program += "; activation.take_sockets(os.environ)"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**ENVIRONMENT, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert error in done.stderr.splitlines()[-1]


def test_sockets_of_another_process_are_left_alone() -> None:
    environment = {"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "web", "OTHER": "kept"}
    found, notices = take_sockets(environment)
    assert found == []
    assert notices == [f"LISTEN_FDS is for process 1 and has no effect: this process is {os.getpid()}"]
    assert environment == {"OTHER": "kept"}
    assert take_sockets({"LISTEN_PID": str(os.getpid())}) == ([], [])


def test_programs_that_the_server_starts_get_no_socket(tmp_path: Path) -> None:
    hooks = "import os, subprocess\n"
    hooks += "seen = subprocess.run('ls -l /proc/self/fd; env', shell=True, close_fds=False, capture_output=True)\n"
    hooks += "def authorize(ctx): print(seen.stdout.decode().replace('\\n', ';'), flush=True)\n"
    (tmp_path / "hooks.py").write_text(hooks)
    with listening() as found:
        inode = os.readlink(f"/proc/self/fd/{found.fileno()}")
        process = launch([found.fileno()], "serve", "--no-tls", "--hooks", str(tmp_path / "hooks.py"))
        try:
            with socket.create_connection(found.getsockname(), PATIENCE) as peer:
                peer.sendall(REQUEST.replace(b"/healthz", b"/devices"))
                assert peer.recv(15) == b"HTTP/1.1 200 OK"
            _, output, log = end(process)
        finally:
            process.kill()
    (seen,) = [line for line in output.splitlines() if "PATH=" in line]
    assert inode not in seen, log
    assert not any(f"{name}=" in seen for name in VARIABLES)


def test_systemd_socket_activate_starts_the_server_with_the_first_connection() -> None:
    program = shutil.which("systemd-socket-activate")
    assert program, "systemd-socket-activate is missing: apt-get install systemd"
    port = free_port()
    command = Path(sys.executable).with_name("cuttlefish-signaling")
    process = subprocess.Popen(
        [program, "-l", f"127.0.0.1:{port}", "--fdname=web", command, "serve", "--listen", "http+fd:web"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert "Listening on" in process.stderr.readline()
        assert ask(("127.0.0.1", port)) == "HTTP/1.1 200 OK"
        status, output, log = end(process)
    finally:
        process.kill()
    assert status == 0, log
    assert f"listening: http://127.0.0.1:{port}\n" in output


def test_systemd_socket_activate_passes_the_device_socket(tmp_path: Path) -> None:
    program = shutil.which("systemd-socket-activate")
    assert program, "systemd-socket-activate is missing: apt-get install systemd"
    path, command = tmp_path / "operator", Path(sys.executable).with_name("cuttlefish-signaling")
    flags = ("serve", "--no-tls", "--port", "0", "--device-socket", str(path))
    process = subprocess.Popen(
        [program, "--seqpacket", "-l", str(path), command, *flags],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(path.exists)
        device = SeqpacketPeer(path)
        device.send(REGISTER)
        assert device.receive()["message_type"] == "config"
        assert end(process)[0] == 0
    finally:
        process.kill()


# An upgrade -----------------------------------------------------------------------------------------------------------


class Caller:
    """Dials all the time, and counts the outcomes."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext | None) -> None:
        self.outcomes: Counter[str] = Counter()
        self._address, self._context = address, context
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._dial, daemon=True)
        self._thread.start()

    def _dial(self) -> None:
        while not self._over.is_set():
            try:
                self.outcomes[ask(self._address, self._context) or "closed without an answer"] += 1
            except OSError as error:
                self.outcomes[repr(error)] += 1

    def end(self) -> None:
        self._over.set()
        self._thread.join(PATIENCE)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_upgrade_refuses_no_connection_and_answers_each(scheme: str) -> None:
    """The old process stops, and a new one starts on the same socket, five times."""
    with listening() as found:
        context = unverified_context() if scheme == "https" else None
        command = ("serve", "--listen", f"{scheme}+fd:3", "--log-level", "warning")
        process = launch([found.fileno()], *command, names="web")
        callers = [Caller(found.getsockname(), context) for _ in range(2)]
        try:
            for _ in range(5):
                before = [sum(caller.outcomes.values()) for caller in callers]
                wait_until(lambda: all(sum(c.outcomes.values()) > n for c, n in zip(callers, before, strict=True)))  # noqa: B023
                status, _, log = end(process)
                assert status == 0, log
                process = launch([found.fileno()], *command, names="web")
                assert process.stdout is not None and process.stderr is not None
                assert process.stdout.readline()
            for caller in callers:
                caller.end()
            assert end(process)[0] == 0
        finally:
            process.kill()
    outcomes = sum((caller.outcomes for caller in callers), Counter[str]())
    assert list(outcomes) == ["HTTP/1.1 200 OK"], outcomes
    assert sum(outcomes.values()) >= 10


# Python ---------------------------------------------------------------------------------------------------------------


def test_server_takes_sockets_and_leaves_them_open(tmp_path: Path) -> None:
    with listening() as tcp, listening(str(tmp_path / "operator"), socket.SOCK_SEQPACKET) as devices:
        port = tcp.getsockname()[1]
        server = SignalingServer(port=port, device_socket=tmp_path / "operator", sockets=[tcp, devices.fileno()])
        for _ in range(2):
            with server:
                assert server.port == port
                assert request(server, "GET", "/healthz").status == 200
                device = SeqpacketPeer(tmp_path / "operator")
                device.send(REGISTER)
                assert device.receive()["message_type"] == "config"
                assert json.loads(request(server, "GET", "/devices").body)[0]["device_id"] == "cvd-1"
            assert tcp.getsockname() and devices.getsockname()


@pytest.mark.parametrize(
    ("sockets", "error"),
    [
        (3, "^sockets: must be a list of sockets, got 3"),
        ([True], r"^sockets\[0\]: must be a socket that is open, or its descriptor, got True"),
        (["x"], r"^sockets\[0\]: must be a socket"),
        ([-1], r"^sockets\[0\]: must be a socket"),
        ([socket.socket], r"^sockets\[0\]: must be a socket"),
    ],
)
def test_values_that_are_no_sockets_are_refused(sockets: Any, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        SignalingServer(sockets=sockets)


def test_closed_descriptor_is_refused() -> None:
    with listening() as found:
        server = SignalingServer(sockets=[found])
    with pytest.raises(ConfigError, match=r"^sockets\[0\]: [0-9]+ is not open|^sockets\[0\]: listens on"):
        server.start()


def test_errors_name_descriptor_and_name() -> None:
    assert str(Inherited(4, "web")) == "LISTEN_FDS: descriptor 4 (web)"
