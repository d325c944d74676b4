"""A synchronous harness, tested with the fixtures of cuttlefish-signaling: no device, no event loop, no sleep."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cuttlefish_signaling import SignalingServer
from cuttlefish_signaling.testing import FakeDevice

sys.path.insert(0, str(Path(__file__).parent))

from harness import DeviceDidNotAnswer, fetch_bug_report


def test_a_report_comes(signaling_server: SignalingServer, fake_device: Callable[..., FakeDevice]) -> None:
    device = fake_device("cvd-1")
    device.on("bug-report", reply_with={"type": "bug-report", "report": "all is well"})
    assert fetch_bug_report(signaling_server.client_url, "cvd-1") == "all is well"
    signaling_server.journal.expect_sequence("bug-report", {"type": "bug-report", "direction": "device->client"})


def test_nobody_is_there(signaling_server: SignalingServer) -> None:
    with pytest.raises(DeviceDidNotAnswer, match="Device not found: 'cvd-1'"):
        fetch_bug_report(signaling_server.client_url, "cvd-1")


def test_a_device_that_hangs(signaling_server: SignalingServer, fake_device: Callable[..., FakeDevice]) -> None:
    fake_device("cvd-1").stall()
    with pytest.raises(DeviceDidNotAnswer, match=r"cvd-1 said nothing for 0\.2 s"):
        fetch_bug_report(signaling_server.client_url, "cvd-1", timeout=0.2)


def test_a_device_that_leaves(signaling_server: SignalingServer, fake_device: Callable[..., FakeDevice]) -> None:
    with signaling_server.faults.reset(to="device", type="bug-report") as fault:
        fake_device("cvd-1")
        with pytest.raises(DeviceDidNotAnswer, match="Device disconnected"):
            fetch_bug_report(signaling_server.client_url, "cvd-1")
    fault.assert_struck(1)


@pytest.mark.signaling(device_wait_timeout=5)
def test_a_device_that_comes_late(signaling_server: SignalingServer) -> None:
    """The harness connects first. The server lets it wait for the device."""
    import threading

    def come_late() -> None:
        signaling_server.journal.expect(message_type="connect", device="cvd-1")
        device.start()

    device = FakeDevice(signaling_server, "cvd-1")
    device.on("bug-report", reply_with={"report": "late"})
    late = threading.Thread(target=come_late)
    late.start()
    assert fetch_bug_report(signaling_server.client_url, "cvd-1") == "late"
    late.join()
    device.close()
