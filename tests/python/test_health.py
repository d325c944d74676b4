"""`cuttlefish-signaling health`: exit status and line of output."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ports import free_port

from cuttlefish_signaling import Limits, SignalingServer, Tls
from cuttlefish_signaling.cli import main

from peers import PATIENCE, wait_until
from test_cli import ENVIRONMENT
from test_drain import HOUR, is_ready, stopping


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUTTLEFISH_SIGNALING_CA", raising=False)


def health(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Returns the status, and the one line of output."""
    status = main(["health", *arguments])
    output = capsys.readouterr()
    assert output.err == ""
    assert output.out.count("\n") == 1
    return status, output.out.strip()


def test_server_of_a_url_is_healthy(server: SignalingServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert health(capsys, "--url", server.url) == (0, f"healthy: {server.url}/healthz")
    assert health(capsys, "--url", f"{server.url}/", "--ready") == (0, f"healthy: {server.url}/readyz")
    assert health(capsys, "--url", f"{server.url}/devices") == (0, f"healthy: {server.url}/devices")


@pytest.mark.parametrize(
    ("flags", "scheme"),
    [
        (["--no-tls", "--port", "{port}"], "http"),
        (["--port", "{port}"], "https"),
        (["--host", "0.0.0.0", "--port", "{port}"], "https"),
        (["--listen", "unix:/nowhere", "--listen", "https://127.0.0.1:{port}"], "https"),
        (["--listen", "https+fd:web", "--listen", "http://127.0.0.1:{port}"], "http"),
    ],
)
def test_settings_tell_the_listener(capsys: pytest.CaptureFixture[str], flags: list[str], scheme: str) -> None:
    with SignalingServer(tls=Tls.self_signed() if scheme == "https" else None) as server:
        found = health(capsys, *(flag.format(port=server.port) for flag in flags))
        assert found == (0, f"healthy: {scheme}://127.0.0.1:{server.port}/healthz")


def test_environment_file_and_unix_socket_tell_the_listener(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "http"
    with SignalingServer(listen=["http://127.0.0.1:0", f"unix:{path}"]) as server:
        expected = (0, f"healthy: http://127.0.0.1:{server.port}/healthz")
        (tmp_path / "server.toml").write_text(f"no_tls = true\nport = {server.port}\n")
        assert health(capsys, "--config", str(tmp_path / "server.toml")) == expected
        (tmp_path / "defaults").write_text(f"operator_http_port={server.port}\n")
        assert health(capsys, "--operator", "--operator-defaults", str(tmp_path / "defaults")) == expected
        assert health(capsys, "--listen", f"unix:{path}") == (0, f"healthy: unix:{path} /healthz")
        assert health(capsys, "--url", f"unix:{path}", "--ready") == (0, f"healthy: unix:{path} /readyz")
        monkeypatch.setenv("CUTTLEFISH_SIGNALING_NO_TLS", "1")
        monkeypatch.setenv("CUTTLEFISH_SIGNALING_PORT", str(server.port))
        assert health(capsys) == expected


def test_listener_on_all_ipv6_addresses_is_asked_at_ipv6_or_ipv4(capsys: pytest.CaptureFixture[str]) -> None:
    with SignalingServer(host="0.0.0.0", allow_unauthenticated=True) as server:
        found = health(capsys, "--no-tls", "--host", "::", "--port", str(server.port), "--allow-unauthenticated")
        assert found == (0, f"healthy: http://[::1]:{server.port}/healthz")


def test_certificate_is_verified_with_ca_only_on_loopback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tls = Tls.self_signed()
    assert tls.certificate_pem
    (tmp_path / "ca.pem").write_text(tls.certificate_pem)
    other = Tls.self_signed()
    assert other.certificate_pem
    (tmp_path / "other.pem").write_text(other.certificate_pem)
    with SignalingServer(tls=tls) as server:
        assert health(capsys, "--url", server.url)[0] == 0
        assert health(capsys, "--url", server.url, "--ca", str(tmp_path / "ca.pem"))[0] == 0
        status, line = health(capsys, "--url", server.url, "--ca", str(tmp_path / "other.pem"))
        assert (
            status == 1
            and "its certificate is not trusted: " in line
            and line.endswith("--ca FILE names its authority")
        )
        monkeypatch.setenv("CUTTLEFISH_SIGNALING_CA", str(tmp_path / "other.pem"))
        assert health(capsys, "--url", server.url)[0] == 1
        status, line = health(capsys, "--url", server.url, "--ca", str(tmp_path / "missing"))
        assert status == 1 and line.endswith("missing cannot be used: No such file or directory")


def test_certificate_of_another_machine_is_verified(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with SignalingServer(tls=Tls.self_signed()) as server:
        connect = socket.create_connection
        monkeypatch.setattr(
            socket, "create_connection", lambda _, timeout: connect(("127.0.0.1", server.port), timeout)
        )
        status, line = health(capsys, "--url", "https://signal.lab:8443")
        assert status == 1 and "its certificate is not trusted" in line


def test_server_that_drains_is_healthy_and_not_ready(capsys: pytest.CaptureFixture[str]) -> None:
    with SignalingServer() as server:
        thread, _ = stopping(server, drain=HOUR)
        wait_until(lambda: not is_ready(server))
        assert health(capsys, "--url", server.url)[0] == 0
        status, line = health(capsys, "--url", server.url, "--ready")
        assert (status, line) == (1, f'unhealthy: {server.url}/readyz: answered 503: {{"error":"Server draining"}}')
        server.stop(drain=0)
        thread.join(PATIENCE)


def test_full_server_is_healthy_and_not_ready(capsys: pytest.CaptureFixture[str]) -> None:
    with (
        SignalingServer(limits=Limits(max_connections=1)) as server,
        socket.create_connection(("127.0.0.1", server.port)),
    ):
        wait_until(lambda: health(capsys, "--url", server.url, "--ready")[0] == 1)
        assert health(capsys, "--url", server.url)[0] == 0


@contextmanager
def answering(answer: bytes | None) -> Iterator[str]:
    """A server that sends these bytes and closes, or with None sends nothing. The URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)
        over = threading.Event()

        def serve() -> None:
            with listening.accept()[0] as peer:
                if answer is None:
                    over.wait(PATIENCE)
                else:
                    peer.recv(4096)
                    peer.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        over.set()
        thread.join(PATIENCE)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "closed the connection without an answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "answered 'SSH-2.0-OpenSSH', which is not HTTP"),
        (b"HTTP/1.1 302 Found\r\nlocation: /\r\n\r\n", "answered 302"),
        (b"HTTP/1.1 500 Error\r\n\r\nbroken\n  words", "answered 500: broken words"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "answered 'HTTP/1.1 2000 OK', which is not HTTP"),
    ],
)
def test_other_answers_are_unhealthy(capsys: pytest.CaptureFixture[str], answer: bytes, reason: str) -> None:
    with answering(answer) as url:
        assert health(capsys, "--url", url) == (1, f"unhealthy: {url}/healthz: {reason}")


def test_server_that_does_not_answer_is_unhealthy_after_the_timeout(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(None) as url:
        assert health(capsys, "--url", url, "--timeout", "0.2") == (1, f"unhealthy: {url}/healthz: timed out")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--url", "ftp://x"], "ftp://x: is not a URL: write http://HOST:PORT, https://HOST:PORT or unix:PATH"),
        (["--url", "http://x:70000"], "is not a URL"),
        (["--url", "http://user@x"], "is not a URL"),
        (["--url", "http://x/a b"], "is not a URL"),
        (["--url", "unix:/nowhere/at/all"], "unix:/nowhere/at/all /healthz: No such file or directory"),
        (["--port", "0"], "the server of these settings: the settings do not tell its port: give --url"),
        (["--listen", "https+fd:web"], "the settings do not tell its port: give --url"),
        (["--listen", "x"], "--listen: 'x' is not a listener"),
        (["--config", "/nowhere.toml"], "--config: cannot read /nowhere.toml"),
    ],
)
def test_mistakes_are_told_in_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str) -> None:
    status, line = health(capsys, *arguments)
    assert status == 1
    assert line.startswith("unhealthy: ") and reason in line


def test_server_that_is_not_there_is_unhealthy(capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    assert health(capsys, "--port", str(port)) == (
        1,
        f"unhealthy: https://127.0.0.1:{port}/healthz: Connection refused",
    )


@pytest.mark.parametrize("arguments", [["--timeout", "0"], ["--timeout", "4000"], ["--unknown"], ["--port", "x"]])
def test_wrong_usage_has_status_1(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """Docker reserves the status 2 of a health check."""
    assert main(["health", *arguments]) == 1
    assert capsys.readouterr().err.startswith("cuttlefish-signaling: error: ")


def test_start_imports_little() -> None:
    """Each probe starts an interpreter."""
    program = "import sys; from cuttlefish_signaling.cli import main; main(['health', '--port', '1', '--no-tls']); "
    program += "print(*{'asyncio', 'http.client', 'urllib.request', 'ssl', 'email', 'logging'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1] == ""
