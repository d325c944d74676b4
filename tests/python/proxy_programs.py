"""Debian's nginx and haproxy as real programs before a server of the tests."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ports import free_port

from cuttlefish_signaling import SignalingServer

from http_requests import request
from peers import PATIENCE, wait_until

needs_nginx = pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed: apt install nginx-light")
needs_haproxy = pytest.mark.skipif(not shutil.which("haproxy"), reason="haproxy is not installed: apt install haproxy")

HEADERS = """
proxy_http_version 1.1;
proxy_set_header Upgrade $http_upgrade;
proxy_set_header Connection "Upgrade";
proxy_set_header Host 127.0.0.1:2081;
proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
proxy_set_header X-Forwarded-Proto $scheme;
proxy_set_header X-Forwarded-Host $http_host;
proxy_set_header Forwarded "";
"""
"""The lines of the guide, with the Host that the host package's nginx sets."""


@contextmanager
def program(command: list[str], port: int, log: Path) -> Iterator[None]:
    """A proxy in the foreground of a process of its own, which ends with the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)

    def listens() -> bool:
        assert process.poll() is None, log.read_text(errors="replace")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(listens)
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)


@contextmanager
def run_nginx(directory: Path, servers: str, port: int) -> Iterator[None]:
    """Nginx with these `server` blocks, of which one listens on the port."""
    directory.mkdir(exist_ok=True)
    temporary = "".join(
        f"{kind}_temp_path {directory}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = directory / "nginx.conf"
    config.write_text(
        f"daemon off; master_process off; pid {directory}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {temporary}\n{servers}\n}}\n"
    )
    command = ["nginx", "-p", str(directory), "-c", str(config), "-e", "stderr"]
    with program(command, port, directory / "nginx.log"):
        yield


@contextmanager
def nginx(directory: Path, server: SignalingServer, location: str = "/", extra: str = HEADERS) -> Iterator[int]:
    """Nginx before the server. Yields its port."""
    port = free_port()
    # With a path, the prefix of the location is replaced by it.
    upstream = f"http://127.0.0.1:{server.port}{'' if location == '/' else '/'}"
    block = f"server {{ listen 127.0.0.1:{port}; location {location} {{ proxy_pass {upstream}; {extra} }} }}"
    with run_nginx(directory, block, port):
        yield port


class At:
    """The address of a proxy, for requests."""

    def __init__(self, port: int) -> None:
        self.port = port


def ask(port: int, path: str = "/devices", **headers: str) -> int:
    proxy: Any = At(port)
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return request(proxy, "GET", path, headers=fields).status
