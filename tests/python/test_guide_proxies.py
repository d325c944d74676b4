"""The configurations of docs/proxies.md, as they stand but for ports, names of files and addresses."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from websockets.sync.client import connect
from websockets.typing import Origin

from cuttlefish_signaling import AuthorizeContext, SignalingServer, Tls
from cuttlefish_signaling.testing import FakeDevice

from peers import PATIENCE, wait_until
from proxy_programs import needs_haproxy, needs_nginx, program, run_nginx

GUIDE = (Path(__file__).parents[2] / "docs" / "proxies.md").read_text(encoding="utf-8")
NAME = "farm.lab"


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)
    return str(found)


def replaced(text: str, *changes: tuple[str, str]) -> str:
    """Replaces places of a configuration, each of which it has."""
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


class Asked:
    """An authorize hook that keeps address and path of each request."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None]] = []

    def __call__(self, ctx: AuthorizeContext) -> None:
        self.seen.append((ctx.path, ctx.address))


@contextmanager
def nginx_of_the_guide(directory: Path, server: SignalingServer, files: tuple[Path, Path]) -> Iterator[int]:
    port = free_port()
    config = replaced(
        block("nginx"),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/ssl/farm.lab.pem", str(files[0])),
        ("/etc/ssl/farm.lab.key", str(files[1])),
        ("127.0.0.1:8080", f"127.0.0.1:{server.port}"),
    )
    with run_nginx(directory / "nginx", config, port):
        yield port


@contextmanager
def haproxy_of_the_guide(directory: Path, server: SignalingServer, files: tuple[Path, Path]) -> Iterator[int]:
    port = free_port()
    both = directory / "farm.lab.pem"
    both.write_bytes(b"".join(file.read_bytes() for file in files))
    config = directory / "haproxy.cfg"
    text = replaced(
        block("haproxy"),
        ("bind :443", f"bind 127.0.0.1:{port}"),
        ("/etc/haproxy/farm.lab.pem", str(both)),
        ("127.0.0.1:8080", f"127.0.0.1:{server.port}"),
    )
    config.write_text(text)
    subprocess.run(["haproxy", "-c", "-f", str(config)], check=True, capture_output=True)
    with program(["haproxy", "-db", "-f", str(config)], port, directory / "haproxy.log"):
        yield port


PROXIES = [pytest.param(nginx_of_the_guide, marks=needs_nginx), pytest.param(haproxy_of_the_guide, marks=needs_haproxy)]


class Page:
    """A page of the proxy's origin: its requests go to the proxy, over TLS that it verifies."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.port, self.context = port, context
        self.origin = f"https://{NAME}:{port}"

    def stream(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def get(self, path: str) -> tuple[int, bytes]:
        connection = HTTPConnection(NAME, self.port, timeout=PATIENCE)
        connection.sock = self.context.wrap_socket(self.stream(), server_hostname=NAME)
        connection.request("GET", path, headers={"Origin": self.origin, "Forwarded": "for=203.0.113.9"})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, body

    def websocket(self, path: str) -> Any:
        url = f"wss://{NAME}:{self.port}{path}"
        origin = Origin(self.origin)
        return connect(url, sock=self.stream(), ssl=self.context, origin=origin, open_timeout=PATIENCE, proxy=None)


@pytest.mark.parametrize("proxy", PROXIES)
def test_clients_reach_devices_through_the_configuration_of_the_guide(tmp_path: Path, proxy: Any) -> None:
    tls = Tls.kept_in(tmp_path / "state", names=[NAME])
    files = (tmp_path / "state" / "server.pem", tmp_path / "state" / "server.key")
    asked = Asked()
    settings: dict[str, Any] = {"trusted_proxies": ["127.0.0.1"], "allowed_hosts": [NAME], "authorize": asked}
    with SignalingServer(**settings) as server, proxy(tmp_path, server, files) as port:
        page = Page(port, tls.client_context())

        def is_ready() -> bool:  # haproxy sends requests once its check has passed.
            return page.get("/readyz")[0] == 200

        wait_until(is_ready)
        with FakeDevice(server, "a/b"), page.websocket("/devices/a%2Fb/connect") as client:
            client.recv(PATIENCE)
            assert page.get("/devices")[0] == 200
        paths = {path for path, _ in asked.seen}
        assert paths == {"/register_device", "/devices/a%2Fb/connect", "/devices"}
        # The address is the client's, and neither the proxy's word for itself nor a forged one.
        assert {address for path, address in asked.seen if path != "/register_device"} == {"127.0.0.1"}
        assert server.stats().forwarded_ignored == 0
