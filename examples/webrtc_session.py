"""A complete WebRTC session through this server: a device and a client, both real WebRTC peers (aiortc), on loopback.

    pip install 'cuttlefish-signaling[aiortc]'
    python examples/webrtc_session.py            # or --tls, with hooks in use

The device registers. The client connects and asks for an offer. The server relays offer, answer and ICE candidates, as
real Cuttlefish devices and browsers send them. Then media and a data channel connect the peers directly.
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
    """The result of a session."""

    device_info: Any
    frames: list[Any]
    heard_by_client: str | bytes
    heard_by_device: str | bytes
    transcript: str


async def session(server: SignalingServer, **client_options: Any) -> Outcome:
    """Runs one session through a running server."""
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
    """Runs a session without TLS and hooks."""
    async with SignalingServer(journal=True) as server:
        return await session(server)


async def with_hooks() -> Outcome:
    """Runs a session over TLS with hooks: clients need a token and get no adb port, and each peer has ICE servers."""

    def authorize(ctx: AuthorizeContext) -> str | None:
        if ctx.role == "client" and ctx.query.get("token") != "letmein":
            raise Refused("wrong token")
        return ctx.role

    def hide_adb_port(info: Any, ctx: FilterContext) -> Any:
        return {key: value for key, value in info.items() if key != "adb_port"}

    async def ice_servers(ctx: Any) -> list[Any]:
        return []  # Loopback needs no STUN or TURN server.

    tls = Tls.self_signed()
    async with SignalingServer(
        tls=tls, journal=True, authorize=authorize, filter_device_info=hide_adb_port, ice_servers=ice_servers
    ) as server:
        return await session(server, tls=tls.client_context())


def main() -> None:
    """Runs one session and prints its result."""
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
