"""TLS: certificates, their verification by clients, and handshakes that fail."""

from __future__ import annotations

import datetime
import ipaddress
import json
import socket
import ssl
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from cuttlefish_signaling import Limits, SignalingServer, Tls, TlsError

from openssl_command import verify_code
from peers import OPERATOR_SUBPROTOCOL, PATIENCE, Peers, assert_relays, peers_of, unverified_context


def made_elsewhere(kind: str = "ec", container: str = "pkcs8") -> tuple[bytes, bytes]:
    """A self-signed certificate and its key, by another library."""
    key = ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lab")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8 if container == "pkcs8" else serialization.PrivateFormat.TraditionalOpenSSL
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return certificate.public_bytes(serialization.Encoding.PEM), pem


def converse(tls: Tls) -> None:
    with SignalingServer(tls=tls) as server, peers_of(server) as peers:
        assert server.url == f"https://127.0.0.1:{server.port}"
        assert server.device_url.startswith("wss://")
        device, client = peers.device(), peers.client()
        assert_relays(client, device)
        with urllib.request.urlopen(f"{server.url}/devices", context=tls.client_context()) as answer:
            assert [device["device_id"] for device in json.load(answer)] == ["cvd-1"]


def test_self_signed() -> None:
    converse(Tls.self_signed())


@pytest.mark.parametrize(("kind", "container"), [("ec", "pkcs8"), ("ec", "sec1"), ("rsa", "pkcs8"), ("rsa", "pkcs1")])
def test_from_pem(kind: str, container: str) -> None:
    certificate, key = made_elsewhere(kind, container)
    converse(Tls.from_pem(certificate, key))
    converse(Tls.from_pem(certificate.decode(), key.decode()))


def test_from_files(tmp_path: Path) -> None:
    certificate, key = made_elsewhere()
    (tmp_path / "server.pem").write_bytes(certificate)
    (tmp_path / "server.key").write_bytes(key)
    converse(Tls.from_files(tmp_path / "server.pem", str(tmp_path / "server.key")))


def test_certificate_is_valid_for_given_names() -> None:
    tls = Tls.self_signed(names=["farm.lab", "10.0.0.7"])
    with SignalingServer(tls=tls) as server:
        for name, fine in [("farm.lab", True), ("10.0.0.7", True), ("127.0.0.1", False)]:
            with socket.create_connection(("127.0.0.1", server.port)) as plain:
                if fine:
                    tls.client_context().wrap_socket(plain, server_hostname=name).close()
                else:
                    with pytest.raises(ssl.SSLCertVerificationError):
                        tls.client_context().wrap_socket(plain, server_hostname=name)


def test_self_signed_certificate_passes_strict_verification() -> None:
    """Python 3.13 verifies strictly by RFC 5280 by default."""
    tls = Tls.self_signed()
    context = tls.client_context()
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with SignalingServer(tls=tls) as server, socket.create_connection(("127.0.0.1", server.port)) as plain:
        context.wrap_socket(plain, server_hostname="localhost").close()
    assert "BEGIN CERTIFICATE" in tls.certificate_pem
    assert "KEY" not in tls.certificate_pem + repr(tls)


@pytest.mark.parametrize(
    "make", [Tls.self_signed, lambda: Tls.self_signed(["farm.lab"]), lambda: Tls.self_signed(["127.0.0.1"])]
)
def test_authority_is_sent(make: Callable[[], Tls]) -> None:
    with SignalingServer(tls=make()) as server:
        assert verify_code(server.port) == 19  # Self-signed certificate in certificate chain.


def test_openssl_verifies_each_name_strictly(tmp_path: Path) -> None:
    for names in (("localhost", "127.0.0.1", "::1"), ("127.0.0.1", "::1"), ("localhost",)):
        tls = Tls.self_signed(names)
        authority = tmp_path / "authority.pem"
        authority.write_text(tls.certificate_pem)
        strictly = ("-CAfile", str(authority), "-x509_strict", "-no-CAstore", "-no-CApath", "-verify_return_error")
        with SignalingServer(tls=tls) as server:
            for name in names:
                by = ("-verify_hostname", name) if name == "localhost" else ("-verify_ip", name)
                assert verify_code(server.port, *strictly, *by) == 0, name


def test_client_context_trusts_only_its_server() -> None:
    with (
        SignalingServer(tls=Tls.self_signed()) as server,
        socket.create_connection(("127.0.0.1", server.port)) as plain,
    ):
        with pytest.raises(ssl.SSLCertVerificationError):
            Tls.self_signed().client_context().wrap_socket(plain, server_hostname="localhost")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_versions_and_alpn_http_1_1(version: ssl.TLSVersion) -> None:
    tls = Tls.self_signed()
    context = tls.client_context()
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    with SignalingServer(tls=tls) as server, socket.create_connection(("127.0.0.1", server.port)) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as wrapped:
            assert wrapped.selected_alpn_protocol() == "http/1.1"
            assert wrapped.version() == version.name.replace("_", ".")


def test_device_without_verification_registers() -> None:
    with SignalingServer(tls=Tls.self_signed(names=["elsewhere"])) as server, peers_of(server) as peers:
        peers.device(ssl=unverified_context(), subprotocols=OPERATOR_SUBPROTOCOL)


def test_stalled_handshakes_time_out() -> None:
    tls = Tls.self_signed()
    limits = Limits(tls_handshake_timeout=0.3)
    with SignalingServer(tls=tls, limits=limits) as server, peers_of(server) as peers, ExitStack() as stack:
        with server.clock.frozen():  # The pair may take longer than 0.3 s.
            silent = [
                stack.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE)) for _ in range(50)
            ]
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE))
            plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            device, client = peers.device(), peers.client()
        for one in silent:
            assert one.recv(1) == b""
        assert_relays(client, device)


def assert_pair_relays(peers: Peers) -> None:
    """A new pair connects and relays."""
    device = peers.device()
    assert_relays(peers.client(), device)


def client_hello(tls: Tls) -> bytes:
    """The first flight of a handshake, by OpenSSL."""
    outgoing = ssl.MemoryBIO()
    handshake = tls.client_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        handshake.do_handshake()
    return outgoing.read()


def test_1000_slow_handshakes_do_not_block_new_peers() -> None:
    """Half a `ClientHello`, a whole one, or nothing: over the cap, the silent ones are closed."""
    tls = Tls.self_signed()
    hello = client_hello(tls)
    limits = Limits(max_opening=100, opening_silence=0.02, tls_handshake_timeout=60)
    with SignalingServer(tls=tls, limits=limits) as server, peers_of(server) as peers, ExitStack() as stack:
        for number in range(1000):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            slow.sendall((hello, hello[: len(hello) // 2], b"")[number % 3])
        assert_pair_relays(peers)
        assert server.stats().openings_cut >= 900


def test_silence_after_handshake_closes_connection() -> None:
    tls = Tls.self_signed()
    with SignalingServer(tls=tls, limits=Limits(request_head_timeout=0.3)) as server, peers_of(server) as peers:
        with server.clock.frozen():  # The pair may take longer than 0.3 s.
            device, client = peers.device(), peers.client()
        plain = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
        with tls.client_context().wrap_socket(plain, server_hostname="localhost") as silent:
            assert silent.recv(1) == b""
        assert_relays(client, device)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00" * 600,
        b"\x16\x03\x01\xff\xff" + b"\x01" * 70_000,
        b"\x16\x03\x01\x00\x05\x01\xff\xff\xff\x03",
        b"\x16\x03\x01\x00\x00" * 100,
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x17\x03\x03\x00\x10" + b"x" * 16,
        b"\x80\x2e\x01\x00\x02" + b"\x00" * 41,
    ],
    ids=["zeros", "record too long", "wrong length", "empty records", "alert", "data before keys", "SSL 2"],
)
def test_invalid_handshake_closes_only_its_connection(sent: bytes) -> None:
    with SignalingServer(tls=Tls.self_signed()) as server, peers_of(server) as peers:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as raw:
            try:
                raw.sendall(sent)
                while raw.recv(1000):
                    pass  # An alert.
            except ConnectionError:
                pass
        assert_pair_relays(peers)
        assert server.stats().panics == 0


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        (b"invalid", b"invalid", "no certificate"),
        (b"", b"", "no certificate"),
        (made_elsewhere()[0], b"invalid", "private key is not valid PEM"),
        (made_elsewhere()[0], made_elsewhere()[1], "do not belong together"),
        (made_elsewhere("rsa")[0], made_elsewhere("ec")[1], "do not belong together"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", made_elsewhere()[1], "cannot be used"),
        (b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n", made_elsewhere()[1], "not valid PEM"),
    ],
)
def test_unusable_certificate_or_key_is_tls_error(certificate: bytes, key: bytes, said: str) -> None:
    with pytest.raises(TlsError, match=said) as caught:
        Tls.from_pem(certificate, key)
    assert caught.value.setting == "tls"


def test_unreadable_files_are_tls_errors(tmp_path: Path) -> None:
    with pytest.raises(TlsError, match=r"cannot read the certificate .*nowhere"):
        Tls.from_files(tmp_path / "nowhere.pem", tmp_path / "nowhere.key")
    (tmp_path / "server.pem").write_bytes(made_elsewhere()[0])
    with pytest.raises(TlsError, match=r"cannot read the private key .*nowhere"):
        Tls.from_files(tmp_path / "server.pem", tmp_path / "nowhere.key")


@pytest.mark.parametrize("names", [[], ["ex\u00e4mple"], "localhost", [7]])
def test_invalid_names_are_tls_errors(names: object) -> None:
    with pytest.raises(TlsError):
        Tls.self_signed(names=names)  # type: ignore[arg-type]
