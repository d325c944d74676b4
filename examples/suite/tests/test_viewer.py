"""The program against a fake device: success, errors, and a network that loses a message."""

from __future__ import annotations

import pytest

from cuttlefish_signaling import SignalingServer
from cuttlefish_signaling.testing import FakeDevice

from viewer import ViewerError, screenshot


def test_parts_are_joined(signaling_server: SignalingServer, device: FakeDevice) -> None:
    assert screenshot(signaling_server.client_url, "cvd-1") == "####...."
    signaling_server.journal.expect_sequence("screenshot", "screenshot-part", "screenshot-part")


@pytest.mark.signaling(device_wait_timeout=0)
def test_unknown_device_is_told(signaling_server: SignalingServer) -> None:
    with pytest.raises(ViewerError, match="Device not found: 'cvd-9'"):
        screenshot(signaling_server.client_url, "cvd-9")


def test_lost_part_is_a_timeout(signaling_server: SignalingServer, device: FakeDevice) -> None:
    late = pytest.raises(ViewerError, match=r"no answer within 0\.2 s")
    with signaling_server.faults.drop(to="client", type="screenshot-part", nth=2) as fault, late:
        screenshot(signaling_server.client_url, "cvd-1", timeout=0.2)
    fault.assert_struck(1)


def test_device_that_leaves_is_told(signaling_server: SignalingServer, device: FakeDevice) -> None:
    gone = pytest.raises(ViewerError, match="Device disconnected")
    with signaling_server.faults.disconnect(to="device", type="screenshot"), gone:
        screenshot(signaling_server.client_url, "cvd-1")
    assert device.wait_closed() == 1011
