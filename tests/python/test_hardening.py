"""Hostile peers and unsafe settings: limits, rates, tokens, hosts, origins, and logs."""

from __future__ import annotations

import datetime
import http.client
import json
import logging
import os
import resource
import socket
import ssl
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from cuttlefish_signaling import (
    AuthorizeContext,
    ConfigError,
    Limits,
    PeerClosedError,
    SignalingError,
    SignalingServer,
    StaticTokens,
    Tls,
    TlsError,
)
from cuttlefish_signaling.testing import FakeClient, FakeDevice

from http_requests import request
from peers import PATIENCE, Peers, assert_relays, peers_of


@pytest.fixture
def server() -> Iterator[SignalingServer]:
    with SignalingServer() as server:
        yield server
    assert server.stats().balances


# Tokens ---------------------------------------------------------------------------------------------------------------


def upgrade_status(server: SignalingServer, url: str, **options: Any) -> int:
    """The HTTP status of an upgrade, 101 if it is accepted."""
    try:
        with connect(url, open_timeout=PATIENCE, **options):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def test_tokens_in_header_or_subprotocol() -> None:
    with SignalingServer(authorize=StaticTokens({"s3cret": {"name": "alice"}, "0ther": "bob"})) as server:
        with connect(server.device_url, additional_headers={"Authorization": "Bearer s3cret"}) as device:
            device.send('{"message_type":"register","device_id":"cvd-1"}')
            device.recv(timeout=PATIENCE)
            assert server.wait_for_device("cvd-1").identity == {"name": "alice"}
        with connect(server.client_url, subprotocols=["webrtc-operator", "bearer.0ther"]) as client:  # type: ignore[list-item]
            assert client.subprotocol == "webrtc-operator", "the token is not in the response"
        for header in ("bearer s3cret", "BEARER  s3cret "):
            assert upgrade_status(server, server.client_url, additional_headers={"Authorization": header}) == 101
        for header in (
            "Bearer",
            "Bearer ",
            "Basic s3cret",
            "Bearer s3cre",
            "Bearer s3crett",
            "s3cret",
            "Bearer \u00e9",
        ):
            assert upgrade_status(server, server.client_url, additional_headers={"Authorization": header}) == 401, (
                header
            )
        assert upgrade_status(server, server.client_url) == 401
        assert upgrade_status(server, server.client_url, subprotocols=["bearer.guess"]) == 401
        assert server.stats().unauthorized == 9
        assert server.hook_errors == []


def test_tokens_apply_to_given_roles(caplog: pytest.LogCaptureFixture) -> None:
    tokens = StaticTokens(["s3cret"], roles=["client"])
    with (
        caplog.at_level(logging.DEBUG, logger="cuttlefish_signaling"),
        SignalingServer(authorize=tokens) as server,
        peers_of(server) as peers,
    ):
        device = peers.device()
        assert_relays(peers.client(additional_headers={"Authorization": "Bearer s3cret"}), device)
        assert upgrade_status(server, server.client_url, additional_headers={"Authorization": "Bearer wr0ng"}) == 401
        assert server.clients()[0].identity is None
    logged = "".join(str(vars(record)) for record in caplog.records if record.name == "cuttlefish_signaling")
    assert "refused client" in logged
    assert "s3cret" not in logged
    assert "wr0ng" not in logged
    assert "s3cret" not in repr(tokens) + repr(vars(tokens))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: StaticTokens([]), "must have at least one token"),
        (lambda: StaticTokens([""]), "must be a string that is not empty"),
        (lambda: StaticTokens([1]), "must be a string that is not empty"),  # type: ignore[list-item]
        (lambda: StaticTokens("s3cret"), "got a value of type str"),
        (lambda: StaticTokens(["x"], roles=["admin"]), "'admin' is not one of 'device', 'client', 'http'"),
    ],
)
def test_invalid_tokens_are_config_errors(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


def issue_certificate(name: str, issuer: Any = None) -> tuple[Any, bytes, bytes]:
    """A certificate of an authority, or one that it issued. Returns the issuer, and certificate and key as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, name), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "lab")]
    )
    signer, signed_by = issuer or (key, subject)
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder(signed_by, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return (key, subject), pem, secret


def test_client_certificates_are_verified(tmp_path: Path) -> None:
    authority, authority_pem, _ = issue_certificate("lab authority")
    _, alice, alice_key = issue_certificate("alice", authority)
    stranger_authority, _, _ = issue_certificate("another authority")
    _, mallory, mallory_key = issue_certificate("mallory", stranger_authority)

    def authorize(ctx: AuthorizeContext) -> str | None:
        return ctx.peer.certificate

    tls = Tls.self_signed(client_ca=authority_pem)

    def context(certificate: bytes | None, key: bytes | None) -> ssl.SSLContext:
        context = tls.client_context()
        if certificate is not None and key is not None:
            file = tmp_path / "client.pem"
            file.write_bytes(certificate + key)
            context.load_cert_chain(file)
        return context

    with SignalingServer(tls=tls, authorize=authorize) as server:
        with FakeDevice(server, tls=context(alice, alice_key)):
            assert server.wait_for_device("cvd-1").identity == "CN=alice, O=lab"
        for wrong in (context(None, None), context(mallory, mallory_key)):
            with pytest.raises(SignalingError):
                FakeDevice(server, tls=wrong).start()
        assert server.devices() == []
    # Client certificates are authentication: no `authorize` is needed.
    with SignalingServer(host="0.0.0.0", tls=tls):
        pass
    with pytest.raises(TlsError, match="no certificate .* in the PEM of the authority of clients"):
        Tls.self_signed(client_ca=b"invalid")
    with pytest.raises(TlsError, match="cannot read the authority of clients"):
        Tls.self_signed(client_ca=tmp_path / "none.pem")


# Hosts, origins, addresses --------------------------------------------------------------------------------------------


def answer(server: SignalingServer, path: str = "/devices", **headers: str) -> tuple[int, Any]:
    response = request(server, "GET", path, None, None, **headers)
    return response.status, response.json


def test_allowed_hosts_and_origins() -> None:
    with SignalingServer(allowed_hosts=["signal.lab"], allowed_origins=["https://panel.lab"]) as server:
        assert answer(server)[0] == 200
        assert answer(server, Host="signal.lab:8443")[0] == 200
        assert answer(server, Origin="https://panel.lab")[0] == 200
        assert answer(server, Origin=server.url)[0] == 200
        assert answer(server, Host="evil.example") == (
            403,
            {"error": "Host not allowed: evil.example; --allow-host admits it"},
        )
        assert answer(server, Origin="https://evil.example") == (
            403,
            {"error": "Origin not allowed: https://evil.example; --allow-origin admits it"},
        )
        assert server.stats().foreign == 2
    with SignalingServer(host="localhost") as server:
        assert answer(server, Host=f"localhost:{server.port}")[0] == 200


def test_device_origin_of_server_host_is_allowed(server: SignalingServer) -> None:
    """docs/protocol.md 3: an origin policy must not lock devices out, and a web page of another host is no device."""
    for origin in (f"https://127.0.0.1:{server.port}", "https://127.0.0.1", "http://127.0.0.1:1"):
        with connect(server.device_url, origin=Origin(origin)):
            pass
    for url in (server.device_url, server.client_url):
        with pytest.raises(InvalidStatus, match="403"), connect(url, origin=Origin("https://evil.example")):
            pass


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"allowed_hosts": "lab"}, "allowed_hosts: must be a list of strings"),
        ({"allowed_hosts": ["http://lab"]}, "'http://lab' is not a host name; write it without scheme and port"),
        ({"allowed_hosts": ["lab:80"]}, "without scheme and port"),
        (
            {"allowed_origins": ["panel.lab"]},
            "'panel.lab' is not an origin; write it with its scheme, like https://panel.lab",
        ),
        ({"allowed_origins": [None]}, "got None in it"),
        ({"allow_unauthenticated": 1}, "allow_unauthenticated: must be True or False"),
        ({"limits": Limits(max_connections=0)}, "limits.max_connections: must be between 1"),
        ({"limits": Limits(message_per_second=2**33)}, "limits.message_per_second: must be between 1 and 4294967295"),
        ({"limits": Limits(write_timeout=0)}, "limits.write_timeout"),
    ],
)
def test_invalid_access_settings_are_config_errors(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SignalingServer(**settings).start().stop()


def test_nonloopback_host_requires_authorize(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(
        ConfigError, match=r"host: 0\.0\.0\.0 can be reached from other machines.*allow_unauthenticated"
    ):
        SignalingServer(host="0.0.0.0").start()
    with SignalingServer(host="0.0.0.0", authorize=StaticTokens(["s3cret"])):
        pass
    assert "without `authorize`" not in caplog.text
    with SignalingServer(host="0.0.0.0", allow_unauthenticated=True):
        pass
    assert "whoever reaches it may register devices and use all of them" in caplog.text


# Limits ---------------------------------------------------------------------------------------------------------------


def test_limits_are_enforced() -> None:
    limits = Limits(error_per_second=1, error_burst=20, max_clients_per_device=1, max_first_message=500)
    with (
        SignalingServer(limits=limits) as server,
        FakeDevice(server, info=1) as device,
    ):
        with FakeClient(server):
            with pytest.raises(ConnectionError, match="Too many clients of device 'cvd-1'"):
                FakeClient(server).start()
        with pytest.raises(ConnectionError):
            FakeDevice(server, "large", info="x" * 500).start()
        with pytest.raises(PeerClosedError):
            while True:
                device.send_raw('{"message_type":"?"}')
        assert device.wait_closed() == 1008
        assert device.errors[-1] == "Too many errors: at most 1 a second"
        stats = server.stats()
        assert (stats.too_fast, stats.misbehaved, stats.turned_away) == (1, 1, 1)


def test_peer_strings_are_escaped_in_log(server: SignalingServer, caplog: pytest.LogCaptureFixture) -> None:
    evil = "\x1b[2J\r\nINFO device 'good' registered\u2028\x00"
    # An id has no control characters; U+202E, which changes the direction of writing, is not one.
    name = "cvd\u202e-1"
    with caplog.at_level(logging.INFO, logger="cuttlefish_signaling"):
        with FakeDevice(server, name), FakeClient(server, name):
            pass
        with connect(server.device_url, subprotocols=[Subprotocol("webrtc-operator")]) as device:
            device.send(json.dumps({"message_type": evil}))
            device.send(json.dumps({"message_type": "register", "device_id": "\u202e", "device_info": 1}))
            assert device.recv() == '{"message_type":"config","ice_servers":[]}'
        answer(server, Host=evil.encode("unicode_escape").decode())
        server.stop()
    text = "".join(record.getMessage() for record in caplog.records)
    assert "registered from" in text
    assert "no error is sent to device" in text
    assert not [character for character in text if not character.isprintable()]


HUNGRY = """
import resource, socket, sys
from cuttlefish_signaling import SignalingServer
import logging
logging.basicConfig(stream=sys.stdout, format="%(message)s")
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), 4096))
with SignalingServer() as server:
    print(server.port, flush=True)
    sys.stdin.readline()
"""


def test_accept_recovers_from_descriptor_exhaustion() -> None:
    """The server logs once a second, does not spin, and accepts again when there are descriptors."""
    process = subprocess.Popen(
        [sys.executable, "-c", HUNGRY, "40"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        began = time.monotonic()
        with ExitStack() as held:
            for _ in range(100):
                held.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
            assert "cannot accept connections" in process.stdout.readline()
            before = cpu_seconds(process.pid)
            for _ in range(2):
                assert "cannot accept connections" in process.stdout.readline()
            # The third line cannot come sooner, however late this process reads the first.
            assert time.monotonic() - began > 1.5, "one line a second"
            assert cpu_seconds(process.pid) - before < 0.5, "it does not spin"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        process.stdin.close()
        process.wait(PATIENCE)
        process.stdout.close()


def cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_cli_raises_descriptor_limit() -> None:
    body = """
    import resource, sys
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 1000))
    from cuttlefish_signaling.cli.process import raise_descriptor_limit
    raise_descriptor_limit()
    print(resource.getrlimit(resource.RLIMIT_NOFILE))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(body)], capture_output=True, text=True, check=True)
    assert done.stdout == "(1000, 1000)\n"
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] != 1000


def test_5000_connects_do_not_disturb_established_pair(server: SignalingServer) -> None:
    with peers_of(server) as peers:
        device = peers.device("established")
        client = peers.client("established")
        for _ in range(5000):
            socket.create_connection(("127.0.0.1", server.port), PATIENCE).close()
        assert_relays(client, device)


KINDS: list[Any] = [None, 1, [], {}, "", "\x00", "\ud800", "x" * 5000]
IDS = ["0", '""', "[]", "null", '"\\ud800"']
CLIENT_IDS = ["-1", "0.5", "1e999", "99999999999", '"1"', "null", "[]", "2147483648", "-0", "1e-1"]
NO_JSON = ["", " ", "nul", "01", "1.", "NaN", "{}x", '{"a":1,}', "/**/{}", '{"a":1}{"b":2}', "\ufeff{}"]
HOSTILE = [
    *(b"\xff", b"\xed\xa0\x80", b"{" * 60_000, b"[" * 129, b'{"a":' * 200 + b"1" + b"}" * 200),
    *(json.dumps({"message_type": kind}).encode() for kind in KINDS),
    *(f'{{"message_type":"register","device_id":{value}}}'.encode() for value in IDS),
    *(f'{{"message_type":"forward","client_id":{value},"payload":1}}'.encode() for value in CLIENT_IDS),
    *(text.encode() for text in NO_JSON),
    *(b'{"message_type":"?","message_type":"?"}', b'{"\\u006dessage_type":"?","message_type":"?"}'),
    *(b'{"message_type":"' + bytes([number]) + b'"}' for number in range(256) if number not in (0x22, 0x5C)),
]


def test_200_hostile_messages_do_not_disturb_established_pair(peers: Peers) -> None:
    """Each is answered, or closes its sender. An established pair keeps relaying."""
    assert len(HOSTILE) >= 200
    device, client = peers.device("established"), peers.client("established")
    for number, row in enumerate(HOSTILE):
        with connect(peers.server.device_url, close_timeout=1) as hostile:
            hostile.send(row, text=True)
            heard = json.loads(hostile.recv(timeout=PATIENCE))
            assert "error" in heard or heard["message_type"] == "config", row[:80]
        if number % 50 == 0:
            assert_relays(client, device)
    assert_relays(client, device)
    assert peers.server.stats().panics == 0
