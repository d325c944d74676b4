"""A device's own web server harms neither this server's origin nor other ports of the machine (SECURITY.md)."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from test_files import DeviceFiles, device_with_files, socket_path

from cuttlefish_signaling import SignalingServer

from http_requests import request
from peers import SeqpacketPeer

__all__ = ["socket_path"]

HARMFUL = {
    "Access-Control-Allow-Origin": "*",
    "Alt-Svc": 'h2="evil:443"',
    "Cache-Control": "public, max-age=9",
    "Clear-Site-Data": '"*"',
    "Content-Location": "/",
    "Cross-Origin-Opener-Policy": "unsafe-none",
    "Keep-Alive": "timeout=5",
    "Link": "</>; rel=preload",
    "Location": "https://evil.example",
    "Proxy-Authenticate": "Basic",
    "Refresh": "0; url=https://evil.example",
    "Server-Timing": "a",
    "Service-Worker-Allowed": "/",
    "Set-Cookie": "a=b",
    "Set-Cookie2": "a=b",
    "SourceMap": "/x",
    "Strict-Transport-Security": "max-age=9",
    "Upgrade": "h2c",
    "WWW-Authenticate": "Basic",
    "X-Unknown": "1",
}
"""Headers that would take effect on the whole origin, and one that no list of headers to remove has."""

HARMLESS = {
    "Accept-Ranges": "bytes",
    "Content-Disposition": "inline",
    "Content-Language": "en",
    "Content-Security-Policy": "default-src 'self'",
    "Content-Type": "text/html",
    "ETag": '"1"',
    "Last-Modified": "Thu, 01 Jan 1970 00:00:00 GMT",
}


def test_only_headers_of_the_content_reach_the_browser(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def do_get(handler: DeviceFiles) -> None:
        handler.send_response(200)
        for name, value in {**HARMFUL, **HARMLESS, "Content-Length": "0"}.items():
            handler.send_header(name, value)
        handler.end_headers()

    monkeypatch.setattr(DeviceFiles, "do_GET", do_get)
    with SignalingServer(device_socket=socket_path, proxy_device_files=True) as server, device_with_files(socket_path):
        answer = request(server, "GET", "/devices/cvd-1/files/x")
    assert {name: answer.headers.get_all(name) for name in HARMLESS} == {name: [it] for name, it in HARMLESS.items()}
    passed = {name.lower() for name in answer.headers} - {name.lower() for name in HARMLESS}
    assert passed == {"cache-control", "content-length", "date", "x-content-type-options"}
    assert answer.headers.get_all("cache-control") == ["private, no-cache"]


REFUSED = [
    "../x",
    "a/../x",
    "..",
    "%2e%2e/x",
    ".%2E/x",
    "./x",
    "..;v=1/x",
    "..%2fx",
    "a%2Fb",
    "a%5cb",
    "a\\b",
    "%00",
    "a%00.js",
    "a%0d%0ab",
    "a%7f",
    # Encoded twice and more often, for a device that decodes again.
    "%252e%252e/x",
    "%25252e%25252E/x",
    "a%252fb",
    "a%255cb",
    "a%2500",
]


def test_paths_with_a_second_reading_do_not_reach_the_device(socket_path: Path) -> None:
    with (
        SignalingServer(device_socket=socket_path, proxy_device_files=True) as server,
        device_with_files(socket_path) as web,
    ):
        for path in REFUSED:
            refused = request(server, "GET", f"/devices/cvd-1/files/{path}")
            assert (refused.status, web.seen) == (400, []), path
        for path in ("a.b/..c/d..", "100%25", "a%20b", "x?../%2f%00", "%C3%A9", "..."):
            assert request(server, "GET", f"/devices/cvd-1/files/{path}").status == 200, path
        assert [path for _, path, _ in web.seen] == [
            "/a.b/..c/d..",
            "/100%25",
            "/a%20b",
            "/x?../%2f%00",
            "/%C3%A9",
            "/...",
        ]


def register(path: Path, device_id: str, port: int) -> SeqpacketPeer:
    device = SeqpacketPeer(path)
    device.send({"message_type": "register", "device_id": device_id, "device_info": {}, "device_port": port})
    assert device.receive()["message_type"] == "config"
    return device


def test_ports_of_this_server_are_refused(socket_path: Path) -> None:
    listen = ["http://127.0.0.1:0", "http://127.0.0.1:0"]
    with SignalingServer(device_socket=socket_path, proxy_device_files=True, listen=listen) as server:
        ports = [int(url.rsplit(":", 1)[1].strip("/")) for url in server.urls]
        assert len(set(ports)) == 2
        for port in ports:
            device = register(socket_path, f"port-{port}", port)
            refused = request(server, "GET", f"/devices/port-{port}/files" * 20 + "/healthz")
            assert (refused.status, refused.error) == (502, "The device names a port of this server")
            device.close()


def test_request_does_not_pass_two_servers(socket_path: Path, tmp_path: Path) -> None:
    """Two servers whose devices name the port of the other would pass a request on without end."""
    other_path = tmp_path / "other"
    with (
        SignalingServer(device_socket=socket_path, proxy_device_files=True) as server,
        SignalingServer(device_socket=other_path, proxy_device_files=True) as other,
    ):
        peers = [register(socket_path, "d", other.port), register(other_path, "d", server.port)]
        assert request(server, "GET", "/devices/d/files/healthz").status == 200
        looped = request(server, "GET", "/devices/d/files/devices/d/files/healthz")
        assert (looped.status, looped.error) == (508, "The request has passed a signaling server already")
        # A proxy before this server is no loop.
        assert request(server, "GET", "/devices/d/files/healthz", Via="1.1 nginx, 1.0 squid").status == 200
        for peer in peers:
            peer.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </>; rel=preload\r\n\r\n",
        b"HTTP/1.1 199 What\r\n\r\n",
    ],
)
def test_informational_answer_of_device_is_no_answer(socket_path: Path, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as web:
        with SignalingServer(device_socket=socket_path, proxy_device_files=True) as server:
            device = register(socket_path, "d", web.getsockname()[1])

            def serve_once() -> None:
                connection, _ = web.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

            thread = threading.Thread(target=serve_once)
            thread.start()
            assert request(server, "GET", "/devices/d/files/x").status == 502
            thread.join()
            device.close()
