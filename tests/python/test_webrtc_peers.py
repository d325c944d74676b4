"""Media through the server, and the errors without media."""

from __future__ import annotations

import asyncio

import aioice.ice
import pytest

from cuttlefish_signaling import ConfigError, PeerClosedError, PeerRefusedError, SignalingServer, Tls, WaitTimeoutError
from cuttlefish_signaling.testing import AsyncFakeDevice, FakeDevice
from cuttlefish_signaling.webrtc import TestPattern, WebRtcClient, WebRtcDevice


def run(test: object) -> None:
    asyncio.run(asyncio.wait_for(test, 60))  # type: ignore[arg-type]


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_video_and_data_channel(secure: bool) -> None:
    async def main() -> None:
        async with SignalingServer(journal=True, tls=Tls.self_signed() if secure else None) as server:
            async with WebRtcDevice(server) as device, WebRtcClient(server) as client:
                frames = await client.frames(5)
                assert {(frame.width, frame.height) for frame in frames} == {(320, 240)}
                assert len({bytes(frame.planes[0])[0] for frame in frames}) > 1, "the picture changes"
                await client.send_data("hello")
                heard = await device.recv_data()
                assert (heard.data, heard.label, heard.client_id) == ("hello", "device-control", 1)
                await device.send_data(b"\x00\x01")
                assert (await client.recv_data(label="device-control")).data == b"\x00\x01"
            server.journal.expect_sequence("request-offer", "offer", "answer", "ice-candidate")
        assert server.stats().balances

    original = aioice.ice.get_host_addresses
    run(main())
    assert aioice.ice.get_host_addresses is original, "ICE of other code is unchanged"


def test_two_clients_and_custom_video() -> None:
    async def main() -> None:
        async with SignalingServer() as server:
            async with WebRtcDevice(server, video=lambda: TestPattern(160, 120)) as device:
                async with WebRtcClient(server) as one, WebRtcClient(server) as two:
                    for client in (one, two):
                        assert [frame.width for frame in await client.frames(2)] == [160, 160]
                    with pytest.raises(ConfigError, match=r"must be given .*clients with media: \[1, 2\]"):
                        await device.send_data("x")
                    with pytest.raises(ConfigError, match="client 9 has no media"):
                        await device.send_data("x", 9)
                    await device.send_data("for two", 2)
                    assert (await two.recv_data()).data == "for two"
                    with pytest.raises(WaitTimeoutError, match=r"waited 0\.05 s for a message on a data channel"):
                        await one.recv_data(0.05)
                    with pytest.raises(WaitTimeoutError, match=r"the data channel 'adb' to open; .*device-control"):
                        await one.send_data("x", label="adb", timeout=0.05)

    run(main())


def test_errors_without_media() -> None:
    async def main() -> None:
        async with SignalingServer() as server:
            with pytest.raises(PeerRefusedError, match="Device not found"):
                await WebRtcClient(server).start()
            with FakeDevice(server):
                with pytest.raises(WaitTimeoutError, match=r"waited 0\.3 s for media: signaling stable, ICE new"):
                    await WebRtcClient(server, timeout=0.3).start()

    run(main())


def test_media_survives_lost_candidates() -> None:
    """The candidates of the other direction are enough."""

    async def main() -> None:
        async with SignalingServer(journal=True) as server, WebRtcDevice(server):
            with server.faults.drop(to="client", type="ice-candidate") as fault:
                async with WebRtcClient(server) as client:
                    assert len(await client.frames(1)) == 1
            fault.assert_struck()

    run(main())


def test_media_survives_restart_and_reused_client_id_gets_none() -> None:
    """The old client and the device continue without the server. A new client with its id gets the old peer."""

    async def main() -> None:
        async with SignalingServer() as server:
            async with WebRtcDevice(server, profile="legacy", backoff=0.01) as device:
                async with WebRtcClient(server) as old:
                    await server.stop_async()
                    server.start()
                    await device.wait_reconnected(1, 20)
                    assert await old.frames(2)
                    await old.send_data("still here")
                    assert (await device.recv_data()).client_id == 1
                    with pytest.raises(WaitTimeoutError, match="waited 1 s for media"):
                        await WebRtcClient(server, timeout=1).start()
                    assert (device.collisions, device.is_lost) == ([1], False)
                    async with WebRtcClient(server) as third:
                        assert await third.frames(1)
                    # The second client disconnected, and the peer of its id was removed: that of the old client.
                    with pytest.raises(ConfigError, match="client 1 has no media"):
                        await device.send_data("x", 1)

    run(main())


def test_wait_for_media_raises_close_of_signaling() -> None:
    async def main() -> None:
        async with SignalingServer() as server, AsyncFakeDevice(server) as device:
            starting = asyncio.ensure_future(WebRtcClient(server, timeout=600).start())
            await device.recv(type="request-offer")
            await device.close()
            with pytest.raises(PeerClosedError, match=r"cannot connect media: .*\[1000\]") as closed:
                await starting
            assert (closed.value.code, closed.value.error) == (1000, "Device disconnected")

    run(main())
