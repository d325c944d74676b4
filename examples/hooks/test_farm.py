"""The hooks of a farm, tested on a server that uses them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cuttlefish_signaling import PeerRefusedError, SignalingServer
from cuttlefish_signaling.testing import FakeClient, FakeDevice, device_info

sys.path.insert(0, str(Path(__file__).parent))

from farm import hooks


@pytest.fixture
def signaling_config() -> dict[str, Any]:
    """Gives every server of this file the farm's hooks."""
    return {
        "authorize": hooks.authorize,
        "filter_device_info": hooks.filter_device_info,
        "ice_servers": hooks.ice_servers,
    }


@pytest.fixture
def device(fake_device: Callable[..., FakeDevice]) -> FakeDevice:
    """A device with an adb port to hide."""
    return fake_device("cvd-1", info=device_info("cvd-1", adb_port=6520))


@pytest.mark.parametrize(("token", "sees"), [("s3cret", True), ("0ther", False)])
def test_the_adb_port_is_for_whom_the_device_is_lent_to(
    signaling_server: SignalingServer, device: FakeDevice, token: str, sees: bool
) -> None:
    with FakeClient(f"{signaling_server.url}?token={token}", "cvd-1") as client:
        assert ("adb_port" in client.device_info) == sees
        assert client.ice_servers == [{"urls": ["stun:outside.lab"]}]


def test_each_side_has_its_stun_server(device: FakeDevice) -> None:
    assert device.config == {"message_type": "config", "ice_servers": [{"urls": ["stun:inside.lab"]}]}


def test_strangers_stay_outside(signaling_server: SignalingServer, device: FakeDevice) -> None:
    with pytest.raises(PeerRefusedError, match="401 unknown token"):
        FakeClient(f"{signaling_server.url}?token=guess", "cvd-1").start()
