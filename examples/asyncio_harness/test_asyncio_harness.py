"""An asyncio harness that watches a device's screen, tested with real media: frames and data channels by aiortc."""

from __future__ import annotations

import asyncio

import pytest

from cuttlefish_signaling import SignalingServer
from cuttlefish_signaling.testing import AsyncFakeClient, AsyncFakeDevice
from cuttlefish_signaling.webrtc import WebRtcClient, WebRtcDevice


async def brightness(client: WebRtcClient, frames: int = 3) -> list[int]:
    """Returns the brightness of the screen, frame by frame. This function is under test."""
    return [bytes(frame.planes[0])[0] for frame in await client.frames(frames)]


@pytest.mark.asyncio
async def test_the_screen_gets_brighter(signaling_server: SignalingServer) -> None:
    async with WebRtcDevice(signaling_server) as device, WebRtcClient(signaling_server) as client:
        shades = await brightness(client)
        assert len(set(shades)) > 1
        await client.send_data("power")
        assert (await device.recv_data()).data == "power"
    await signaling_server.journal.expect_sequence_async("request-offer", "offer", "answer")


@pytest.mark.asyncio
async def test_many_clients_at_once(signaling_server: SignalingServer) -> None:
    async with AsyncFakeDevice(signaling_server) as device:
        device.on("ping", reply_with=lambda message: {"type": "pong", "n": message.payload["n"]})

        async def ask(n: int) -> int:
            async with AsyncFakeClient(signaling_server) as client:
                await client.send({"type": "ping", "n": n})
                answer = await client.recv(type="pong")
                return int(answer.payload["n"])

        assert await asyncio.gather(*map(ask, range(20))) == list(range(20))
    assert len(signaling_server.journal.messages("pong")) == 20
