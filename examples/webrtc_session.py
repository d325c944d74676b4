"""A whole WebRTC session through this server: a device and a client, both real WebRTC peers (aiortc), on loopback.

    pip install cuttlefish-signaling aiortc websockets
    python examples/webrtc_session.py            # or --tls, with hooks in use

The device registers, the client connects and asks for an offer; offer, answer and ICE candidates go through the
server in the words real Cuttlefish devices and browsers use; then media and a data channel go directly.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aioice.ice
from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
    VideoStreamTrack,
)
from aiortc.sdp import candidate_from_sdp
from av import VideoFrame
from websockets.asyncio.client import ClientConnection, connect

from cuttlefish_signaling import AuthorizeContext, FilterContext, Refused, SignalingServer, Tls

DEVICE_ID = "cvd-1"
DEVICE_INFO = {
    "displays": [{"display_id": "display_0", "x_res": 320, "y_res": 240, "dpi": 160, "is_touch": True}],
    "audio_streams": [],
    "hardware": {"CPUs": 2, "RAM": "4096 mb"},
    "custom_control_panel_buttons": [],
    "adb_port": 6520,
}
Send = Callable[[dict[str, Any]], Any]


@dataclass
class Outcome:
    """What came through."""

    device_info: Any = None
    frames: list[VideoFrame] = field(default_factory=list)
    heard_by_client: list[str] = field(default_factory=list)
    heard_by_device: list[str] = field(default_factory=list)
    payloads: list[str] = field(default_factory=list)


class TestPattern(VideoStreamTrack):
    """Grey frames, each a little brighter than the last."""

    __test__ = False  # For pytest: not a test class.
    shade = 0

    async def recv(self) -> VideoFrame:
        """The next frame."""
        pts, time_base = await self.next_timestamp()
        self.shade = (self.shade + 8) % 256
        frame = VideoFrame(320, 240, "yuv420p")
        for plane, value in zip(frame.planes, (self.shade, 128, 128), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.pts, frame.time_base = pts, time_base
        return frame


def peer_connection(config: dict[str, Any]) -> RTCPeerConnection:
    """A peer connection with the ICE servers that the server's `config` message names."""
    return RTCPeerConnection(RTCConfiguration(iceServers=[RTCIceServer(**server) for server in config["ice_servers"]]))


def without_candidates(description: RTCSessionDescription) -> tuple[str, list[tuple[str, int, str]]]:
    """Takes the candidates out of an SDP, to send them one by one, as browsers and devices do."""
    lines: list[str] = []
    candidates: list[tuple[str, int, str]] = []
    mid, index = "", -1
    for line in description.sdp.splitlines():
        if line.startswith("m="):
            index += 1
        elif line.startswith("a=mid:"):
            mid = line.removeprefix("a=mid:")
            candidates = [(mid if i == index else m, i, text) for m, i, text in candidates]
        if line.startswith("a=candidate:"):
            candidates.append((mid, index, line.removeprefix("a=")))
        elif line != "a=end-of-candidates":
            lines.append(line)
    return "\r\n".join(lines) + "\r\n", candidates


async def add_candidate(pc: RTCPeerConnection, mid: str, index: int, text: str) -> None:
    """Gives a candidate of the other side to the connection."""
    candidate = candidate_from_sdp(text.removeprefix("candidate:"))
    candidate.sdpMid, candidate.sdpMLineIndex = mid, index
    await pc.addIceCandidate(candidate)


async def offer(pc: RTCPeerConnection, send: Send, outcome: Outcome) -> RTCDataChannel:
    """The device's part when a client asks: video and a data channel, an offer, and its candidates."""
    pc.addTrack(TestPattern())
    channel = pc.createDataChannel("device-control")

    @channel.on("open")
    def on_open() -> None:
        channel.send("hello from the device")

    @channel.on("message")
    def on_message(message: str) -> None:
        outcome.heard_by_device.append(message)

    await pc.setLocalDescription(await pc.createOffer())
    sdp, candidates = without_candidates(pc.localDescription)
    await send({"type": "offer", "sdp": sdp})
    for mid, index, text in candidates:
        await send({"type": "ice-candidate", "mid": mid, "mLineIndex": index, "candidate": text})
    return channel


async def device(url: str, tls: ssl.SSLContext | None, registered: asyncio.Event, outcome: Outcome) -> None:
    """A Cuttlefish device, until it is cancelled."""
    clients: dict[int, RTCPeerConnection] = {}
    channels = []
    try:
        async with connect(url, ssl=tls, subprotocols=["webrtc-operator"]) as socket:  # type: ignore[list-item]
            await say(socket, message_type="register", device_id=DEVICE_ID, device_info=DEVICE_INFO)
            config = json.loads(await socket.recv())
            registered.set()
            async for text in socket:
                message = json.loads(text)
                if message["message_type"] != "client_msg":
                    continue
                client_id, payload = message["client_id"], message["payload"]
                outcome.payloads.append(payload["type"])

                async def send(answer: dict[str, Any], client_id: int = client_id) -> None:
                    await say(socket, message_type="forward", client_id=client_id, payload=answer)

                if payload["type"] == "request-offer":
                    clients[client_id] = peer_connection(config)
                    channels.append(await offer(clients[client_id], send, outcome))
                elif payload["type"] == "answer":
                    await clients[client_id].setRemoteDescription(RTCSessionDescription(payload["sdp"], "answer"))
                elif payload["type"] == "ice-candidate":
                    said = payload["candidate"]
                    await add_candidate(clients[client_id], said["sdpMid"], said["sdpMLineIndex"], said["candidate"])
    finally:
        for pc in clients.values():
            await pc.close()


async def client(url: str, tls: ssl.SSLContext | None, outcome: Outcome, frames: int) -> None:
    """A browser's part: asks for an offer, answers it, and stays until it has seen and heard enough."""
    async with connect(url, ssl=tls) as socket:
        await say(socket, message_type="connect", device_id=DEVICE_ID)
        config = json.loads(await socket.recv())
        outcome.device_info = json.loads(await socket.recv())["device_info"]
        pc = peer_connection(config)
        seen, heard = asyncio.Event(), asyncio.Event()
        watching: list[asyncio.Task[None]] = []

        @pc.on("track")
        def on_track(track: Any) -> None:
            watching.append(asyncio.create_task(watch(track, outcome, frames, seen)))

        @pc.on("datachannel")
        def on_datachannel(channel: RTCDataChannel) -> None:
            @channel.on("message")
            def on_message(message: str) -> None:
                outcome.heard_by_client.append(message)
                channel.send("hello from the client")
                heard.set()

        async def signal() -> None:
            await say(socket, message_type="forward", payload={"type": "request-offer", "ice_servers": []})
            async for text in socket:
                payload = json.loads(text)["payload"]
                outcome.payloads.append(payload["type"])
                if payload["type"] == "offer":
                    await answer(socket, pc, payload["sdp"])
                elif payload["type"] == "ice-candidate":
                    await add_candidate(pc, payload["mid"], payload["mLineIndex"], payload["candidate"])

        signaling = asyncio.create_task(signal())
        try:
            await asyncio.gather(seen.wait(), heard.wait())
            while not outcome.heard_by_device:
                await asyncio.sleep(0.01)
        finally:
            for task in [signaling, *watching]:
                task.cancel()
            await pc.close()


async def answer(socket: ClientConnection, pc: RTCPeerConnection, sdp: str) -> None:
    """Answers an offer, then sends the candidates."""
    await pc.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
    await pc.setLocalDescription(await pc.createAnswer())
    sdp, candidates = without_candidates(pc.localDescription)
    await say(socket, message_type="forward", payload={"type": "answer", "sdp": sdp})
    for mid, index, text in candidates:
        candidate = {"candidate": text, "sdpMid": mid, "sdpMLineIndex": index}
        await say(socket, message_type="forward", payload={"type": "ice-candidate", "candidate": candidate})


async def watch(track: Any, outcome: Outcome, frames: int, seen: asyncio.Event) -> None:
    """Keeps the first frames."""
    while len(outcome.frames) < frames:
        outcome.frames.append(await track.recv())
    seen.set()


async def say(socket: ClientConnection, **message: Any) -> None:
    """One message to the server."""
    await socket.send(json.dumps(message))


@asynccontextmanager
async def loopback_only() -> AsyncIterator[None]:
    """Both peers are in this process: ICE keeps to 127.0.0.1, which aioice would leave out."""
    original = aioice.ice.get_host_addresses
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]
    try:
        yield
    finally:
        aioice.ice.get_host_addresses = original


async def session(server: SignalingServer, frames: int = 5) -> Outcome:
    """One session through a running server."""
    outcome, registered = Outcome(), asyncio.Event()
    tls = server.tls.client_context() if server.tls else None
    async with loopback_only():
        running = asyncio.create_task(device(server.device_url, tls, registered, outcome))
        try:
            done, _ = await asyncio.wait(
                [running, asyncio.create_task(registered.wait())], return_when=asyncio.FIRST_COMPLETED
            )
            if running in done:
                await running
            await client(f"{server.client_url}?token=letmein", tls, outcome, frames)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    return outcome


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

    async with SignalingServer(
        tls=Tls.self_signed(), authorize=authorize, filter_device_info=hide_adb_port, ice_servers=ice_servers
    ) as server:
        return await session(server)


async def plain() -> Outcome:
    """The plain way."""
    async with SignalingServer() as server:
        return await session(server)


def main() -> None:
    """Runs one session and tells what came through."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tls", action="store_true", help="over TLS, with hooks")
    outcome = asyncio.run(with_hooks() if parser.parse_args().tls else plain())
    print(f"device info:     {json.dumps(outcome.device_info)}")
    print(f"signaled:        {', '.join(outcome.payloads)}")
    print(f"video frames:    {len(outcome.frames)} of {outcome.frames[0].width}x{outcome.frames[0].height}")
    print(f"client heard:    {outcome.heard_by_client}")
    print(f"device heard:    {outcome.heard_by_device}")


if __name__ == "__main__":
    main()
