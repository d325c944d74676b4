"""A whole WebRTC session through this server: a device and a client, both real WebRTC peers (aiortc), on loopback.

    pip install 'cuttlefish-signaling[aiortc]'
    python examples/webrtc_session.py            # or --tls, with hooks in use

The device registers, the client connects and asks for an offer; offer, answer and ICE candidates go through the
server in the words real Cuttlefish devices and browsers use; then media and a data channel go directly.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import dataclass
from typing import Any

from cuttlefish_signaling import AuthorizeContext, FilterContext, Refused, SignalingServer, Tls
from cuttlefish_signaling.webrtc import WebRtcClient, WebRtcDevice

DEVICE_INFO = {
    "displays": [{"stream_id": "display_0", "x_res": 320, "y_res": 240, "dpi": 160, "is_touch": True}],
    "audio_streams": [],
    "hardware": {"CPUs": 2, "RAM": "4096 mb"},
    "custom_control_panel_buttons": [],
    "adb_port": 6520,
}


@dataclass
class Outcome:
    """What came through."""

    device_info: Any
    frames: list[Any]
    heard_by_client: str | bytes
    heard_by_device: str | bytes
    transcript: str


async def session(server: SignalingServer, **client_options: Any) -> Outcome:
    """One session through a running server."""
    async with (
        WebRtcDevice(server, "cvd-1", info=DEVICE_INFO) as device,
        WebRtcClient(f"{server.client_url}?token=letmein", "cvd-1", **client_options) as client,
    ):
        frames = await client.frames(5)
        await device.send_data("hello from the device")
        await client.send_data("hello from the client")
        return Outcome(
            device_info=client.device_info,
            frames=frames,
            heard_by_client=(await client.recv_data()).data,
            heard_by_device=(await device.recv_data()).data,
            transcript=server.journal.transcript(),
        )


async def plain() -> Outcome:
    """The plain way."""
    async with SignalingServer(journal=True) as server:
        return await session(server)


async def with_hooks() -> Outcome:
    """The same over TLS: clients need a token, do not see the adb port, and each peer has its ICE servers asked for."""

    def authorize(ctx: AuthorizeContext) -> str | None:
        if ctx.role == "client" and ctx.query.get("token") != "letmein":
            raise Refused("wrong token")
        return ctx.role

    def hide_adb_port(info: Any, ctx: FilterContext) -> Any:
        return {key: value for key, value in info.items() if key != "adb_port"}

    async def ice_servers(ctx: Any) -> list[Any]:
        return []  # On loopback there is nothing to traverse.

    tls = Tls.self_signed()
    async with SignalingServer(
        tls=tls, journal=True, authorize=authorize, filter_device_info=hide_adb_port, ice_servers=ice_servers
    ) as server:
        return await session(server, tls=tls.client_context())


def main() -> None:
    """Runs one session and tells what came through."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tls", action="store_true", help="over TLS, with hooks")
    outcome = asyncio.run(with_hooks() if parser.parse_args().tls else plain())
    print(outcome.transcript)
    print(f"device info:     {outcome.device_info}")
    print(f"video frames:    {len(outcome.frames)} of {outcome.frames[0].width}x{outcome.frames[0].height}")
    print(f"client heard:    {outcome.heard_by_client!r}")
    print(f"device heard:    {outcome.heard_by_device!r}")


if __name__ == "__main__":
    main()
