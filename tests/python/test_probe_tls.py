"""`probe` names the fault of a certificate or of a TLS handshake."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cuttlefish_signaling import SignalingServer, Tls
from cuttlefish_signaling.probe import ProbeOptions, Report, probe, probe_async

import staged_servers as staged
from peers import PATIENCE
from test_probe import PATIENT, failing, failing_at


def test_server_does_not_speak_tls(server: SignalingServer) -> None:
    assert failing(f"wss://127.0.0.1:{server.port}") == ("tls", "not_tls")


def test_server_speaks_tls() -> None:
    with SignalingServer(tls=Tls.self_signed()) as server:
        assert failing(f"ws://127.0.0.1:{server.port}") == ("http", "speaks_tls")


def test_authority_is_not_trusted(tmp_path: Path) -> None:
    tls = Tls.self_signed()
    assert tls.certificate_pem
    (tmp_path / "ca.pem").write_text(tls.certificate_pem)
    with SignalingServer(tls=tls) as server:
        assert failing(server.url) == ("tls", "certificate_untrusted")
        assert failing(server.url, ProbeOptions(timeout=PATIENCE, ca=str(tmp_path / "ca.pem"))) == (None, None)
        report = probe(server.url, options=ProbeOptions(timeout=PATIENCE, insecure=True))
        assert report.ok and "certificate_untrusted" in report.causes
        chain = report.step("tls").facts["chain"]
        assert len(chain) == 2 and chain[0]["names"] == ["localhost", "127.0.0.1", "::1"]
        assert report.step("tls").facts["expires"] == chain[0]["expires"]


@pytest.mark.parametrize(
    ("names", "dates", "causes"),
    [
        (["127.0.0.1"], (-30, -1), ["certificate_expired"]),
        (["127.0.0.1"], (1, 30), ["certificate_not_yet_valid"]),
        (["signal.lab"], (-1, 300), ["certificate_wrong_name"]),
        (["signal.lab"], (-30, -1), ["certificate_expired", "certificate_wrong_name"]),
        (["127.0.0.1"], (-1, 3), ["certificate_expires_soon"]),
        (["127.0.0.1"], (-1, 300), []),
    ],
)
def test_certificate_is_faulty(tmp_path: Path, names: list[str], dates: tuple[int, int], causes: list[str]) -> None:
    chain = staged.certificate(tmp_path, *names, begins=dates[0], ends=dates[1])
    options = ProbeOptions(timeout=PATIENCE, ca=chain.ca)
    report = asyncio.run(failing_at(staged.answers({}), options, tls=chain.context))
    assert [finding.cause for finding in report.step("tls").findings] == causes
    assert (report.failed_stage == "tls") == any(finding.is_error for finding in report.step("tls").findings)


def test_dates_and_names_are_told_although_the_authority_is_unknown(tmp_path: Path) -> None:
    """OpenSSL tells the first fault only."""
    chain = staged.certificate(tmp_path, "signal.lab", begins=-30, ends=-1)
    report = asyncio.run(failing_at(staged.answers({}), tls=chain.context))
    assert report.causes == ("certificate_expired", "certificate_wrong_name", "certificate_untrusted")


@pytest.mark.parametrize(
    ("handler", "cause"), [(staged.closes_at_once, "tls_closed"), (staged.sends(b"SSH-2.0-x\r\n"), "not_tls")]
)
def test_other_program_answers_tls_handshake(handler: staged.Handler, cause: str) -> None:
    async def run() -> Report:
        async with staged.serving(handler) as port:
            return await probe_async(f"wss://127.0.0.1:{port}", options=PATIENT)

    report = asyncio.run(run())
    assert (report.failed_stage, report.cause) == ("tls", cause)


def test_tls_handshake_is_not_answered() -> None:
    async def run() -> Report:
        async with staged.serving(staged.says_nothing) as port:
            return await probe_async(f"wss://127.0.0.1:{port}", options=ProbeOptions(timeouts={"tls": 0.1}))

    assert asyncio.run(run()).cause == "tls_silent"


def test_server_with_http_2_alone_over_tls(tmp_path: Path) -> None:
    chain = staged.certificate(tmp_path, "127.0.0.1")
    chain.context.set_alpn_protocols(["h2"])
    options = ProbeOptions(timeout=PATIENCE, ca=chain.ca)
    settings = staged.sends(b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64")
    report = asyncio.run(failing_at(settings, options, tls=chain.context))
    assert (report.failed_stage, report.cause) == ("http", "http2_only")
