"""A certificate whose files change while the server runs."""

from __future__ import annotations

import hashlib
import itertools
import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cuttlefish_signaling import SignalingServer, Tls

from peers import PATIENCE, assert_relays, peers_of, replace_file, unverified_context
from test_tls import made_elsewhere

SOON = 0.02


def shown(port: int) -> str:
    """The fingerprint of the certificate that a new connection gets."""
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE) as plain,
        unverified_context().wrap_socket(plain) as secure,
    ):
        der = secure.getpeercert(binary_form=True)
    assert der is not None
    return hashlib.sha256(der).digest().hex(":").upper()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline


class Files:
    """A certificate and its key, in two files."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key = folder / "cert.pem", folder / "key.pem"
        self.renew()

    def renew(self) -> None:
        certificate, key = made_elsewhere()
        replace_file(self.key, key)
        replace_file(self.certificate, certificate)

    def tls(self) -> Tls:
        return Tls.from_files(self.certificate, self.key)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_new_connections_get_the_new_certificate_and_old_ones_stay(files: Files) -> None:
    tls = files.tls()
    with SignalingServer(tls=tls, tls_check_interval=SOON) as server, peers_of(server) as peers:
        device, client = peers.device(), peers.client()
        seen = [shown(server.port)]
        assert seen == [tls.fingerprint]
        for _ in range(3):
            files.renew()
            until(lambda: shown(server.port) != seen[-1])
            seen.append(shown(server.port))
            assert_relays(client, device)
        assert len(set(seen)) == 4
        assert server.tls is not None and server.tls.fingerprint == seen[-1]
        assert server.tls.certificate_pem == files.certificate.read_text()


def test_half_written_pair_is_logged_once_and_tried_again(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    def warnings() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]

    with (
        caplog.at_level(logging.INFO, logger="cuttlefish_signaling"),
        SignalingServer(tls=files.tls(), tls_check_interval=SOON) as server,
    ):
        old = shown(server.port)
        certificate, key = made_elsewhere()
        replace_file(files.certificate, certificate)
        until(lambda: bool(warnings()))
        began = time.monotonic()
        for _ in itertools.takewhile(lambda _: time.monotonic() < began + 10 * SOON, itertools.count()):
            assert shown(server.port) == old
        assert len(warnings()) == 1
        assert "the old one stays" in warnings()[0] and "do not belong together" in warnings()[0]
        assert str(files.certificate) in warnings()[0] and str(files.key) in warnings()[0]
        replace_file(files.key, key)
        until(lambda: shown(server.port) != old)
        until(lambda: any("took the new one" in record.getMessage() for record in caplog.records))
    assert len(warnings()) == 1


def test_without_an_interval_files_are_not_read_again(files: Files) -> None:
    with SignalingServer(tls=files.tls(), tls_check_interval=None) as server:
        old = shown(server.port)
        files.renew()
        began = time.monotonic()
        while time.monotonic() < began + 10 * SOON:
            assert shown(server.port) == old


def test_path_is_that_of_the_start_also_when_the_directory_changes(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tls = Tls.from_files("cert.pem", "key.pem")
    monkeypatch.chdir("/")
    with SignalingServer(tls=tls, tls_check_interval=SOON) as server:
        old = shown(server.port)
        files.renew()
        until(lambda: shown(server.port) != old)


def test_certificate_in_memory_is_not_checked() -> None:
    tls = Tls.self_signed()
    with SignalingServer(tls=tls, tls_check_interval=SOON) as server:
        assert shown(server.port) == tls.fingerprint
