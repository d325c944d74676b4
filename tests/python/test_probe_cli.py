"""`cuttlefish-signaling probe`: output, exit status, files, Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from ports import free_port

from cuttlefish_signaling import SignalingServer, StaticTokens
from cuttlefish_signaling.cli import main
from cuttlefish_signaling.probe import EXIT_STATUS

from peers import PATIENCE, interruptible
from test_cli import ENVIRONMENT

TIMEOUT = f"--timeout={PATIENCE:g}"


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUTTLEFISH_SIGNALING_CA", raising=False)


@pytest.fixture
def closed_port() -> int:
    return free_port()


def test_text_has_a_line_for_each_stage(server: SignalingServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", server.url, TIMEOUT]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert [line.split()[0] for line in output.out.splitlines() if line[0] != " "] == [
        *("dns", "tcp", "http", "websocket", "ping", "devices", "all")
    ]


def test_failure_is_told_with_the_fix_and_the_status(closed_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", f"ws://127.0.0.1:{closed_port}", TIMEOUT]) == EXIT_STATUS["tcp"] == 11
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("tcp        FAILED ")
    assert lines[2].strip() == f"port {closed_port} is closed: 127.0.0.1 (Connection refused)"
    assert lines[3].strip().startswith("-> start the server, or correct the port")
    assert lines[-1] == "failed at tcp: port_closed (exit status 11)"


def test_json(server: SignalingServer, closed_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", server.url, TIMEOUT, "--json", "--pings", "7"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True and report["cause"] is None and report["target"] == server.url.replace("http", "ws")
    assert len(report["steps"][4]["facts"]["seconds"]) == 7
    assert main(["probe", f"ws://127.0.0.1:{closed_port}", "--json"]) == 11
    report = json.loads(capsys.readouterr().out)
    assert (report["failed_stage"], report["cause"], report["exit_status"]) == ("tcp", "port_closed", 11)


def test_token_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    (tmp_path / "other").write_text("guess-it\n")
    with SignalingServer(authorize=StaticTokens({"s3cret": "alice"})) as server:
        assert main(["probe", server.url, TIMEOUT, "--token-file", str(tmp_path / "token")]) == 0
        assert main(["probe", server.url, TIMEOUT, "--token-file", str(tmp_path / "other")]) == EXIT_STATUS["websocket"]
        assert main(["probe", server.url, TIMEOUT]) == EXIT_STATUS["websocket"]
    output = capsys.readouterr()
    assert "wrong_token" in output.out and "token_missing" in output.out
    assert "s3cret" not in output.out + output.err and "guess-it" not in output.out + output.err


def test_prometheus_file_is_replaced_whole(server: SignalingServer, closed_port: int, tmp_path: Path) -> None:
    path = tmp_path / "signaling.prom"
    path.write_text("old")
    reader = path.open()
    assert main(["probe", server.url, TIMEOUT, "--prometheus", str(path)]) == 0
    assert reader.read() == "old", "the file was written in place: a collector reads a part of it"
    reader.close()
    assert "cuttlefish_signaling_probe_success{" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o644
    assert main(["probe", f"ws://127.0.0.1:{closed_port}", TIMEOUT, "--prometheus", str(path)]) == 11
    assert f'probe_success{{target="ws://127.0.0.1:{closed_port}"}} 0' in path.read_text()
    assert os.listdir(tmp_path) == ["signaling.prom"]


def test_prometheus_file_that_cannot_be_written(
    server: SignalingServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["probe", server.url, TIMEOUT, "--prometheus", str(tmp_path / "no" / "x.prom")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("cuttlefish-signaling: error: --prometheus: cannot write ") and "No such file" in error
    (tmp_path / "folder.prom").mkdir()
    assert main(["probe", server.url, TIMEOUT, "--prometheus", str(tmp_path / "folder.prom")]) == 1
    assert os.listdir(tmp_path) == ["folder.prom"], "the temporary file is left"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["nonsense"], "URL: 'nonsense' is not one; write ws://HOST:PORT"),
        (["ws://x?token=s3cret"], "URL: has a user, a query or a fragment; write it without, and give --token-file"),
        (["ws://x", "--timeout", "0"], "--timeout: '0' is not a number of seconds, more than 0, at most 3600"),
        (["ws://x", "--timeout", "ice=inf"], "--timeout: 'ice=inf' is not a number of seconds"),
        (["ws://x", "--timeout", "icy=3"], "--timeout: there is no stage 'icy'; there are dns, tcp"),
        (["ws://x", "--pings", "0"], "--pings: '0' is not a whole number from 1 to 1000"),
        (["ws://x", "--seconds", "0"], "--seconds: '0' is not a number, more than 0, at most 3600"),
        (["ws://x", "--max-loss", "101"], "--max-loss: '101' is not a number, from 0 to 100"),
        (["wss://x", "--ca", "/nowhere"], "--ca: cannot use /nowhere: No such file or directory"),
        (["ws://x", "--token-file", "/nowhere"], "--token-file: cannot read /nowhere: No such file or directory"),
        (["ws://x", "--turn-username", "a"], "--turn-server: is missing"),
        (["ws://x", "--turn-server", "turn:a", "--turn-username", "a"], "--turn-username: and --turn-credential-file"),
        (["ws://x", "--turn-server", "nonsense", "--turn-secret-file", __file__], "--turn-secret-file: "),
    ],
)
def test_wrong_usage(arguments: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(["probe", *arguments])
    except SystemExit as end:
        status = int(end.code or 0)
    error = capsys.readouterr().err
    assert status == 2 and error.count("\n") == 1
    assert error.startswith(f"cuttlefish-signaling: error: {what}"), error


def test_commands_of_the_guide_and_of_the_help_parse() -> None:
    from cuttlefish_signaling.cli import parser
    from cuttlefish_signaling.cli.probe_flags import EXAMPLES

    guide = (Path(__file__).parents[2] / "docs" / "probe.md").read_text(encoding="utf-8")
    lines = re.findall(r"^ *cuttlefish-signaling (probe (?!--help).*)$", guide + EXAMPLES, re.MULTILINE)
    assert len(lines) >= 8
    for line in lines:
        parser().parse_args(line.split())


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [("websockets", [], "probe"), ("aiortc", ["cvd-1"], "aiortc"), ("aiortc", ["--turn"], "aiortc")],
)
def test_missing_extra_is_named(
    package: str,
    arguments: list[str],
    extra: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["probe", "ws://127.0.0.1:1", *arguments]) == 2
    assert f"needs {package}: pip install 'cuttlefish-signaling[{extra}]'" in capsys.readouterr().err


def program(url: str, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cuttlefish_signaling", "probe", url, "--timeout", "3600"],
        text=True,
        env=ENVIRONMENT,
        preexec_fn=interruptible,
        stdout=stdout,
        stderr=stderr,
    )


def test_ctrl_c_ends_it_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = program(f"ws://127.0.0.1:{silent.getsockname()[1]}")
        assert process.stdout is not None
        assert process.stdout.readline().startswith("dns ") and process.stdout.readline().startswith("tcp ")
        silent.accept()  # That of `tcp`; the second one is that of `http`.
        silent.accept()
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert error == "cuttlefish-signaling: interrupted at http\n"
    assert out == ""


def test_terminal_shows_the_stage_that_runs() -> None:
    master, slave = pty.openpty()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = program(f"ws://127.0.0.1:{silent.getsockname()[1]}", stderr=slave)
        os.close(slave)
        seen = b""
        while b"http ... (at most 3600 s)" not in seen:
            seen += os.read(master, 1024)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
    os.close(master)
    assert b"\r\x1b[Ktcp ... (at most 3600 s)\r\x1b[K" in seen


def test_stdout_that_is_closed_is_an_error(server: SignalingServer) -> None:
    read, write = os.pipe()
    os.close(read)
    process = program(server.url, stdout=write)
    os.close(write)
    _, error = process.communicate(timeout=PATIENCE)
    assert (process.returncode, error) == (1, "cuttlefish-signaling: error: cannot write to stdout: Broken pipe\n")
