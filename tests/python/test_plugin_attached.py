"""`--signaling-url`: suites of users on a server that runs already."""

from __future__ import annotations

import pytest

from cuttlefish_signaling import SignalingServer, Tls

from plugin_suite import FIRST, run, suite

ATTACHED = (
    FIRST.replace('signaling_server.journal.expect_sequence("request-offer", "offer")', "")
    + """
    signaling_server.wait_for_device("cvd-1")
    assert signaling_server.device_ids() == ["cvd-1"]

def test_session(signaling_server_session):
    assert signaling_server_session.is_running

def test_journal(signaling_server):
    signaling_server.journal.expect("offer")

@__import__("pytest").mark.signaling(device_wait_timeout=1)
def test_settings(signaling_server):
    pass

def test_wait(signaling_server):
    import pytest
    with pytest.raises(TimeoutError, match="waited 0.1 s for device 'cvd-9' to register; no device is registered"):
        signaling_server.wait_for_device("cvd-9", timeout=0.1)
"""
)


@pytest.mark.parametrize("by", ["option", "environment"])
def test_signaling_url_attaches_to_running_server(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    suite(pytester, ATTACHED)
    with SignalingServer() as server:
        options = []
        if by == "option":
            options = [f"--signaling-url={server.url}"]
        else:
            monkeypatch.setenv("CUTTLEFISH_SIGNALING_URL", server.device_url.removesuffix("/register_device"))
        result = run(pytester, "-rs", *options)
        result.assert_outcomes(passed=3, skipped=2)
        failing = run(pytester, *options, "--signaling-unavailable=fail")
        failing.assert_outcomes(passed=3, failed=1, errors=1)
        assert server.stats().accepted == 4, "the tests used this server"
    failing.stdout.fnmatch_lines(
        [
            "*NotOursError: the settings device_wait_timeout are not available: --signaling-url points at *",
            "*NotOursError: journal is not available: --signaling-url points at an external server, http*; run *",
        ]
    )
    result.stdout.fnmatch_lines(
        [
            "SKIPPED*test_it.py:*: journal is not available: --signaling-url points at an external server, *; run *",
            "SKIPPED*test_it.py:*: the settings device_wait_timeout are not available: --signaling-url points at *",
        ],
        consecutive=False,
    )


def test_signaling_url_with_tls_needs_authority(pytester: pytest.Pytester) -> None:
    suite(pytester, ATTACHED)
    tls = Tls.self_signed()
    authority = pytester.path / "authority.pem"
    authority.write_text(tls.certificate_pem)
    with SignalingServer(tls=tls) as server:
        trusting = run(pytester, f"--signaling-url={server.url}", f"--signaling-ca={authority}", "-k", "first")
        trusting.assert_outcomes(passed=1, deselected=4)
        doubting = run(pytester, f"--signaling-url={server.url}", "-k", "first")
        doubting.assert_outcomes(errors=1, deselected=4)
        doubting.stdout.fnmatch_lines(
            ["*UnreachableError*certificate verify failed*trust its certificate authority with*"]
        )


def test_unreachable_signaling_url_is_error(pytester: pytest.Pytester) -> None:
    suite(pytester, FIRST)
    result = run(pytester, "--signaling-url=http://127.0.0.1:1")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*UnreachableError: no signaling server answers at http://127.0.0.1:1:*refused*"])
    result = run(pytester, "--signaling-url=127.0.0.1")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*ConfigError: signaling_url: must be a URL with http, https, ws or wss, got '127.0.0.1'*"]
    )
