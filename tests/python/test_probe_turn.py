"""`probe --turn` against a real coturn: allocations, wrong passwords, expired credentials."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import test_coturn
from aioice import stun

from cuttlefish_signaling import IceServerDict, SignalingServer, TurnRest
from cuttlefish_signaling.probe import ProbeOptions, Report, probe, probe_async
from cuttlefish_signaling.webrtc import WebRtcDevice

import staged_servers as staged
from peers import PATIENCE

turn = test_coturn.turn
needs_coturn = test_coturn.pytestmark
OPTIONS = ProbeOptions(timeout=PATIENCE, turn=True)


def rest(url: str, expires: float, secret: str = test_coturn.SECRET) -> IceServerDict:
    """The credential of a TURN server with a shared secret."""
    username = f"{expires:.0f}:probe"
    digest = hmac.new(secret.encode(), username.encode(), hashlib.sha1).digest()
    return {"urls": [url], "username": username, "credential": base64.b64encode(digest).decode()}


def checked(*servers: IceServerDict, timeout: float = PATIENCE) -> Report:
    """The report with these TURN servers."""
    with SignalingServer() as server:
        return probe(server.url, options=ProbeOptions(timeouts={"turn": timeout}, turn_servers=servers))


@needs_coturn
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_allocation_with_credentials_of_the_server(turn: str, transport: str) -> None:
    url = turn.replace("=udp", f"={transport}")
    with SignalingServer(ice_servers=TurnRest(url, secret=test_coturn.SECRET, ttl=600)) as server:
        report = probe(server.url, options=OPTIONS)
    assert report.ok, report.text()
    (found,) = report.step("turn").facts["servers"]
    assert found["outcome"] == "allocated" and found["relayed"] == "127.0.0.1"
    assert 500 < found["expires_in"] < 601
    with SignalingServer(ice_servers=[rest(url, time.time() + 600)]) as server:
        assert rest(url, time.time() + 600)["credential"] not in probe(server.url, options=OPTIONS).json()


@needs_coturn
def test_wrong_password_and_expired_credential(turn: str) -> None:
    report = checked(rest(turn, time.time() + 600, "another"))
    assert (report.failed_stage, report.cause, report.exit_status) == ("turn", "turn_wrong_password", 18)
    report = checked(rest(turn, time.time() - 100))
    assert (report.failed_stage, report.cause) == ("turn", "turn_credential_expired")
    report = checked({"urls": turn})
    assert (report.failed_stage, report.cause) == ("turn", "turn_credential_missing")


@needs_coturn
def test_session_goes_on_after_a_faulty_turn_server(turn: str) -> None:
    async def run() -> Report:
        servers = [rest(turn, time.time() + 600, "another")]
        options = ProbeOptions(timeout=PATIENCE, turn=True, seconds=0.2)
        async with SignalingServer(ice_servers=servers) as server, WebRtcDevice(server, timeout=PATIENCE):
            return await probe_async(server.url, "cvd-1", options)

    report = asyncio.run(asyncio.wait_for(run(), 3 * PATIENCE))
    assert (report.failed_stage, report.cause) == ("turn", "turn_wrong_password")
    assert report.step("answer").findings[0].cause == "no_relay_candidate"
    assert report.step("media").status == "ok", report.text()


def test_server_without_turn() -> None:
    with SignalingServer(ice_servers=[{"urls": ["stun:127.0.0.1:9"]}]) as server:
        report = probe(server.url, options=OPTIONS)
    assert (report.failed_stage, report.cause) == ("turn", "no_turn")


@pytest.fixture
def silent() -> Iterator[str]:
    """A UDP port that answers nothing."""
    import socket

    with socket.socket(type=socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        yield f"turn:127.0.0.1:{listening.getsockname()[1]}"


def test_turn_server_does_not_answer(silent: str) -> None:
    report = checked({"urls": [silent], "username": "a", "credential": "b"}, timeout=0.2)
    assert (report.failed_stage, report.cause) == ("turn", "turn_silent")


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("turn:127.0.0.1:1?transport=tcp", "turn_unreachable"),
        ("turn:no-such-host.invalid", "turn_name_unknown"),
        ("turn:a b", "turn_bad_url"),
    ],
)
def test_turn_server_is_not_there(url: str, cause: str) -> None:
    report = checked({"urls": [url], "username": "a", "credential": "b"})
    assert (report.failed_stage, report.cause) == ("turn", cause)


@pytest.mark.parametrize(
    ("scheme", "handler", "causes"),
    [
        ("turns", staged.sends(b"SSH-2.0-x\r\n"), ["turn_tls"]),
        ("turns", staged.closes_at_once, ["turn_unreachable", "turn_tls"]),
        ("turn", staged.sends(b"SSH-2.0-x\r\n"), ["turn_silent"]),
        ("turn", staged.sends(b"\x01\x13\x00\x00" + b"x" * 16), ["turn_silent"]),
        ("turn", staged.closes_at_once, ["turn_silent"]),
    ],
)
def test_other_program_answers_turn(scheme: str, handler: staged.Handler, causes: list[str]) -> None:
    async def run() -> Report:
        with SignalingServer() as server:
            async with staged.serving(handler) as port:
                url = f"{scheme}:127.0.0.1:{port}?transport=tcp"
                servers = ({"urls": [url], "username": "a", "credential": "b"},)
                # Only those that time out need the deadline.
                seconds = 0.3 if "turn_silent" in causes else PATIENCE
                return await probe_async(
                    server.url, options=ProbeOptions(timeouts={"turn": seconds}, turn_servers=servers)
                )

    report = asyncio.run(run())
    assert report.failed_stage == "turn" and report.cause in causes, report.text()


class FakeTurn(asyncio.DatagramProtocol):
    """A TURN server that grants each allocation, with this relayed address."""

    def __init__(self, relayed: str) -> None:
        self.relayed = relayed
        self.lifetimes: list[int] = []
        self.transport: asyncio.DatagramTransport

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        request = stun.parse_message(data)
        self.lifetimes.append(request.attributes["LIFETIME"])
        attributes = {"LIFETIME": request.attributes["LIFETIME"]}
        if request.message_method == stun.Method.ALLOCATE:
            attributes |= {"XOR-MAPPED-ADDRESS": addr, "XOR-RELAYED-ADDRESS": (self.relayed, 50000)}
        answer = stun.Message(request.message_method, stun.Class.RESPONSE, request.transaction_id, attributes)
        self.transport.sendto(bytes(answer), addr)


class Garbled(FakeTurn):
    """A TURN server whose answer has an attribute that is too short."""

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        attribute = b"\x00\x0c\x00\x01\x00\x00\x00\x00"  # CHANNEL-NUMBER, of one byte.
        self.transport.sendto(b"\x01\x03\x00\x08" + data[4:20] + attribute, addr)


async def with_fake(fake: FakeTurn, *flags: str) -> tuple[int | None, bytes, Any]:
    """The status, stderr and report of the program with this TURN server."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: fake, local_addr=("127.0.0.1", 0))
    url = f"turn:127.0.0.1:{transport.get_extra_info('sockname')[1]}"
    with SignalingServer() as server:
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                "cuttlefish_signaling",
                "probe",
                server.url,
                "--json",
                "--turn-server",
                url,
                *flags,
            ),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, error = await process.communicate()
    transport.close()
    return process.returncode, error, json.loads(out)


def test_allocation_is_given_back() -> None:
    fake = FakeTurn("10.0.0.9")
    status, error, report = asyncio.run(asyncio.wait_for(with_fake(fake), 2 * PATIENCE))
    assert (status, error) == (0, b""), report
    assert len(fake.lifetimes) == 2 and fake.lifetimes[0] > 0 and fake.lifetimes[1] == 0


def test_answer_of_turn_server_that_cannot_be_read_is_no_traceback() -> None:
    """Aioice raises struct.error in a callback, which asyncio would print."""
    status, error, report = asyncio.run(asyncio.wait_for(with_fake(Garbled(""), "--timeout=turn=1"), 2 * PATIENCE))
    assert (status, error, report["cause"]) == (18, b"", "turn_silent")
