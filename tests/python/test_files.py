"""Files: the server's own, those of a host package, and those of a device's own web server."""

from __future__ import annotations

import http.client
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from cuttlefish_signaling import ConfigError, Grant, Limits, Refused, SignalingServer

from browsers import CHROMIUM, FLAGS
from http_requests import Response, request
from peers import PATIENCE, SeqpacketPeer, peers_of, wait_until
from raw import request_head

CONNECTOR = "/js/server_connector.js"
PAGES = Path(__file__).with_name("pages")


def get(server: SignalingServer, path: str, method: str = "GET", **headers: str) -> Response:
    return request(server, method, path, None, None, **headers)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A host package's web client, and a file beside it that must not be served."""
    (tmp_path / "secret.txt").write_text("secret")
    root = tmp_path / "assets"
    (root / "js").mkdir(parents=True)
    (root / "index.html").write_text("<!doctype html>index")
    (root / "client.html").write_text("<!doctype html>client")
    (root / "style.css").write_text("body {}")
    (root / "js" / "app.js").write_text("export {}")
    (root / "js" / "server_connector.js").write_text("not ours")
    (root / "image.png").write_bytes(b"\x89PNG")
    return root


def test_connector_is_served_in_place_of_package_file(package: Path) -> None:
    for options in ({}, {"assets_dir": package}, {"dashboard": True}):
        with SignalingServer(**options) as server:
            answer = get(server, CONNECTOR)
            assert answer.status == 200
            assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-cache"
            assert b"export async function createConnector" in answer.body
            tag = answer.headers["etag"]
            for known in (tag, f'"x", W/{tag}', "*"):
                fresh = get(server, CONNECTOR, If_None_Match=known)
                assert (fresh.status, fresh.body, fresh.headers["etag"]) == (304, b"", tag)
            assert get(server, CONNECTOR, If_None_Match='"x"').body == answer.body
            head = get(server, CONNECTOR, "HEAD")
            assert (head.status, head.body) == (200, b"")
            assert int(head.headers["content-length"]) == len(answer.body)
            assert get(server, CONNECTOR, "POST").status == 405


def test_assets_dir_is_served(package: Path) -> None:
    with SignalingServer(assets_dir=package) as server:
        for path, kind in {
            "/client.html": "text/html",
            "/client.html?deviceId=a%2Fb": "text/html",
            "/": "text/html",
            "/style.css": "text/css",
            "/js/app.js": "text/javascript",
            "/image.png": "image/png",
        }.items():
            answer = get(server, path)
            assert (answer.status, answer.headers["content-type"].split(";")[0]) == (200, kind), path
            assert answer.headers["x-content-type-options"] == "nosniff"
        assert get(server, "/").body == b"<!doctype html>index"
        assert get(server, "/client.html", Range="bytes=0-8").body == b"<!doctype"
        for path in ("/js", "/js/", "/nothing.html", "/client.html/x", "/secret.txt"):
            refused = get(server, path)
            assert (refused.status, refused.error) == (404, "Not found"), path
        refused = get(server, "/client.html", "POST")
        assert (refused.status, refused.error) == (405, "Method not allowed")


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/js/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e%2fsecret.txt",
        "/..%5csecret.txt",
        "/js/..\\..\\secret.txt",
        "//../secret.txt",
        "/./../secret.txt",
        "/%00../secret.txt",
        "/%c0%ae%c0%ae/secret.txt",
        "/%252e%252e/secret.txt",
        "/client.html%00.js",
        "/%ff",
        "{absolute}",
        "/{absolute}",
    ],
)
def test_path_traversal_is_refused(package: Path, path: str) -> None:
    with SignalingServer(assets_dir=package) as server:
        raw = path.replace("{absolute}", str(package.parent / "secret.txt"))
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
            connection.sendall(request_head(raw, {"Connection": "close"}))
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.split()[1] in (b"404", b"400"), answer
        assert b"secret" not in body


def test_no_files_without_assets_dir() -> None:
    with SignalingServer() as server:
        for path in ("/", "/client.html", "/dashboard/main.js", "/dashboard/events"):
            assert (get(server, path).status, get(server, path).error) == (404, "Not found")


def test_invalid_assets_dir_is_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"assets_dir: .*nowhere is not a directory"):
        SignalingServer(assets_dir=tmp_path / "nowhere").start()
    with pytest.raises(ConfigError, match="assets_dir: must be a path or None, got 5"):
        SignalingServer(assets_dir=5)  # type: ignore[arg-type]


def test_assets_require_authorization(package: Path) -> None:
    def authorize(context: Any) -> None:
        if "token" not in context.headers:
            raise Refused("a token, please", status=401)

    with SignalingServer(assets_dir=package, authorize=authorize) as server:
        assert get(server, "/client.html").status == 401
        assert get(server, "/client.html", Token="x").status == 200
        assert get(server, CONNECTOR).status == 200, "the connector is public"


# A device's own web server -------------------------------------------------------------------------------------------


class DeviceFiles(BaseHTTPRequestHandler):
    """A device's web server. It answers with the path of the request."""

    seen: list[tuple[str, str, dict[str, str]]]
    stuck: threading.Event

    def do_GET(self) -> None:
        type(self).seen.append((self.command, self.path, dict(self.headers.items())))
        if self.path.startswith("/hangs"):
            self.stuck.wait(PATIENCE)
            return
        if self.path.startswith("/breaks"):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            return
        if self.path.startswith("/invalid"):
            self.wfile.write(b"not http\r\n\r\n")
            return
        body = b"x" * 1_000_000 if self.path.startswith("/large") else f"file {self.path}".encode()
        if self.path.startswith("/client.html"):
            body = (PAGES / "client.html").read_bytes()
        if self.path.startswith("/js/app.js"):
            body = (PAGES / "js" / "app.js").read_bytes()
        self.send_response(404 if self.path.startswith("/nothing") else 200)
        self.send_header("Content-Type", "text/javascript" if ".js" in self.path else "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Set-Cookie", "device=1")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None: ...


@contextmanager
def device_with_files(path: Path, device_id: str = "cvd-1") -> Iterator[type[DeviceFiles]]:
    """A device on the device socket, with a web server of its own."""

    class Handler(DeviceFiles):
        seen: list[tuple[str, str, dict[str, str]]] = []  # noqa: RUF012
        stuck = threading.Event()

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever)
    thread.start()
    device = SeqpacketPeer(path)
    try:
        message = {
            "message_type": "register",
            "device_id": device_id,
            "device_info": {},
            "device_port": web.server_port,
        }
        device.send(message)
        assert device.receive()["message_type"] == "config"
        yield Handler
    finally:
        device.close()
        Handler.stuck.set()
        web.shutdown()
        thread.join()
        web.server_close()


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    """The path of the device socket."""
    return tmp_path / "operator"


def test_device_files_are_proxied(socket_path: Path) -> None:
    with (
        SignalingServer(device_socket=socket_path, proxy_device_files=True) as server,
        device_with_files(socket_path, "a/b") as web,
    ):
        answer = get(server, "/devices/a%2Fb/files/some/file.js?v=1%202", Accept="x/y", Cookie="mine", Range="bytes=0-")
        assert (answer.status, answer.body) == (200, b"file /some/file.js?v=1%202")
        assert answer.headers["content-type"] == "text/javascript"
        assert "set-cookie" not in answer.headers, "a cookie would apply to all devices of this server"
        ((method, path, headers),) = web.seen
        assert (method, path) == ("GET", "/some/file.js?v=1%202")
        assert headers["accept"] == "x/y"
        assert headers["range"] == "bytes=0-"
        assert "cookie" not in headers, "a cookie is for this server"
        assert get(server, "/devices/a%2Fb/files/x", "HEAD").status == 200
        assert len(get(server, "/devices/a%2Fb/files/large").body) == 1_000_000
        assert get(server, "/devices/a%2Fb/files/nothing").status == 404
        assert b"createConnector" in get(server, "/devices/a%2Fb/files/js/server_connector.js").body
        assert get(server, "/devices/a%2Fb/files/x", "POST").status == 405
        assert [command for command, *_ in web.seen] == ["GET", "HEAD", "GET", "GET"]


def test_proxied_path_is_not_decoded(socket_path: Path) -> None:
    with (
        SignalingServer(device_socket=socket_path, proxy_device_files=True) as server,
        device_with_files(socket_path, "a/b") as web,
    ):
        assert get(server, "/%64evices/%61%2Fb/f%69les/%3Ax/%2Dy%2e.js?v=%31").status == 200
        ((_, path, _),) = web.seen
        assert path == "/%3Ax/%2Dy%2e.js?v=%31"


def test_device_file_errors_are_502_or_504(socket_path: Path) -> None:
    with SignalingServer(device_socket=socket_path, proxy_device_files=True) as server:
        with device_with_files(socket_path) as web:
            with server.clock.frozen() as clock, ThreadPoolExecutor() as pool:
                asked = pool.submit(get, server, "/devices/cvd-1/files/hangs")
                wait_until(lambda: web.seen)
                clock.advance(Limits().proxy_timeout)
                hangs = asked.result(PATIENCE)
            assert (hangs.status, hangs.error) == (504, "The device's web server does not answer")
            invalid = get(server, "/devices/cvd-1/files/invalid")
            assert (invalid.status, invalid.error) == (502, "The device's web server cannot be reached")
            with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                get(server, "/devices/cvd-1/files/breaks")
            for path in ("../x", "%2e%2e/x", "a/%2E./x", "..\\x", "%5cx"):
                climbs = get(server, f"/devices/cvd-1/files/{path}")
                assert (climbs.status, climbs.error) == (400, "This is no path"), path
            assert get(server, "/devices/cvd-1/files/fine").status == 200
        unknown = get(server, "/devices/unknown/files/x")
        assert (unknown.status, unknown.error) == (404, "Device not found")
        gone = SeqpacketPeer(socket_path)
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            gone.send({"message_type": "register", "device_id": "gone", "device_info": {}, "device_port": port})
            gone.receive()
            refused = get(server, "/devices/gone/files/x")
        assert (refused.status, refused.error) == (502, "The device's web server cannot be reached")
        gone.close()


def test_device_files_are_off_by_default_and_for_device_socket_only(socket_path: Path) -> None:
    with SignalingServer(device_socket=socket_path) as server, device_with_files(socket_path) as web:
        assert (get(server, "/devices/cvd-1/files/x").status, web.seen) == (404, [])
    with SignalingServer(device_socket=socket_path, proxy_device_files=True) as server, peers_of(server) as peers:
        # A device on the network names a port of this machine.
        remote = peers.connect(server.device_url)
        remote.send({"message_type": "register", "device_id": "far", "device_info": {}, "device_port": server.port})
        remote.receive()
        refused = get(server, "/devices/far/files/x")
        assert (refused.status, refused.error) == (404, "This device has no files")


def test_device_files_require_grant(socket_path: Path) -> None:
    def authorize(context: Any) -> Grant:
        return Grant(devices=[context.headers.get("may", "")])

    with SignalingServer(device_socket=socket_path, proxy_device_files=True, authorize=authorize) as server:
        with device_with_files(socket_path) as web:
            refused = get(server, "/devices/cvd-1/files/x", May="cvd-2")
            assert (refused.status, refused.error, web.seen) == (404, "Device not found", [])
            assert get(server, "/devices/cvd-1/files/x", May="cvd-*").status == 200


def test_device_page_connects_through_connector(socket_path: Path) -> None:
    """As Cuttlefish's own page: the device serves it, this server its connector, and the id needs escapes."""
    with (
        SignalingServer(device_socket=socket_path, proxy_device_files=True) as server,
        device_with_files(socket_path, "a/b \u00e9"),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.goto(server.url + "/devices/a%2Fb%20%C3%A9/files/client.html")
        page.wait_for_function("() => window.ready")
        assert page.evaluate("() => deviceId()") == "a/b \u00e9"
        assert page.evaluate("() => connect().then(({deviceInfo}) => deviceInfo)") == {}
        assert [client.device_id for client in server.clients()] == ["a/b \u00e9"]
        browser.close()


def test_blocked_file_open_does_not_block_stop(package: Path) -> None:
    pipe = package / "pipe"
    os.mkfifo(pipe)
    with SignalingServer(assets_dir=package, stop_timeout=0.5) as server:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
            connection.sendall(request_head("/pipe", {}))
            assert get(server, "/client.html").status == 200
            assert not server.stop()
    # Opens the pipe for writing, which ends the thread that waits to read it.
    os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))
