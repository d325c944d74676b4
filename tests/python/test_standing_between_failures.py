"""Servers behind a proxy that are down, answer something else, or cannot be trusted; and settings that cannot work."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from ports import free_port
from scripted_upstream import accept_upgrade, listening, read_head
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from cuttlefish_signaling import ConfigError, SignalingServer, Upstream
from cuttlefish_signaling.cli import main

from http_requests import request
from peers import PATIENCE
from raw import request_head
from staged_servers import certificate


def sends(answer: bytes) -> Callable[[socket.socket], None]:
    def handle(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(answer)

    return handle


def silent(connection: socket.socket) -> None:
    while connection.recv(1024):
        pass


SETTINGS_AND_GOAWAY = bytes.fromhex("000000 04 00 00000000 000008 07 00 00000000 00000000 00000001")

NO_ANSWERS = [
    (sends(b""), 502, "closes the connection without an answer"),
    (sends(b"SSH-2.0-OpenSSH_9.6\r\n"), 502, "answers with something else than HTTP: SSH-2.0-OpenSSH_9.6"),
    (sends(SETTINGS_AND_GOAWAY), 502, "speaks HTTP/2 only, and WebSocket needs HTTP/1.1"),
    (sends(b"HTTP/1.1 abc\r\n\r\n"), 502, "answers with invalid HTTP"),
    (sends(b"\x15\x03\x01\x00\x02\x02\x46"), 502, "speaks TLS: write wss:// in the place of ws://"),
    (sends(b"HTTP/1.1 302 Found\r\nLocation: https://else.lab/\r\n\r\n"), 502, "redirects to https://else.lab/"),
    (silent, 504, "does not answer within 0.3 s; Upstream.timeout (--upstream-timeout) sets the time"),
]


def refusal(url: str) -> tuple[int, str]:
    """The status and the error of an upgrade that is refused."""
    with pytest.raises(InvalidStatus) as refused:
        connect(url, open_timeout=PATIENCE)
    return refused.value.response.status_code, json.loads(refused.value.response.body or b"{}")["error"]


@pytest.mark.parametrize(("handler", "status", "what"), NO_ANSWERS, ids=[what for _, _, what in NO_ANSWERS])
def test_server_that_gives_no_answer_is_an_error_that_says_so(
    handler: Any, status: int, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    timeout = 0.3 if handler is silent else PATIENCE
    with listening(handler) as port:
        with SignalingServer(upstream=Upstream(f"ws://127.0.0.1:{port}", timeout=timeout)) as proxy:
            code, error = refusal(proxy.device_url)
            assert (code, error.startswith(f"The upstream ws://127.0.0.1:{port} {what}")) == (status, True), error
            assert proxy.stats().upstream_failures == 1
    assert [record.event for record in caplog.records if what in record.getMessage()] == ["upstream_failed"]  # type: ignore[attr-defined]


def test_server_that_is_down_is_a_502_for_every_request() -> None:
    port = free_port()
    with SignalingServer(upstream=f"ws://127.0.0.1:{port}") as proxy:
        assert refusal(proxy.client_url)[0] == 502
        answer = request(proxy, "GET", "/devices")
        assert (answer.status, "cannot be reached" in answer.error) == (502, True)
        assert request(proxy, "GET", "/_proxy/healthz").status == 200


def test_name_that_is_unknown_is_a_502() -> None:
    with SignalingServer(upstream="ws://no-such-host.invalid:80") as proxy:
        status, error = refusal(proxy.client_url)
        assert (status, "no-such-host.invalid cannot be reached" in error) == (502, True)


def test_proxy_of_itself_is_a_loop() -> None:
    port = free_port()
    with SignalingServer(port=port, upstream=f"ws://127.0.0.1:{port}") as proxy:
        assert request(proxy, "GET", "/devices").status == 508
        assert "is this proxy itself" in refusal(proxy.client_url)[1]


def test_answer_with_a_wrong_accept_is_judged_by_the_peer() -> None:
    wrong = b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: wrong\r\n\r\n"
    with listening(sends(wrong)) as port, SignalingServer(upstream=f"ws://127.0.0.1:{port}") as proxy:
        with socket.create_connection(("127.0.0.1", proxy.port), PATIENCE) as peer:
            peer.sendall(request_head("/connect_client", {"Connection": "Upgrade", "Upgrade": "websocket"}))
            assert b"Sec-WebSocket-Accept: wrong" in read_head(peer)


def answers_404(connection: socket.socket) -> None:
    read_head(connection)
    connection.sendall(b"HTTP/1.1 404 Gone\r\nContent-Length: 15\r\n\r\n" + b'{"error":"none"}'[:15])


WITH_TLS = [
    ({"names": ("127.0.0.1",)}, {"ca": True}, None),
    ({"names": ("127.0.0.1",)}, {}, "a certificate that is signed by an authority that is not trusted"),
    ({"names": ("127.0.0.1",)}, {"insecure": True}, None),
    ({"names": ("other.lab",)}, {"ca": True}, "a certificate that is for another name"),
    ({"names": ("127.0.0.1",), "ends": -1}, {"ca": True}, "a certificate that has expired"),
    ({"names": ("other.lab",), "ends": -1}, {"insecure": True}, None),
]


@pytest.mark.parametrize(("made", "settings", "what"), WITH_TLS)
def test_certificate_is_verified_unless_insecure(
    made: dict[str, Any], settings: dict[str, Any], what: str | None, tmp_path: Path
) -> None:
    chain = certificate(tmp_path, *made.pop("names"), **made)
    if "ca" in settings:
        settings = {"ca": chain.ca}
    with listening(answers_404, chain.context) as port:
        with SignalingServer(upstream=Upstream(f"wss://127.0.0.1:{port}", **settings)) as proxy:
            answer = request(proxy, "GET", "/devices")
            if what is None:
                assert answer.status == 404
            else:
                assert (answer.status, what in answer.error) == (502, True), answer.error


def test_plain_server_behind_wss_is_named() -> None:
    with SignalingServer() as behind:
        with SignalingServer(upstream=Upstream(f"wss://127.0.0.1:{behind.port}", insecure=True)) as proxy:
            assert "does not speak TLS: write ws:// in the place of wss://" in refusal(proxy.client_url)[1]


def test_server_that_speaks_http_2_alone_over_tls_is_named(tmp_path: Path) -> None:
    chain = certificate(tmp_path, "127.0.0.1")
    chain.context.set_alpn_protocols(["h2"])
    # OpenSSL goes on without a protocol in common; what follows is HTTP/2.
    with listening(sends(SETTINGS_AND_GOAWAY), chain.context) as port:
        with SignalingServer(upstream=Upstream(f"wss://127.0.0.1:{port}", ca=chain.ca)) as proxy:
            assert "speaks HTTP/2 only, and WebSocket needs HTTP/1.1" in refusal(proxy.client_url)[1]


BAD = [
    ({"upstream": "localhost:1443"}, "upstream", "has no scheme"),
    ({"upstream": "ftp://a"}, "upstream", "has an unknown scheme"),
    ({"upstream": "ws://"}, "upstream", "is no URL"),
    ({"upstream": "ws://a:0"}, "upstream", "is no URL"),
    ({"upstream": "ws://user:secret@a"}, "upstream", "has a user or a password"),
    ({"upstream": "ws://a/?b"}, "upstream", "has a query"),
    ({"upstream": 1}, "upstream", "must be a URL, an Upstream or None, got 1"),
    ({"upstream": Upstream("ws://a", ca=__file__)}, "Upstream.ca", "needs an upstream with TLS"),
    ({"upstream": Upstream("ws://a", insecure=True)}, "Upstream.insecure", "needs an upstream with TLS"),
    ({"upstream": Upstream("wss://a", ca="/no/such")}, "Upstream.ca", "cannot read /no/such"),
    ({"upstream": Upstream("wss://a", ca=__file__)}, "Upstream.ca", "has no certificate in PEM"),
    ({"upstream": "ws://a", "device_socket": "/tmp/x"}, "device_socket", "has no effect with upstream"),
    ({"upstream": "ws://a", "filter_device_info": lambda info, _: info}, "filter_device_info", "has no effect"),
    ({"upstream": "ws://a", "assets_dir": "/tmp"}, "assets_dir", "has no effect with upstream"),
]


@pytest.mark.parametrize(("given", "setting", "what"), BAD)
def test_settings_that_cannot_work_are_refused(given: dict[str, Any], setting: str, what: str) -> None:
    with pytest.raises(ConfigError) as refused, SignalingServer(**given):
        pass
    assert (refused.value.setting, what in refused.value.what) == (setting, True), refused.value
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "setting"),
    [({"ca": 1}, "Upstream.ca"), ({"insecure": 1}, "Upstream.insecure"), ({"timeout": 0}, "Upstream.timeout")],
)
def test_arguments_of_upstream_are_checked(given: dict[str, Any], setting: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Upstream("wss://a", **given)
    assert refused.value.setting == setting


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ([], "--upstream: is missing"),
        (["--upstream", "a"], "--upstream: "),
        (["--upstream", "wss://a", "--upstream-ca", "/no/such"], "--upstream-ca: cannot read /no/such"),
        (["--upstream", "ws://a", "--upstream-insecure"], "--upstream-insecure: needs an upstream with TLS"),
        (["--upstream-insecure"], "--upstream"),
    ],
)
def test_command_line_names_the_flag(flags: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["proxy", "--no-tls", "--port", "0", *flags]) == 2
    assert named in capsys.readouterr().err


@contextmanager
def accepting() -> Iterator[tuple[int, SimpleQueue[bytes]]]:
    """A server that accepts upgrades, and the heads of these."""
    heads: SimpleQueue[bytes] = SimpleQueue()

    def handle(connection: socket.socket) -> None:
        heads.put(accept_upgrade(connection))
        connection.recv(1)

    with listening(handle) as port:
        yield port, heads


def test_foreign_origin_is_refused_and_an_allowed_one_is_passed_on() -> None:
    with accepting() as (port, heads):
        upstream, foreign = f"ws://127.0.0.1:{port}", "https://panel.lab"
        with SignalingServer(upstream=upstream) as proxy, pytest.raises(InvalidStatus) as refused:
            connect(proxy.client_url, origin=Origin(foreign))
        assert refused.value.response.status_code == 403
        with SignalingServer(upstream=upstream, allowed_origins=[foreign]) as proxy:
            with socket.create_connection(("127.0.0.1", proxy.port), PATIENCE) as peer:
                upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Origin": foreign}
                peer.sendall(request_head("/connect_client", upgrade))
                assert b"origin: https://panel.lab\r\n" in heads.get(timeout=PATIENCE).lower()
