"""The synchronous fake peers: threads, event loops, and the methods of their asynchronous twins."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from typing import Any

import pytest

from cuttlefish_signaling import (
    ConfigError,
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


USES: dict[str, Callable[[Any], Any]] = {
    "send": lambda device: device.send(1, 1),
    "recv": lambda device: device.recv(),
    "close": lambda device: device.close(),
    "drop": lambda device: device.drop(),
    "wait_closed": lambda device: device.wait_closed(),
    "stall": lambda device: device.stall(),
    "start": lambda device: device.start(),
    "iterate": lambda device: list(device),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])
def test_peer_used_in_its_own_on_raises_instead_of_deadlock(server: SignalingServer, use: str, is_async: bool) -> None:
    """Its event loop would wait for itself. The exception comes out of `recv()`, and the peer stays usable."""

    def reply(message: object) -> object:
        return USES[use](device)

    async def reply_async(message: object) -> object:
        return USES[use](device)

    with FakeDevice(server) as device, FakeClient(server) as client:
        device.on("offer", reply_with=reply_async if is_async else reply)
        client.send({"type": "offer"})
        with pytest.raises(ConfigError, match=r"cannot be used in a function given to on\(\).*return the payload"):
            device.recv(type="never")
        assert device.recv().type == "offer"
        device.send("still here")
        assert client.recv().payload == "still here"
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
