"""`probe` names the stage and the cause of each fault of a server, and never hangs or raises."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from ports import free_port

from cuttlefish_signaling import Limits, SignalingServer, StaticTokens
from cuttlefish_signaling.probe import EXIT_STATUS, ProbeOptions, Report, probe, probe_async

import staged_servers as staged
from peers import PATIENCE

PATIENT = ProbeOptions(timeout=PATIENCE)


def failing(url: str, options: ProbeOptions = PATIENT) -> tuple[str | None, str | None]:
    """The stage and the cause."""
    report = probe(url, options=options)
    assert report.exit_status == (EXIT_STATUS[report.failed_stage] if report.failed_stage else 0)
    for step in report.steps:
        assert all(finding.text and finding.fix for finding in step.findings)
    return report.failed_stage, report.cause


async def failing_at(handler: staged.Handler, options: ProbeOptions = PATIENT, **server: Any) -> Report:
    """The report of a server with this handler."""
    async with staged.serving(handler, **server) as port:
        scheme = "wss" if server else "ws"
        return await probe_async(f"{scheme}://127.0.0.1:{port}", options=options)


def test_server_without_fault_passes(server: SignalingServer) -> None:
    report = probe(server.url, options=PATIENT)
    assert report.ok and report.exit_status == 0 and report.cause is None
    assert [step.stage for step in report.steps] == ["dns", "tcp", "http", "websocket", "ping", "devices"]
    assert report.causes == ("no_devices",)
    assert report.step("websocket").facts["register_device"]["subprotocol"] == "webrtc-operator"
    assert len(report.step("ping").facts["seconds"]) == 3
    assert report.text().endswith("all 6 stages passed, with warnings at 1 of them")
    assert server.devices() == [] and server.clients() == []


# Names, TCP -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "dns_name_unknown"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), "dns_unavailable"),
        (UnicodeError("label too long"), "dns_unavailable"),
    ],
)
def test_name_is_not_known(monkeypatch: pytest.MonkeyPatch, error: Exception, cause: str) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    assert failing("wss://signal.lab") == ("dns", cause)


def test_dns_server_that_does_not_answer_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, over = threading.Event(), threading.Event()

    def hangs(*_: Any, **__: Any) -> None:
        asked.set()
        over.wait(PATIENCE)

    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    assert failing("wss://signal.lab", ProbeOptions(timeout=0.05)) == ("dns", "dns_unavailable")
    assert asked.wait(PATIENCE)
    (thread,) = [one for one in threading.enumerate() if one.name == "cuttlefish-signaling-probe-dns"]
    assert thread.daemon, "the end of the process would wait for the DNS server"
    over.set()
    thread.join(PATIENCE)


def test_port_is_closed() -> None:
    report = probe(f"ws://127.0.0.1:{free_port()}", options=PATIENT)
    assert (report.failed_stage, report.cause, report.exit_status) == ("tcp", "port_closed", 11)
    assert [step.status for step in report.steps] == ["ok", "failed", *["skipped"] * 4]


def test_packets_are_dropped_by_a_firewall() -> None:
    """A full backlog drops SYNs as a firewall does."""
    with socket.socket() as listening, contextlib.ExitStack() as stack:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(8):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listening.getsockname())
        port = listening.getsockname()[1]
        assert failing(f"ws://127.0.0.1:{port}", ProbeOptions(timeout=0.3)) == ("tcp", "tcp_timeout")


def test_one_of_two_addresses_fails(server: SignalingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, server.port)) for host in ("127.0.0.9", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    report = probe(f"ws://localhost:{server.port}", options=PATIENT)
    assert report.ok and report.step("tcp").findings[0].cause == "tcp_some_addresses_fail"
    assert "127.0.0.9 (Connection refused)" in report.step("tcp").findings[0].text


# HTTP -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("handler", "cause"),
    [
        (staged.closes_at_once, "http_closed"),
        (staged.sends(b""), "http_closed"),
        (staged.sends(b"SSH-2.0-OpenSSH\r\n"), "not_http"),
        (staged.sends(b"HTTP/1.1 abc\r\n\r\n"), "not_http"),
        (staged.sends(bytes(range(256))), "not_http"),
        (staged.sends(b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64"), "http2_only"),
        (staged.sends(b"HTTP/1.1 301 Moved\r\nLocation: https://other.lab/\r\nContent-Length: 0\r\n\r\n"), "redirect"),
        (staged.sends(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"), "proxy_without_server"),
        (staged.sends(b'HTTP/1.1 503 Busy\r\n\r\n{"error":"Server draining"}'), "not_ready"),
        (staged.sends(b"HTTP/1.1 500 Error\r\n\r\nbroken"), "server_error"),
        (staged.sends(b"HTTP/1.1 429 Too Many Requests\r\n\r\n"), "too_many_requests"),
        (staged.sends(b"HTTP/1.1 407 Proxy\r\n\r\n"), "proxy_login"),
        (staged.sends(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n"), "not_http"),
    ],
)
def test_other_program_answers_http(handler: staged.Handler, cause: str) -> None:
    report = asyncio.run(failing_at(handler))
    assert (report.failed_stage, report.cause) == ("http", cause)


@pytest.mark.parametrize(
    ("handler", "cause"), [(staged.says_nothing, "http_silent"), (staged.stops_in_the_middle, "http_slow")]
)
def test_server_does_not_answer_http(handler: staged.Handler, cause: str) -> None:
    assert asyncio.run(failing_at(handler, ProbeOptions(timeouts={"http": 0.2}))).cause == cause


def test_wrong_and_missing_token(tmp_path: Path) -> None:
    with SignalingServer(authorize=StaticTokens({"s3cret": "alice"})) as server:
        # /healthz is public: the endpoints ask for the token.
        assert failing(server.url) == ("websocket", "token_missing")
        assert failing(server.url, ProbeOptions(timeout=PATIENCE, token="guess")) == ("websocket", "wrong_token")
        assert failing(server.url, ProbeOptions(timeout=PATIENCE, token="s3cret")) == (None, None)


def test_origin_is_refused(server: SignalingServer) -> None:
    options = ProbeOptions(timeout=PATIENCE, origin="https://farm.lab")
    report = probe(server.url, options=options)
    assert (report.failed_stage, report.cause) == ("http", "wrong_origin")
    assert "https://farm.lab" in report.step("http").findings[0].text
    with SignalingServer(allowed_origins=["https://farm.lab"]) as open_server:
        assert failing(open_server.url, options) == (None, None)


def test_host_is_refused(server: SignalingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert failing(f"ws://signal.lab:{server.port}") == ("http", "wrong_host")


def test_server_is_full() -> None:
    with SignalingServer(limits=Limits(max_connections=1)) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as filler:
            filler.sendall(b"GET /devices HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert filler.recv(12) == b"HTTP/1.1 200"
            assert failing(server.url) in [("websocket", "not_ready"), ("http", "not_ready")]


# WebSockets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "upgrade_lost"),
        (b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n", "upgrade_lost"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "no_endpoint"),
        (b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n", "redirect"),
        (b"HTTP/1.1 504 Timeout\r\nContent-Length: 0\r\n\r\n", "proxy_without_server"),
        (b"HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n", "handshake_refused"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "bad_handshake"),
        (b"", "websocket_closed"),
        (b"garbage\r\n\r\n", "bad_handshake"),
    ],
)
def test_endpoints_are_no_websockets(answer: bytes, cause: str) -> None:
    handler = staged.answers({"/register_device": answer, "/connect_client": answer})
    report = asyncio.run(failing_at(handler))
    assert (report.failed_stage, report.cause) == ("websocket", cause)


def test_subprotocol_is_lost() -> None:
    """A proxy that does not pass on Sec-WebSocket-Protocol."""
    from websockets.asyncio.server import ServerConnection, serve

    async def ignore(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async def run() -> Report:
        def healthy(connection: ServerConnection, request: Any) -> Any:
            return connection.respond(200, "ok") if request.path == "/healthz" else None

        async with serve(ignore, "127.0.0.1", 0, process_request=healthy) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            return await probe_async(f"ws://127.0.0.1:{port}", options=PATIENT)

    report = asyncio.run(run())
    assert (report.failed_stage, report.cause) == ("websocket", "subprotocol_not_selected")


@pytest.mark.parametrize(("closes", "cause"), [(True, "closed_at_once"), (False, "no_pong")])
def test_pings_are_not_answered(closes: bool, cause: str) -> None:
    from websockets.asyncio.server import ServerConnection, serve

    async def run() -> Report:
        over = asyncio.Event()

        def healthy(connection: ServerConnection, request: Any) -> Any:
            return connection.respond(200, "ok") if request.path in ("/healthz", "/devices") else None

        async def peer(connection: ServerConnection) -> None:
            if closes:
                await connection.close(1008, "too many")
            else:
                connection.transport.pause_reading()
                await over.wait()

        def select(_: ServerConnection, offered: Any) -> Any:
            return offered[0] if offered else None

        options = {"process_request": healthy, "select_subprotocol": select, "close_timeout": 0}
        async with serve(peer, "127.0.0.1", 0, **options) as server:  # type: ignore[arg-type]
            port = next(iter(server.sockets)).getsockname()[1]
            timeouts = {} if closes else {"ping": 0.1}
            report = await probe_async(f"ws://127.0.0.1:{port}", options=ProbeOptions(timeouts=timeouts))
            over.set()
            for connection in server.connections:
                connection.transport.abort()
            return report

    report = asyncio.run(run())
    assert (report.failed_stage, report.cause) == ("ping", cause)
    # The failure of a ping does not hinder the next stage.
    assert report.step("devices").status == "warning" and report.exit_status == 15
