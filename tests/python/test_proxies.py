"""Behind proxies: Debian's nginx and haproxy as real programs, and headers that a sender has forged."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from cuttlefish_signaling import AuthorizeContext, ConfigError, Limits, Refused, SignalingServer, Tls

from http_requests import request
from peers import PATIENCE, wait_until
from proxy_programs import HEADERS, At, ask, needs_haproxy, needs_nginx, nginx, program, run_nginx


class Asked:
    """An authorize hook that keeps the address of each request."""

    def __init__(self) -> None:
        self.addresses: list[str | None] = []

    def __call__(self, ctx: AuthorizeContext) -> None:
        self.addresses.append(ctx.address)


@needs_nginx
def test_nginx_tells_host_and_scheme_for_the_origin_policy(tmp_path: Path) -> None:
    asked = Asked()
    with SignalingServer(trusted_proxies=["127.0.0.1"], authorize=asked) as server, nginx(tmp_path, server) as port:
        own, other = f"http://127.0.0.1:{port}", "http://127.0.0.1:2081"
        assert ask(port, Origin=own) == 200
        # The Host that nginx writes is not the page's.
        assert ask(port, Origin=other) == 403
        with connect(f"ws://127.0.0.1:{port}/connect_client", origin=Origin(own), open_timeout=PATIENCE):
            pass
        with pytest.raises(InvalidStatus, match="403"):
            connect(f"ws://127.0.0.1:{port}/connect_client", origin=Origin("http://evil.lab")).__enter__()
    assert set(asked.addresses) == {"127.0.0.1"}


@needs_nginx
def test_forged_headers_do_not_pass_nginx(tmp_path: Path) -> None:
    asked = Asked()
    with SignalingServer(trusted_proxies=["127.0.0.1"], authorize=asked) as server, nginx(tmp_path, server) as port:
        # nginx appends the address that it sees, overwrites the others, and removes Forwarded.
        assert ask(port, X_Forwarded_For="203.0.113.9", Forwarded="for=203.0.113.8") == 200
        assert ask(port, X_Forwarded_Host="evil.lab", X_Forwarded_Proto="https", Origin="https://evil.lab") == 403
        assert asked.addresses == ["203.0.113.9"]
    # All of 127.0.0.0/8 may be a proxy here, so the forged entry counts: trust only proxies.
    asked = Asked()
    with SignalingServer(trusted_proxies=["127.0.0.2"], authorize=asked) as server, nginx(tmp_path, server) as port:
        assert ask(port, X_Forwarded_For="203.0.113.9") == 200
        assert asked.addresses == ["127.0.0.1"]
        assert server.stats().forwarded_ignored == 1


@needs_nginx
def test_nginx_with_path_prefix_reaches_the_server(tmp_path: Path) -> None:
    with SignalingServer(trusted_proxies=["127.0.0.1"]) as server, nginx(tmp_path, server, "/signaling/") as port:
        assert ask(port, "/signaling/devices", Origin=f"http://127.0.0.1:{port}") == 200
        assert ask(port, "/devices") == 404


@needs_nginx
def test_host_packages_nginx_needs_an_allowed_origin(tmp_path: Path) -> None:
    """It rewrites `Host`, keeps `Origin` and writes no header of its own."""
    lines = "proxy_set_header Host 127.0.0.1:2081;"
    allowed = ["http://farm.lab:2080"]
    with SignalingServer(allowed_origins=allowed) as server, nginx(tmp_path, server, extra=lines) as port:
        assert ask(port, Origin="http://farm.lab:2080") == 200
        proxy: Any = At(port)
        refused = request(proxy, "GET", "/devices", Origin="http://other.lab")
        assert (refused.status, refused.error) == (
            403,
            "Origin not allowed: http://other.lab; --allow-origin admits it",
        )


@needs_haproxy
def test_haproxy_tells_the_address_by_forwarded_for(tmp_path: Path) -> None:
    asked = Asked()
    port = free_port()
    with SignalingServer(trusted_proxies=["127.0.0.1"], authorize=asked) as server:
        config = tmp_path / "haproxy.cfg"
        config.write_text(
            "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n"
            f"frontend in\n bind 127.0.0.1:{port}\n http-request del-header Forwarded\n"
            " http-request set-header X-Forwarded-Proto http\n"
            " http-request set-header X-Forwarded-Host %[req.hdr(host)]\n"
            " http-request set-header X-Forwarded-For 198.51.100.7\n default_backend out\n"
            f"backend out\n server one 127.0.0.1:{server.port}\n"
        )
        with program(["haproxy", "-db", "-f", str(config)], port, tmp_path / "haproxy.log"):
            own = f"http://127.0.0.1:{port}"
            assert ask(port, Origin=own, X_Forwarded_For="203.0.113.9") == 200
            with connect(f"ws://127.0.0.1:{port}/connect_client", origin=Origin(own), open_timeout=PATIENCE):
                pass
            assert asked.addresses == ["198.51.100.7"] * 2


@contextmanager
def nginx_with_tls(directory: Path, server: SignalingServer, files: tuple[Path, Path]) -> Iterator[int]:
    """Nginx with TLS and the lines of the guide."""
    port = free_port()
    block = (
        f"server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {files[0]}; ssl_certificate_key {files[1]}; "
        f"location / {{ proxy_pass http://127.0.0.1:{server.port}; {HEADERS} }} }}"
    )
    with run_nginx(directory / "nginx", block, port):
        yield port


@contextmanager
def haproxy_with_tls(directory: Path, server: SignalingServer, files: tuple[Path, Path]) -> Iterator[int]:
    """Haproxy with TLS, which replaces the headers of the sender and `Host`."""
    port = free_port()
    (directory / "both.pem").write_bytes(b"".join(file.read_bytes() for file in files))
    config = directory / "haproxy.cfg"
    config.write_text(
        "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n"
        f"frontend in\n bind 127.0.0.1:{port} ssl crt {directory}/both.pem\n http-request del-header Forwarded\n"
        " http-request set-header X-Forwarded-Proto https\n"
        " http-request set-header X-Forwarded-Host %[req.hdr(host)]\n"
        " http-request set-header X-Forwarded-For %[src]\n http-request set-header Host 127.0.0.1:2081\n"
        f" default_backend out\nbackend out\n server one 127.0.0.1:{server.port}\n"
    )
    with program(["haproxy", "-db", "-f", str(config)], port, directory / "haproxy.log"):
        yield port


@pytest.mark.parametrize(
    "proxy", [pytest.param(nginx_with_tls, marks=needs_nginx), pytest.param(haproxy_with_tls, marks=needs_haproxy)]
)
def test_page_of_a_named_host_reaches_the_server_through_tls(tmp_path: Path, proxy: Any) -> None:
    """The proxy ends TLS with a certificate of this package. Host and scheme come from its headers."""
    tls = Tls.kept_in(tmp_path / "state", names=["farm.lab"])
    files = (tmp_path / "state" / "server.pem", tmp_path / "state" / "server.key")
    asked = Asked()
    settings: dict[str, Any] = {"trusted_proxies": ["127.0.0.1"], "allowed_hosts": ["farm.lab"], "authorize": asked}
    with SignalingServer(**settings) as server, proxy(tmp_path, server, files) as port:

        def answer(host: str, origin: str) -> tuple[int, Any]:
            """Status and body of a page's POST, over TLS that verifies the certificate."""
            stream = socket.create_connection(("127.0.0.1", port), PATIENCE)
            connection = HTTPConnection(host, port, timeout=PATIENCE)
            connection.sock = tls.client_context().wrap_socket(stream, server_hostname="farm.lab")
            with closing(connection):
                body = json.dumps({"device_id": "cvd-1"})
                connection.request("POST", "/polled_connections", body, {"Origin": origin})
                response = connection.getresponse()
                return response.status, json.loads(response.read())["error"]

        def client(origin: str) -> ClientConnection:
            stream = socket.create_connection(("127.0.0.1", port), PATIENCE)
            url = f"wss://farm.lab:{port}/connect_client"
            return connect(
                url, sock=stream, ssl=tls.client_context(), origin=Origin(origin), open_timeout=PATIENCE, proxy=None
            )

        own = f"https://farm.lab:{port}"
        # 404: the origin is admitted, and there is no such device.
        assert answer("farm.lab", own)[0] == 404
        with client(own):
            pass
        # Another scheme or port, and the Host that the proxy writes, are not the page's.
        for other in (f"http://farm.lab:{port}", "https://farm.lab", "https://127.0.0.1:2081", "https://evil.lab"):
            status, said = answer("farm.lab", other)
            assert (status, said) == (403, f"Origin not allowed: {other}; --allow-origin admits it")
        with pytest.raises(InvalidStatus, match="403"):
            client("https://evil.lab")
        status, said = answer("evil.lab", f"https://evil.lab:{port}")
        assert (status, said) == (403, f"Host not allowed: evil.lab:{port}; --allow-host admits it")
        assert set(asked.addresses) == {"127.0.0.1"} and server.stats().forwarded_ignored == 0


def test_headers_of_strangers_are_ignored_and_counted() -> None:
    asked = Asked()
    with SignalingServer(authorize=asked, trusted_proxies=["10.0.0.0/8"]) as server:
        for header in ("Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"):
            assert request(server, "GET", "/devices", headers={header: "for=203.0.113.9"}).status == 200
        assert request(server, "GET", "/devices").status == 200
        assert server.stats().forwarded_ignored == 4
    assert set(asked.addresses) == {"127.0.0.1"}


def test_websockets_through_a_proxy_count_for_the_address_that_it_tells() -> None:
    limits = Limits(max_connections_per_address=2)
    allowed = True

    def authorize(ctx: AuthorizeContext) -> None:
        if not allowed:
            raise Refused("not now")

    with (
        SignalingServer(trusted_proxies=["127.0.0.1"], limits=limits, authorize=authorize) as server,
        ExitStack() as stack,
    ):

        def open_from(address: str | None) -> ClientConnection:
            headers = {"X-Forwarded-For": address} if address else {}
            url = f"{server.url.replace('http', 'ws', 1)}/connect_client"
            return connect(url, additional_headers=headers, open_timeout=PATIENCE)

        first = stack.enter_context(open_from("203.0.113.1"))
        stack.enter_context(open_from("203.0.113.1"))
        with pytest.raises(InvalidStatus) as refused:
            open_from("203.0.113.1")
        answer = refused.value.response
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert json.loads(answer.body) == {"error": "Too many connections from this address"}
        assert server.stats().turned_away == 1
        # Other senders, requests without an upgrade and the proxy itself are not concerned.
        for address in ("203.0.113.2", "198.51.100.1, 203.0.113.3", None, None, None):
            stack.enter_context(open_from(address))
        for _ in range(4):
            assert request(server, "GET", "/devices", X_Forwarded_For="203.0.113.1").status == 200
        # A closed connection frees its place, and an upgrade that is refused takes none.
        first.close()
        allowed = False

        def is_refused_by_hook() -> bool:
            with pytest.raises(InvalidStatus) as refused:
                open_from("203.0.113.1")
            return refused.value.response.status_code == 403

        wait_until(is_refused_by_hook)
        assert is_refused_by_hook()
        allowed = True
        stack.enter_context(open_from("203.0.113.1"))
        with pytest.raises(InvalidStatus, match="503"):
            open_from("203.0.113.1")
        # An IPv6 sender has a whole /64.
        for host in ("1", "2"):
            stack.enter_context(open_from(f"2001:db8::{host}"))
        with pytest.raises(InvalidStatus, match="503"):
            open_from("2001:db8::3")


def test_page_of_another_site_is_admitted_by_its_origin_only() -> None:
    page = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
    with SignalingServer(allowed_origins=["https://panel.lab"]) as server:
        answer = request(server, "GET", "/devices", headers=page)
        assert answer.status == 403
        assert answer.error == (
            "Pages of other sites are not allowed; --allow-origin admits one, for requests with an Origin"
        )
        assert request(server, "GET", "/devices", headers={**page, "Origin": "https://panel.lab"}).status == 200


def test_contradicting_headers_of_a_trusted_proxy_are_refused() -> None:
    with SignalingServer(trusted_proxies=["127.0.0.1"]) as server:
        answer = request(server, "GET", "/devices", headers={"Forwarded": "for=1.2.3.4", "X-Forwarded-For": "1.2.3.4"})
        assert answer.status == 400
        assert answer.error.startswith("Forwarded and X-Forwarded-* in one request")


@pytest.mark.parametrize("entry", ["proxy.lab", "10.0.0.1/8", "*"])
def test_invalid_proxies_are_config_errors(entry: str) -> None:
    with pytest.raises(ConfigError, match="trusted_proxies"):
        SignalingServer(trusted_proxies=[entry]).start()
