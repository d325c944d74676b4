"""`@pytest.mark.signaling_cassette` with a mode: the marker, the options of the command line, and a real device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cuttlefish_signaling import SignalingServer, Tls
from cuttlefish_signaling.testing import Cassette, FakeDevice

from plugin_suite import run, suite

pytestmark = pytest.mark.usefixtures("where")

TEST = """
import pytest

@pytest.mark.signaling_cassette("boot.jsonl"{options})
def test_offer_comes(fake_client, replay_device):
    client = fake_client()
    client.send({{"type": "request-offer"}})
    assert client.recv().payload == {{"type": "offer", "sdp": "real"}}
    assert replay_device.unmatched == []
"""


@pytest.fixture(params=["http", "https"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SignalingServer]:
    """A server with a real device. `ca.pem` is its authority."""
    tls = Tls.self_signed() if request.param == "https" else None
    (tmp_path / "ca.pem").write_text("" if tls is None else str(tls.certificate_pem))
    with SignalingServer(tls=tls) as server, FakeDevice(server) as real:
        real.on("request-offer", reply_with={"type": "offer", "sdp": "real"})
        yield server


def test_command_line_records_and_the_suite_replays(
    pytester: pytest.Pytester, lab: SignalingServer, tmp_path: Path
) -> None:
    suite(pytester, TEST.format(options=""))
    flags = [f"--signaling-real={lab.url}", *([f"--signaling-ca={tmp_path}/ca.pem"] if lab.tls else [])]
    run(pytester, *flags).assert_outcomes(errors=1)
    run(pytester, "--signaling-cassettes=once", *flags).assert_outcomes(passed=1)
    (file,) = pytester.path.glob("boot.jsonl")
    assert [line.type for line in Cassette.load(file).lines] == ["request-offer", "offer"]
    run(pytester).assert_outcomes(passed=1)


def test_marker_has_mode_and_server(pytester: pytest.Pytester) -> None:
    with SignalingServer() as lab, FakeDevice(lab, "real-1") as real:
        real.on("request-offer", reply_with={"type": "offer", "sdp": "real"})
        options = f', mode="new", real="{lab.url}", real_device_id="real-1", device_id="cvd-1"'
        suite(pytester, TEST.format(options=options))
        run(pytester).assert_outcomes(passed=1)
        # The command line comes before the marker.
        (pytester.path / "boot.jsonl").write_text('{"cassette": 1, "device_id": "cvd-1"}')
        run(pytester, "--signaling-cassettes=none", "--signaling-timeout=0.2").assert_outcomes(failed=1)
        run(pytester).assert_outcomes(passed=1)


def test_mode_without_a_real_device_is_an_error_of_the_test(pytester: pytest.Pytester) -> None:
    suite(pytester, TEST.format(options=', mode="new"'))
    result = run(pytester)
    result.assert_outcomes(errors=1)
    assert "real: is missing: there is no file" in result.stdout.str()
