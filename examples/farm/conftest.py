"""The conftest.py of a suite that runs against the devices of a farm, and without a farm against a fake device.

    pytest                                                              # at a desk: a fake device
    pytest -n 4 --signaling-url https://signal.lab:8443 --signaling-ca ca.pem   # the farm

Each worker of pytest-xdist has a device of its own. FARM_DEVICES narrows the choice with a pattern, such as `ci-*`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatch

import pytest

from cuttlefish_signaling import SignalingServer
from cuttlefish_signaling.testing import AttachedServer, FakeClient, FakeClientFactory, FakeDevice

FAKE = "fake-1"


@pytest.fixture(scope="session")
def farm(signaling_server_session: SignalingServer | AttachedServer) -> Iterator[SignalingServer | AttachedServer]:
    """The server of the farm. A server of this process gets a fake device, which answers as a real one does."""
    if isinstance(signaling_server_session, AttachedServer):
        yield signaling_server_session
        return
    with FakeDevice(signaling_server_session, FAKE) as device:
        device.on("request-offer", reply_with={"type": "offer", "sdp": "v=0"})
        yield signaling_server_session


@pytest.fixture(scope="session")
def device_id(farm: SignalingServer | AttachedServer) -> str:
    """The device of this worker. Without enough devices, its tests are skipped with the reason."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    pattern = os.environ.get("FARM_DEVICES", "*")
    found = sorted(device.device_id for device in farm.devices() if fnmatch(device.device_id, pattern))
    if worker >= len(found):
        pytest.skip(f"the farm has {len(found)} devices that match {pattern!r}, and this is worker {worker + 1}")
    return found[worker]


@pytest.fixture
def viewer(farm: SignalingServer | AttachedServer, device_id: str, fake_client: FakeClientFactory) -> FakeClient:
    """A client that is connected to the device of this worker."""
    return fake_client(device_id, server=farm)
