"""SIGHUP: `serve` reads its settings and their files again."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from cuttlefish_signaling.cli.hooks import load_hooks
from cuttlefish_signaling.errors import ConfigError

import raw
from peers import PATIENCE, unverified_context
from test_cli import ENVIRONMENT, serve
from test_renewed_certificate import Files, shown


def line(served: Any, words: str) -> str:
    """The next line of the log with these words."""
    assert served.process.stderr is not None
    for text in iter(served.process.stderr.readline, ""):
        if words in text:
            return str(text)
    raise AssertionError(f"the server has ended without {words!r}")


def hang_up(served: Any) -> str:
    """Sends SIGHUP and returns the line about the reload."""
    served.process.send_signal(signal.SIGHUP)
    return line(served, "reloaded")


def status(port: int, token: str | None = None, host: str = "127.0.0.1") -> int:
    headers = {"Host": host} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(f"https://127.0.0.1:{port}/devices", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE, context=unverified_context()) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


HOOKS = """
from cuttlefish_signaling import Refused

def authorize(ctx):
    if ctx.headers.get("authorization") != "Bearer {token}":
        raise Refused("no", status=401)
"""


def test_files_are_read_again_and_one_line_tells_what_has_changed(tmp_path: Path) -> None:
    config, tokens, files = tmp_path / "server.toml", tmp_path / "tokens", Files(tmp_path)
    config.write_text(f'token_file = "{tokens}"\ntls_cert = "{files.certificate}"\ntls_key = "{files.key}"\n')
    tokens.write_text("one\n")
    with serve("--config", str(config)) as served:
        port = served.port
        assert [status(port, token) for token in ("one", "two")] == [200, 401]
        old = shown(port)
        assert hang_up(served).endswith("reloaded: nothing has changed\n")
        tokens.write_text("two\n")
        files.renew()
        config.write_text(config.read_text() + 'allow_host = ["lab"]\nworkers = 3\n[limits]\nmax_devices = 7\n')
        told = hang_up(served)
        assert re.search(r"reloaded: tls, authorize, allowed_hosts, limits\.max_devices; a restart is needed for", told)
        assert f"{config}, line 5: workers, which stay as they are" in told
        assert [status(port, token) for token in ("one", "two")] == [401, 200]
        assert status(port, "two", "lab") == 200
        assert shown(port) != old
        assert served.ends()[0] == 0


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda at: (at / "server.toml").write_text("prot = 1\n"), r"server\.toml, line 1: prot: unknown key 'prot'"),
        (lambda at: (at / "server.toml").write_text("= 1\n"), r"--config: cannot read .*server\.toml"),
        (lambda at: (at / "server.toml").write_text("hook_timeout = 0\n"), r"server\.toml, line 1: hook_timeout"),
        (lambda at: (at / "server.toml").unlink(), r"--config: cannot read .*No such file"),
        (lambda at: (at / "hooks.py").write_text("x = 1\n1 / 0\n"), r"--hooks: cannot load .*line 2\): ZeroDivision"),
        (lambda at: (at / "hooks.py").write_text("def f(:\n"), r"--hooks: cannot load .*SyntaxError.*line 1"),
        (lambda at: (at / "hooks.py").write_text("raise SystemExit(3)\n"), r"--hooks: cannot load .*SystemExit: 3"),
        (lambda at: (at / "hooks.py").unlink(), r"--hooks: cannot load .*No such file"),
        (lambda at: (at / "secret").unlink(), r"--turn-secret-file: cannot read .*secret"),
        (lambda at: (at / "cert.pem").write_text("x"), r"--tls-cert, --tls-key: .*cert\.pem"),
        (lambda at: (at / "key.pem").unlink(), r"private key .*key\.pem"),
    ],
)
def test_faulty_configuration_is_refused_whole(change: Any, error: str, tmp_path: Path) -> None:
    config, hooks, files = tmp_path / "server.toml", tmp_path / "hooks.py", Files(tmp_path)
    config.write_text('allow_host = ["old"]\n')
    hooks.write_text(HOOKS.format(token="old"))
    (tmp_path / "secret").write_text("s\n")
    arguments = ["--config", str(config), "--hooks", str(hooks), "--turn", "turn:lab", "--turn-secret-file"]
    certificate = ["--tls-cert", str(files.certificate), "--tls-key", str(files.key)]
    with serve(*arguments, str(tmp_path / "secret"), *certificate) as served:
        config.write_text('allow_host = ["new"]\n')
        hooks.write_text(HOOKS.format(token="new"))
        change(tmp_path)
        told = hang_up(served)
        assert "not reloaded, all settings stay" in told
        assert re.search(error, told), told
        assert [status(served.port, "old", host) for host in ("old", "new")] == [200, 403]
        assert status(served.port, "new") == 401
        code, log = served.ends()
        assert (code, "Traceback" in log) == (0, False)


def test_hooks_are_loaded_anew_and_a_failed_load_leaves_no_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "farm_hooks").mkdir()
    for number in range(2):
        # The same size within the same second: bytecode of the first would count as current.
        (tmp_path / "one.py").write_text(f"def authorize(ctx): return {number}")
        (tmp_path / "farm_hooks" / "__init__.py").write_text("from .part import authorize")
        (tmp_path / "farm_hooks" / "part.py").write_text(f"def authorize(ctx): return {number}    ")
        for target in ("one.py", "one", str(tmp_path / "one.py")):
            assert load_hooks(target)["authorize"](None) == number, target
    before = {name: module for name, module in sys.modules.items() if name.startswith(("one", "cuttlefish_signaling_"))}
    assert len(before) == 2
    (tmp_path / "one.py").write_text("def authorize(ctx): return 9\nraise KeyboardInterrupt")
    for target in ("one.py", "one"):
        with pytest.raises(KeyboardInterrupt):
            load_hooks(target)
    (tmp_path / "one.py").write_text("1 / 0")
    for target in ("one.py", "one"):
        with pytest.raises(ConfigError, match=r"line 1\): ZeroDivisionError"):
            load_hooks(target)
    assert {name: sys.modules.get(name) for name in before} == before


# Signals --------------------------------------------------------------------------------------------------------------


def test_storm_of_reloads_then_stop_ends_with_status_0() -> None:
    for turn in range(3):
        with serve("--no-tls") as served:
            for _ in range(50):
                served.process.send_signal(signal.SIGHUP)
            if turn:
                line(served, "reloaded")
            for _ in range(20):
                served.process.send_signal(signal.SIGHUP)
            code, log = served.ends()
            assert code == 0, log
            assert "stopping: SIGTERM" in log and "Traceback" not in log


def test_signal_during_the_start_reloads_after_it(tmp_path: Path) -> None:
    hooks, path = tmp_path / "hooks.py", tmp_path / "notify"
    hooks.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGHUP)\nauthorize = lambda ctx: None\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        systemd.settimeout(PATIENCE)
        os.environ["NOTIFY_SOCKET"] = str(path)
        try:
            ENVIRONMENT["NOTIFY_SOCKET"] = str(path)
            with serve("--no-tls", "--hooks", str(hooks)) as served:
                assert systemd.recv(200) == b"READY=1"
                began = time.monotonic_ns() // 1000
                told = systemd.recv(200).decode()
                assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=[0-9]+", told)
                assert abs(int(told.partition("USEC=")[2]) - began) < PATIENCE * 1_000_000
                assert systemd.recv(200) == b"READY=1"
                hooks.write_text("authorize = 7\n")
                served.process.send_signal(signal.SIGHUP)
                while not systemd.recv(200).startswith(b"RELOADING=1"):
                    pass
                assert systemd.recv(200) == b"READY=1", "also after a reload that has failed"
                assert served.ends()[0] == 0
        finally:
            del ENVIRONMENT["NOTIFY_SOCKET"], os.environ["NOTIFY_SOCKET"]


def test_stop_signal_interrupts_hooks_that_take_forever_to_load(tmp_path: Path) -> None:
    hooks, mark = tmp_path / "hooks.py", tmp_path / "mark"
    hooks.write_text("authorize = lambda ctx: None\n")
    with serve("--no-tls", "--hooks", str(hooks)) as served:
        os.mkfifo(mark)
        # Not `signal.pause()`: a signal right before it would be handled after the next one only.
        hooks.write_text(f"open({str(mark)!r}, 'w').close()\nimport time\nwhile True: time.sleep(0.01)\n")
        served.process.send_signal(signal.SIGHUP)
        mark.read_text()
        raw.connect(served.port, "absent")
        code, log = served.ends()
        assert code == 0
        assert "not reloaded, since the server stops" in log and "stopping: SIGTERM" in log


def test_terminal_that_hangs_up_stops_the_server(tmp_path: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 2)
        command = [sys.executable, "-m", "cuttlefish_signaling", "serve", "--no-tls", "--port", "0"]
        os.execve(sys.executable, command, {**ENVIRONMENT})
    text = b""
    while b"listening" not in text:
        text += os.read(terminal, 1000)
    os.close(terminal)
    _, ended = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(ended) == 0
    assert "stopping: SIGHUP" in (tmp_path / "log").read_text()


def test_certificate_of_the_state_directory_stays_if_its_names_do(tmp_path: Path) -> None:
    config = tmp_path / "server.toml"
    config.write_text(f'state_dir = "{tmp_path}/state"\n')
    with serve("--config", str(config)) as served:
        config.write_text(f'state_dir = "{tmp_path}/state"\nallow_host = ["localhost"]\n')
        before = shown(served.port)
        assert "reloaded" in hang_up(served)
        assert shown(served.port) == before
        assert served.ends()[0] == 0
    done = subprocess.run(
        ["openssl", "x509", "-in", f"{tmp_path}/state/server.pem", "-noout", "-fingerprint", "-sha256"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert before in done.stdout
