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


def test_devices_of_a_server_outside_the_process(pytester: pytest.Pytester) -> None:
    suite(
        pytester,
        """
        import pytest
        from cuttlefish_signaling import NotOursError

        def test_devices(signaling_server, fake_device):
            assert signaling_server.devices() == []
            fake_device("b/../ü", info={"b": 1})
            fake_device("a", info=[1])
            devices = signaling_server.devices()
            assert [(device.device_id, device.info, device.group_name) for device in devices] == [
                ("a", [1], ""), ("b/../ü", {"b": 1}, "")
            ]
            with pytest.raises(NotOursError, match="device.clients is not available: the server runs outside"):
                devices[0].clients
            with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
                devices[0].nothing
        """,
    )
    with SignalingServer() as server:
        run(pytester, f"--signaling-url={server.url}").assert_outcomes(passed=1)


def test_devices_of_a_server_that_lists_ids(pytester: pytest.Pytester) -> None:
    """The shape of the reference server: a list of ids, and the device info of one."""
    import http.server
    import threading

    from cuttlefish_signaling.testing import AttachedDevice, AttachedServer

    class Reference(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers = {"/devices?format=ids": b'["gone", "cvd-1"]', "/devices/cvd-1": b'{"displays": []}'}
            self.send_response(200 if self.path in answers else 404)
            self.end_headers()
            self.wfile.write(answers.get(self.path, b""))

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Reference) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        attached = AttachedServer(f"http://127.0.0.1:{server.server_port}")
        assert attached.devices() == [AttachedDevice("cvd-1", {"displays": []})]
        server.shutdown()
        thread.join()
