"""Tests that hold for each device of the farm."""

from __future__ import annotations

from cuttlefish_signaling.testing import FakeClient


def test_device_has_a_display(viewer: FakeClient) -> None:
    assert viewer.device_info["displays"]


def test_device_sends_an_offer(viewer: FakeClient) -> None:
    viewer.send({"type": "request-offer"})
    assert viewer.recv(type="offer").payload["sdp"].startswith("v=0")
