"""A device on libwebsockets on this server: it reconnects after each failure, and is never lost."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from device_program import RECONNECT_MS, Device, Server, assert_relays, build, registered

MAX_FRAME = 65_536


@pytest.fixture(scope="module", autouse=True)
def program() -> None:
    build()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with its default certificate, for tests that leave it running."""
    with Server(tmp_path_factory.mktemp("server")) as server:
        yield server


def server_certificate(directory: Path, *, self_signed: bool) -> tuple[str, str]:
    """A certificate and its key, self-signed or by an authority that is not in the file."""
    key, authority = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.timezone.utc)
    subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("lab", "authority"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if self_signed else issuer)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key if self_signed else authority, hashes.SHA256())
    )
    paths = directory / "server.pem", directory / "server.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(paths[0]), str(paths[1])


def test_device_registers_and_relays_with_default_certificate(server: Server) -> None:
    with registered(server, "relays") as device, server.client("relays") as client:
        first = assert_relays(client, device, peer="new")
        assert assert_relays(client, device, peer="old") == first
        client.close()
        assert device.event() == f"gone {first}"
        with server.client("relays") as other:
            assert assert_relays(other, device, peer="new") != first


def test_device_registers_with_self_signed_leaf(tmp_path: Path) -> None:
    certificate, key = server_certificate(tmp_path, self_signed=True)
    with Server(tmp_path, "--tls-cert", certificate, "--tls-key", key) as server, registered(server):
        pass


def test_device_refuses_chain_without_authority(tmp_path: Path) -> None:
    certificate, key = server_certificate(tmp_path, self_signed=False)
    with Server(tmp_path, "--tls-cert", certificate, "--tls-key", key) as server, Device(server.device_url) as device:
        for delay in (RECONNECT_MS * 2, RECONNECT_MS * 4):
            assert device.event().startswith("failed ")
            assert device.event() == f"reconnect in {delay}"


def test_device_returns_after_restarts(tmp_path: Path) -> None:
    with Server(tmp_path) as server, registered(server) as device:
        for _ in range(3):
            with server.client("cvd-1") as client:
                assert_relays(client, device)
                server.stop()
                device.until("closed 1001", f"reconnect in {RECONNECT_MS}")
            server.start()
            device.until("connected", "config")
            device.forward(7, {"type": "offer"})
            assert device.event() == "gone 7"


def test_device_returns_with_its_peers_after_sigkill(tmp_path: Path) -> None:
    with Server(tmp_path) as server, registered(server) as device:
        for peer in ("new", "old", "old"):
            with server.client("cvd-1") as client:
                assert_relays(client, device, peer=peer)
                server.kill()
                device.until("closed 1006", f"reconnect in {RECONNECT_MS}", "failed")
            server.start()
            device.until("connected", "config")


def test_unique_client_ids_match_no_earlier_peer(tmp_path: Path) -> None:
    with Server(tmp_path, "--client-ids", "unique") as server, registered(server) as device:
        earlier: list[int] = []
        for _ in range(3):
            with server.client("cvd-1") as client:
                earlier.append(assert_relays(client, device, peer="new"))
                server.kill()
                device.until("closed 1006")
            server.start()
            device.until("config")
        for client_id in earlier:
            device.forward(client_id, {"type": "offer"})
            assert device.event() == f"gone {client_id}"


def test_device_returns_after_server_was_frozen(tmp_path: Path) -> None:
    with Server(tmp_path) as server, registered(server, ping=1, hangup=3) as device:
        server.freeze()
        device.until("closed 1006")
        server.thaw()
        device.until("config")
        with server.client("cvd-1") as client:
            assert_relays(client, device)


def test_duplicate_retries_until_holder_leaves(server: Server) -> None:
    refused = "closed 1008 Device already registered: twice"
    with registered(server, "twice") as holder, Device(server.device_url, "twice") as newcomer:
        newcomer.until(*[refused, "reconnect in"] * 3)
        with server.client("twice") as client:
            client_id = assert_relays(client, holder)
        assert holder.event() == f"gone {client_id}"
        holder.quit()
        newcomer.until("config")
        with server.client("twice") as client:
            assert_relays(client, newcomer)


def test_duplicates_replace_each_other(tmp_path: Path) -> None:
    replaced = "closed 1008 Device replaced: cvd-1"
    with Server(tmp_path, "--on-duplicate", "replace") as server:
        with Device(server.device_url) as one, Device(server.device_url) as other:
            one.until(*["config", replaced] * 3)
            other.until(*["config", replaced] * 2)
            other.quit()
            one.until("config")


def test_newcomer_replaces_frozen_holder(server: Server) -> None:
    refused = "closed 1008 Device already registered: frozen"
    with registered(server, "frozen") as holder:
        holder.freeze()
        with registered(server, "frozen") as newcomer:
            with server.client("frozen") as client:
                assert_relays(client, newcomer)
                holder.thaw()
                holder.until("closed", "connected", refused, "connected", refused)
                assert_relays(client, newcomer)
            newcomer.until("gone")
            newcomer.quit()
        holder.until("config")
        with server.client("frozen") as client:
            assert_relays(client, holder)


def test_forward_to_unknown_client_is_answered_with_client_disconnected(server: Server) -> None:
    with registered(server, "unknown") as device, server.client("unknown") as client:
        device.forward(99, {"type": "offer"})
        assert device.event() == "gone 99"
        assert_relays(client, device)


def test_unknown_message_type_keeps_connection(server: Server) -> None:
    with registered(server, "types") as device, server.client("types") as client:
        device.send('{"message_type":"greet"}')
        device.send('{"message_type":"connect","device_id":"types"}')
        assert_relays(client, device)


REFUSED = [
    ('{"message_type":"register","device_id":"refused"}', "1008 Device already registered: refused"),
    ('{"message_type":"forward","payload":1}', "1008 Forward failed: Missing or invalid client id"),
    ('{"message_type":"forward","client_id":"1","payload":1}', "1008 Forward failed: Missing or invalid client id"),
    ('{"message_type":"forward","client_id":1}', "1008 Forward failed: Missing payload"),
    ('{"device_id":"refused"}', "1008 Invalid message format"),
    ('{"message_type":"forward","message_type":"forward"}', "1008 Invalid message format"),
    ("{", "1007 Received Invalid JSON"),
    ("[" * 129 + "]" * 129, "1007 Received Invalid JSON"),
    (json.dumps("x" * 256 * 1024), "1009"),
]


def test_device_returns_after_each_refusal(server: Server) -> None:
    with registered(server, "refused") as device:
        for text, closed in REFUSED:
            device.send(text)
            assert device.event().startswith(f"closed {closed}"), text
            assert device.event() == f"reconnect in {RECONNECT_MS}"
            assert device.event() == "connected"
            assert device.event().startswith("config ")


def test_device_returns_after_refused_registration(server: Server) -> None:
    with Device(server.device_url, "") as device:
        device.until(*["closed 1008 Missing device id in registration request", "connected"] * 3)


def test_longest_message_is_delivered(server: Server) -> None:
    with registered(server, "long") as device, server.client("long") as client:
        client.send({"message_type": "forward", "payload": ""})
        device.until('message 1 ""')
        assert client.receive()["message_type"] == "device_msg"
        longest = MAX_FRAME - len('{"message_type":"client_msg","client_id":1,"payload":""}')
        client.send({"message_type": "forward", "payload": "x" * (longest + 1)})
        assert "error" in client.receive()
        client.send({"message_type": "forward", "payload": "x" * longest})
        assert client.receive()["payload"]["echo"] == "x" * longest
        assert device.event() == "peer 1 old"
        assert device.event() == f'message 1 "{"x" * longest}"'


HOOKS = """\
import pathlib

here = pathlib.Path(__file__).parent


def authorize(ctx):
    if (here / "authorize").exists():
        raise RuntimeError("the directory is away")


def ice_servers(ctx):
    if (here / "hangs").exists():
        (here / "hangs").read_text()
    if (here / "ice_servers").exists():
        raise RuntimeError("the TURN server is away")
    return [{"urls": "stun:stun.lab"}]
"""


@pytest.mark.parametrize(("hook", "event"), [("ice_servers", "closed 1011 Internal error"), ("authorize", "failed ")])
def test_device_returns_when_hook_recovers(tmp_path: Path, hook: str, event: str) -> None:
    (tmp_path / "farm.py").write_text(HOOKS)
    (tmp_path / hook).touch()
    with Server(tmp_path, "--hooks", str(tmp_path / "farm.py")) as server, Device(server.device_url) as device:
        device.until(*[event, "reconnect in"] * 3)
        (tmp_path / hook).unlink()
        device.until('config {"message_type":"config","ice_servers":[{"urls":["stun:stun.lab"]}]}')
        with server.client("cvd-1") as client:
            assert_relays(client, device)


def test_pings_are_answered_while_hook_hangs(tmp_path: Path) -> None:
    (tmp_path / "farm.py").write_text(HOOKS)
    os.mkfifo(tmp_path / "hangs")
    arguments = "--hooks", str(tmp_path / "farm.py"), "--hook-timeout", "60"
    with ExitStack() as stack:
        device = stack.enter_context(Device(stack.enter_context(Server(tmp_path, *arguments)).device_url, ping=1))
        device.until("connected", "pong", "pong")
        assert "config" not in device.seen
        (tmp_path / "hangs").write_text("go on")
        device.until("config")
        assert not [event for event in device.seen if event.startswith("closed")]
