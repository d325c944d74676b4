"""A real coturn with the settings of examples/coturn: credentials made by this server get a relayed address there."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ports import free_port

from cuttlefish_signaling import SignalingServer, TurnRest
from cuttlefish_signaling.webrtc import WebRtcClient, WebRtcDevice

from peers import PATIENCE

SETTINGS = Path(__file__).parents[2] / "examples" / "coturn" / "turnserver.conf"
SECRET = "change-me"

pytestmark = pytest.mark.skipif(not shutil.which("turnserver"), reason="coturn is not installed: apt install coturn")


@pytest.fixture
def turn(tmp_path: Path) -> Iterator[str]:
    """The URL of a coturn on loopback."""
    port = free_port()
    assert f"static-auth-secret={SECRET}" in SETTINGS.read_text(encoding="utf-8")
    where = ["--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", f"--listening-port={port}", "--allow-loopback-peers"]
    files = [f"--pidfile={tmp_path}/pid", f"--userdb={tmp_path}/db", "--log-file=stdout", "--no-tls", "--no-dtls"]
    command = ["turnserver", "-c", str(SETTINGS), *where, *files]
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        assert answers_binding_request(port), (tmp_path / "log").read_text()
        yield f"turn:127.0.0.1:{port}?transport=udp"
    finally:
        process.terminate()
        process.wait(PATIENCE)


def answers_binding_request(port: int) -> bool:
    """Sends binding requests (RFC 8489, section 5) until one is answered."""
    request = struct.pack("!HHI12s", 0x0001, 0, 0x2112A442, os.urandom(12))
    with socket.socket(type=socket.SOCK_DGRAM) as asker:
        asker.settimeout(0.1)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                asker.sendto(request, ("127.0.0.1", port))
                return asker.recv(1024)[:2] == b"\x01\x01"
            except (TimeoutError, ConnectionError):
                pass
    return False


def relayed_candidates(server: SignalingServer) -> list[str]:
    """The relayed candidates in the journal."""
    payloads = [str(entry.payload) for entry in server.journal.messages(type="ice-candidate")]
    return [candidate for candidate in payloads if "typ relay" in candidate]


async def session(turn: str, secret: str) -> list[str]:
    rest = TurnRest(turn, secret=secret, ttl=60)
    async with SignalingServer(ice_servers=rest, journal=True) as server:
        async with WebRtcDevice(server, timeout=PATIENCE) as _, WebRtcClient(server, timeout=PATIENCE) as client:
            await client.frames(2)
        return relayed_candidates(server)


def test_turn_credentials_are_accepted(turn: str) -> None:
    assert asyncio.run(asyncio.wait_for(session(turn, SECRET), 60)) != []


def test_credentials_of_other_secret_are_refused(turn: str) -> None:
    assert asyncio.run(asyncio.wait_for(session(turn, "another"), 60)) == []
