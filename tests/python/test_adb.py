"""`WS /devices/{id}/adb` with Debian's adb, and the rules that need more than one machine or process."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from cuttlefish_signaling import AuthorizeContext, Grant, Limits, Refused, SignalingServer

from adb_programs import AdbDevice, Forwarder, debian_adb, pattern
from client_kinds import both_sockets, register_local_device
from http_requests import request
from peers import PATIENCE, SeqpacketPeer, peers_of, wait_until

needs_adb = pytest.mark.skipif(not shutil.which("adb"), reason="adb is not installed: apt install adb")


def adb_url(server: SignalingServer, device_id: str = "cvd-1") -> str:
    return f"{server.url.replace('http', 'ws', 1)}/devices/{device_id}/adb"


@contextmanager
def adb_client(server: SignalingServer, device_id: str = "cvd-1", **options: Any) -> Iterator[ClientConnection]:
    with connect(adb_url(server, device_id), open_timeout=PATIENCE, max_size=None, **options) as client:
        yield client


def port_listener() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(PATIENCE)
    return listener


def closed_with(client: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as closed:
        client.recv(timeout=PATIENCE)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


@needs_adb
def test_debian_adb_connects_and_transfers_through_a_forwarder(tmp_path: Path) -> None:
    size = 8 * 1024 * 1024
    device = AdbDevice()
    with SignalingServer(adb=True) as server, peers_of(server) as peers, debian_adb(tmp_path) as adb:
        peers.device("cvd-1", {"adb_port": device.port})
        forwarder = Forwarder(adb_url(server))
        assert adb("connect", forwarder.address) == f"connected to {forwarder.address}\n".encode()
        to_device = ("-s", forwarder.address)
        assert adb(*to_device, "get-state") == b"device\n"
        assert adb(*to_device, "shell", "echo", "hi") == b"shell:echo hi\n"
        assert adb(*to_device, "exec-out", f"source {size}") == pattern(size)
        adb(*to_device, "exec-in", "sink", data=pattern(size))
        assert device.digests.get(timeout=PATIENCE) == hashlib.sha256(pattern(size)).hexdigest()
        adb("disconnect", forwarder.address)
        wait_until(lambda: b"adb_connections 0\n" in request(server, "GET", "/metrics").body)
        forwarder.close()
    device.close()


def test_adb_is_off_by_default() -> None:
    with SignalingServer() as server:
        answer = request(server, "GET", "/devices/cvd-1/adb")
        assert (answer.status, answer.error) == (404, "adb is off on this server: --adb (adb=True) turns it on")


def test_announced_port_is_used_before_that_of_device_info(tmp_path: Path) -> None:
    with both_sockets(tmp_path, adb=True) as (server, _peers, path):
        listener = port_listener()
        control = SeqpacketPeer(tmp_path / "control")
        port = listener.getsockname()[1]
        devices = [{"id": "cvd-1", "name": "one", "adb_port": port}]
        control.send({"message_type": "pre-register", "group_name": "lab", "owner": "alice", "devices": devices})
        assert control.receive()[0]["status"] == "accepted"
        _device = register_local_device(path, "cvd-1", device_info={"adb_port": 22})
        with adb_client(server) as client:
            stream, _ = listener.accept()
            client.send(b"CNXN")
            assert stream.recv(100) == b"CNXN"
            stream.close()
            assert closed_with(client) == (1000, "The device closed the adb connection")
        listener.close()


@pytest.mark.parametrize("header", ["Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP"])
def test_device_behind_a_proxy_names_no_port_of_this_machine(header: str) -> None:
    device = AdbDevice()
    with SignalingServer(adb=True) as server, peers_of(server) as peers:
        peers.device("cvd-1", {"adb_port": device.port}, additional_headers={header: "192.0.2.7"})
        with adb_client(server) as client:
            reason = "The device came over the network or through a proxy, and was not announced with an adb port"
            assert closed_with(client) == (1008, reason)
    device.close()


def test_authorize_and_grant_decide_on_adb() -> None:
    asked: list[tuple[str, str]] = []

    def authorize(ctx: AuthorizeContext) -> Grant | None:
        asked.append((ctx.role, ctx.path))
        match ctx.peer.query_string:
            case "stranger":
                raise Refused("no adb for strangers")
            case "other":
                return Grant(devices=["cvd-2"])
        return None

    device = AdbDevice()
    with SignalingServer(adb=True, authorize=authorize) as server, peers_of(server) as peers:
        peers.device("cvd-1", {"adb_port": device.port})
        refused = request(
            server,
            "GET",
            "/devices/cvd-1/adb?stranger",
            headers={
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            },
        )
        assert (refused.status, refused.error) == (403, "no adb for strangers")
        assert asked[-1] == ("client", "/devices/cvd-1/adb")
        # The device of another user is handled as an unknown one.
        with connect(f"{adb_url(server)}?other", open_timeout=PATIENCE) as client:
            assert closed_with(client) == (1008, "Device not found")
        with connect(f"{adb_url(server, 'nowhere')}?other", open_timeout=PATIENCE) as client:
            assert closed_with(client) == (1008, "Device not found")
    device.close()


def send_until_closed(client: ClientConnection) -> None:
    with suppress(ConnectionClosed):
        while True:
            client.send(bytes(64 * 1024))


def test_adb_relays_while_another_adb_connection_is_stuck() -> None:
    device = AdbDevice()
    stuck = port_listener()
    with SignalingServer(adb=True) as server, peers_of(server) as peers:
        peers.device("stuck", {"adb_port": stuck.getsockname()[1]})
        peers.device("cvd-1", {"adb_port": device.port})
        with adb_client(server, "stuck") as hanging, adb_client(server) as client:
            stream, _ = stuck.accept()
            sender = threading.Thread(target=send_until_closed, args=(hanging,), daemon=True)
            sender.start()
            client.send(b"CNXN" + bytes(20))
            answer = client.recv(timeout=PATIENCE)
            assert isinstance(answer, bytes)
            assert answer.startswith(b"CNXN")
            assert sender.is_alive()
            stream.close()
            sender.join(PATIENCE)
            assert not sender.is_alive()
    stuck.close()
    device.close()


SERVE = """
import sys
from cuttlefish_signaling import SignalingServer
with SignalingServer(adb=True) as server:
    print(server.port, flush=True)
    sys.stdin.read()
"""


def peak_memory(process: subprocess.Popen[str]) -> int:
    """The peak of a process's resident memory, in bytes."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def test_transfer_of_100_mb_takes_bounded_memory() -> None:
    size, chunk = 100 * 1024 * 1024, bytes(1024 * 1024)
    listener = port_listener()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CUTTLEFISH_SIGNALING_")}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        url = f"ws://127.0.0.1:{int(process.stdout.readline())}"
        with connect(f"{url}/register_device") as device:
            info = f'{{"adb_port":{listener.getsockname()[1]}}}'
            device.send(f'{{"message_type":"register","device_id":"d","device_info":{info}}}')
            device.recv(timeout=PATIENCE)
            with connect(f"{url}/devices/d/adb", max_size=None) as client:
                stream, _ = listener.accept()
                client.send(chunk)
                received = len(stream.recv(len(chunk), socket.MSG_WAITALL))
                before = peak_memory(process)
                writer = threading.Thread(target=stream.sendall, args=(bytes(size),))
                writer.start()
                while received < size + len(chunk):
                    message = client.recv(timeout=PATIENCE)
                    received += len(message)
                writer.join(PATIENCE)
                reader = threading.Thread(
                    target=lambda: [stream.recv(len(chunk), socket.MSG_WAITALL) for _ in range(size // len(chunk))]
                )
                reader.start()
                for _ in range(size // len(chunk)):
                    client.send(chunk)
                reader.join(3 * PATIENCE)
                assert not reader.is_alive()
                assert peak_memory(process) - before < 8 * 1024 * 1024
                stream.close()
    finally:
        process.kill()
        process.communicate()
        listener.close()


def test_limit_of_adb_connections_is_a_setting() -> None:
    device = AdbDevice()
    with SignalingServer(adb=True, limits=Limits(max_adb=1)) as server, peers_of(server) as peers:
        peers.device("cvd-1", {"adb_port": device.port})
        with adb_client(server):
            wait_until(lambda: b"adb_connections 1\n" in request(server, "GET", "/metrics").body)
            with adb_client(server) as second:
                assert closed_with(second) == (1013, "Too many adb connections: at most 1")
        assert server.stats().turned_away == 1
        assert b"adb_refused_total 1\n" in request(server, "GET", "/metrics").body
    device.close()
