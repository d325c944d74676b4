"""`serve --operator` behind the web server of a host: Debian's nginx with the lines of the host package."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ports import free_port
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from cuttlefish_signaling import Tls

from adb_programs import AdbDevice
from client_kinds import register_local_device
from peers import PATIENCE, SeqpacketPeer
from proxy_programs import needs_nginx, run_nginx

HOST_NGINX = """
server {{
  listen 127.0.0.1:{port} ssl default_server;
  ssl_certificate {certificate};
  ssl_certificate_key {key};
  location / {{
    location ~* ^/.*/adb$ {{
      proxy_pass http://127.0.0.1:{orchestrator};
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection "Upgrade";
      proxy_set_header Host $host;
    }}
    proxy_pass http://127.0.0.1:{orchestrator};
  }}
}}
"""
"""The web server of the host package, which replaces Host and writes no X-Forwarded header."""

ORCHESTRATOR = """
map $http_upgrade $connection_of_upgrade {{ default upgrade; '' close; }}
server {{
  listen 127.0.0.1:{orchestrator};
  location / {{
    proxy_pass http://127.0.0.1:{operator};
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_of_upgrade;
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  }}
}}
"""
"""The orchestrator: it keeps Host and appends to X-Forwarded-For, as the reverse proxy of Go's net/http does."""

THIS = socket.gethostname().lower()


class Host(NamedTuple):
    """A host with nginx, orchestrator and operator."""

    port: int
    context: ssl.SSLContext
    device: SeqpacketPeer
    adb: AdbDevice

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Asks nginx. Returns the status and the parsed body."""
        connection = HTTPSConnection("localhost", self.port, timeout=PATIENCE, context=self.context)
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), fields)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or "null")
        finally:
            connection.close()

    def connect(self, path: str, host: str = "localhost", **options: Any) -> Any:
        """Opens a WebSocket through nginx, by a name of the machine."""
        stream = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        options = {"ssl": self.context, "server_hostname": "localhost", "open_timeout": PATIENCE, **options}
        return connect(f"wss://{host}:{self.port}{path}", sock=stream, **options)


@contextmanager
def host(directory: Path, *arguments: str) -> Iterator[Host]:
    """Runs `serve --operator` and nginx before it, with free ports in the place of the package's."""
    port, orchestrator, operator = free_port(), free_port(), free_port()
    tls = Tls.kept_in(directory / "state", names=["localhost"])
    (directory / "defaults").write_text(f"operator_http_port={operator}\n")
    command = [sys.executable, "-m", "cuttlefish_signaling", "serve", "--operator", "--log-file=", *arguments]
    command += [f"--operator-defaults={directory}/defaults", f"--device-socket={directory}/operator"]
    command += [f"--control-socket={directory}/operator_control"]
    files = {"certificate": f"{directory}/state/server.pem", "key": f"{directory}/state/server.key"}
    blocks = (HOST_NGINX + ORCHESTRATOR).format(port=port, orchestrator=orchestrator, operator=operator, **files)
    adb = AdbDevice()
    with (
        (directory / "log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            while not process.stdout.readline().startswith("listening:"):
                assert process.poll() is None, (directory / "log").read_text()
            with run_nginx(directory / "nginx", blocks, port):
                device = register_local_device(directory / "operator", "cvd-1", device_info={"adb_port": adb.port})
                yield Host(port, tls.client_context(), device, adb)
                device.close()
        finally:
            process.terminate()
            process.wait(PATIENCE)
    adb.close()


@needs_nginx
def test_page_of_the_machine_falls_back_to_polling(tmp_path: Path) -> None:
    """The web server upgrades no WebSocket but adb's. Each POST of a page has its origin, and another Host."""
    with host(tmp_path) as farm:
        for origin in (f"https://{THIS}:2443", "https://localhost:2443", "http://127.0.0.1:2080"):
            with pytest.raises(InvalidStatus) as refused:
                farm.connect("/connect_client", origin=origin).__enter__()
            assert refused.value.response.status_code == 426
            status, answer = farm.ask("POST", "/polled_connections", {"device_id": "cvd-1"}, Origin=origin)
            assert status == 200
            path = f"/polled_connections/{answer['connection_id']}"
            status, answer = farm.ask("POST", f"{path}/:forward", {"payload": {"from": origin}}, Origin=origin)
            assert (status, answer) == (200, "ok")
            message = farm.device.receive()
            assert message["payload"] == {"from": origin}
            reply = {"message_type": "forward", "client_id": message["client_id"], "payload": 7}
            farm.device.send(reply)
            status, messages = farm.ask("GET", f"{path}/messages?start=0&count=1")
            assert (status, messages) == (200, [{"message_type": "device_msg", "payload": 7}])


@needs_nginx
def test_pages_of_other_machines_are_refused_with_the_flag(tmp_path: Path) -> None:
    with host(tmp_path) as farm:
        for origin in (
            "https://evil.example:2443",
            "https://203.0.113.9:2443",
            f"https://{THIS}",
            f"https://{THIS}:8443",
            f"https://{THIS}.evil.example:2443",
            f"http://{THIS}:2443",
            "null",
        ):
            status, answer = farm.ask("POST", "/polled_connections", {"device_id": "cvd-1"}, Origin=origin)
            assert (status, answer["error"]) == (403, f"Origin not allowed: {origin}; --allow-origin admits it")
        # The nginx of the package passes these headers on, so they are the page's own.
        forged = {"X_Forwarded_Host": "203.0.113.9:2443", "X_Forwarded_Proto": "https"}
        origin = "https://203.0.113.9:2443"
        status, _ = farm.ask("POST", "/polled_connections", {"device_id": "cvd-1"}, Origin=origin, **forged)
        assert status == 403


@needs_nginx
def test_flag_replaces_the_origins_of_the_preset(tmp_path: Path) -> None:
    with host(tmp_path, "--allow-origin", "https://panel.lab") as farm:
        for origin, expected in (("https://panel.lab", 200), (f"https://{THIS}:2443", 403)):
            status, _ = farm.ask("POST", "/polled_connections", {"device_id": "cvd-1"}, Origin=origin)
            assert status == expected


@needs_nginx
def test_adb_is_upgraded_by_the_name_of_the_machine(tmp_path: Path) -> None:
    """On the paths of adb nginx sends the name that the client has used as Host."""
    hello = b"CNXN" + bytes.fromhex("01000001 00001000 00000000 00000000 bcb1a7b1")
    with host(tmp_path) as farm:
        for name in ("127.0.0.1", "localhost", THIS):
            with farm.connect("/devices/cvd-1/adb", name, origin=f"https://{name}:2443") as client:
                client.send(hello)
                assert client.recv(timeout=PATIENCE)[:4] == b"CNXN"
        with pytest.raises(InvalidStatus) as refused:
            farm.connect("/devices/cvd-1/adb", "evil.example").__enter__()
        assert refused.value.response.status_code == 403
        assert b"Host not allowed: evil.example; --allow-host admits it" in refused.value.response.body
