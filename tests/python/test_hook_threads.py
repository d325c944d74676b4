"""The threads and event loops in which hooks run."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

from cuttlefish_signaling import (
    IceContext,
    Limits,
    SignalingServer,
    Tls,
)

from peers import PATIENCE, peers_of


def test_async_hook_runs_on_loop_that_started_server() -> None:
    loops: list[Any] = []

    async def ice(ctx: IceContext) -> list[Any]:
        loops.append(asyncio.get_running_loop())
        return []

    async def main() -> None:
        from websockets.asyncio.client import connect

        async with SignalingServer(ice_servers=ice) as server, connect(server.device_url) as device:
            await device.send('{"message_type":"register","device_id":"cvd-1"}')
            assert json.loads(await device.recv())["ice_servers"] == []
            assert loops == [asyncio.get_running_loop()]

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_async_hook_without_loop_runs_on_hook_loop() -> None:
    threads: list[str] = []

    async def ice(ctx: IceContext) -> list[Any]:
        threads.append(threading.current_thread().name)
        return []

    with SignalingServer(ice_servers=ice) as server, peers_of(server) as peers:
        peers.device("a")
        peers.device("b")
    assert threads == ["cuttlefish-hook-loop"] * 2


def test_async_hooks_run_concurrently() -> None:
    """With one hook thread: a coroutine that waits does not block it."""
    arrived: list[IceContext] = []
    all_arrived = asyncio.Event()

    async def ice(ctx: IceContext) -> list[Any]:
        arrived.append(ctx)
        if len(arrived) == 20:
            all_arrived.set()
        await all_arrived.wait()
        return []

    limits = Limits(hook_threads=1)
    with SignalingServer(ice_servers=ice, limits=limits) as server, peers_of(server) as peers:
        devices = [peers.connect(server.device_url) for _ in range(20)]
        for number, device in enumerate(devices):
            device.send({"message_type": "register", "device_id": f"cvd-{number}"})
        for device in devices:
            assert device.receive()["message_type"] == "config"


def test_hooks_over_tls() -> None:
    with (
        SignalingServer(
            tls=Tls.self_signed(), authorize=lambda ctx: "me", filter_device_info=lambda i, c: c.client.identity
        ) as server,
        peers_of(server) as peers,
    ):
        peers.device()
        client = peers.pending_client()
        client.receive()
        assert client.receive() == {"message_type": "device_info", "device_info": "me"}


def test_hook_may_stop_server() -> None:
    def stop(ctx: IceContext) -> Any:
        server.stop()
        return []

    server = SignalingServer(ice_servers=stop).start()
    with peers_of(server) as peers:
        device = peers.pending_device()
        assert device.wait_closed() == 1001
    assert not server.is_running
