"""Settings and fixtures of all tests."""

from __future__ import annotations

from typing import Any

import pytest

from cuttlefish_signaling.testing import FakeDevice, FakeDeviceFactory


@pytest.fixture(scope="session")
def signaling_config() -> dict[str, Any]:
    """The settings of all servers: a client may come before its device."""
    return {"device_wait_timeout": 10}


@pytest.fixture
def device(fake_device: FakeDeviceFactory) -> FakeDevice:
    """A device that answers each request for a screenshot with two parts."""
    device = fake_device("cvd-1")
    device.on(
        "screenshot",
        reply_with=[
            {"type": "screenshot-part", "data": "####", "last": False},
            {"type": "screenshot-part", "data": "....", "last": True},
        ],
    )
    return device
