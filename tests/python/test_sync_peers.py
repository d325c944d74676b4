"""The synchronous fake peers: threads, event loops, and the methods of their asynchronous twins."""

from __future__ import annotations

import asyncio
import inspect
import threading

import pytest

from cuttlefish_signaling import (
    PeerClosedError,
    SignalingServer,
)
from cuttlefish_signaling.testing import (
    AsyncFakeClient,
    AsyncFakeDevice,
    AsyncReplayDevice,
    FakeClient,
    FakeDevice,
    ReplayDevice,
)


def test_peers_leave_no_thread(server: SignalingServer) -> None:
    for _ in range(3):
        with FakeDevice(server), FakeClient(server):
            assert any(thread.name == "cuttlefish-fake-peers" for thread in threading.enumerate())
        assert not any(thread.name == "cuttlefish-fake-peers" for thread in threading.enumerate())


def test_sync_peers_work_in_running_event_loop(server: SignalingServer) -> None:
    """Synchronous peers have an event loop of their own."""

    async def main() -> None:
        with FakeDevice(server) as device, FakeClient(server) as client:
            client.send(1)
            assert device.recv().payload == 1

    asyncio.run(main())


def test_close_during_start(server: SignalingServer) -> None:
    async def main() -> None:
        device = AsyncFakeDevice(server)
        starting = asyncio.create_task(device.start())
        await asyncio.sleep(0)
        await device.close()
        with pytest.raises(PeerClosedError, match="was closed while it connected"):
            await starting
        assert not device.is_open
        async with device:
            assert [known.device_id for known in server.devices()] == ["cvd-1"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("synchronous", "asynchronous"),
    [(FakeDevice, AsyncFakeDevice), (FakeClient, AsyncFakeClient), (ReplayDevice, AsyncReplayDevice)],
)
def test_synchronous_peers_have_the_methods_and_docs_of_their_twins(synchronous: type, asynchronous: type) -> None:
    def of(peer: type, name: str) -> tuple[str, list[inspect.Parameter]]:
        member = getattr(peer, name)
        doc = (inspect.getdoc(member) or "").replace("async with ", "with ").replace("Async", "")
        return doc, list(inspect.signature(member).parameters.values()) if callable(member) else []

    assert (inspect.getdoc(synchronous) or "").startswith(
        "A device" if "Device" in synchronous.__name__ else "A client"
    )
    assert "sync" not in str(inspect.getdoc(synchronous)).lower()
    names = {name for name in dir(asynchronous) if not name.startswith("_")}
    assert names >= {"start", "close", "recv", "send", "on"}
    for name in names:
        own, twin = of(synchronous, name), of(asynchronous, name)
        assert own[1] == twin[1], name
        if name != "on":  # Its function runs on another thread here.
            assert own[0] == twin[0] != "", name
