"""The machines of test_nat.py, each a process in a network namespace of its own.

    python nat_peers.py client ADDRESS OPTIONS      a server and a client; OPTIONS is JSON
    python nat_peers.py device URL

Both write lines of JSON. The client writes the address of the server, and then the result of the session. The device
runs until its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import aioice.stun

from cuttlefish_signaling import Grant, PeerClosedError, SignalingServer
from cuttlefish_signaling._media import MediaConnection
from cuttlefish_signaling.webrtc import WebRtcClient, WebRtcDevice

from peers import PATIENCE, SeqpacketPeer

END = {"type": "ice-candidate", "mid": "0", "mLineIndex": 0, "candidate": ""}
"""The mark behind the last candidate. ICE fails then, once each pair has failed."""


class Client(WebRtcClient):
    """A client that hands the mark of the last candidate to aiortc."""

    async def _negotiate(self, media: MediaConnection, payload: Any) -> None:
        await super()._negotiate(media, payload)
        if payload == END:
            await media.pc.addIceCandidate(None)


class Device(WebRtcDevice):
    """A device that says which candidate is its last."""

    async def _offer(self, client_id: int) -> None:
        await super()._offer(client_id)
        await self.send(END, client_id)


def tell(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


async def session(server: SignalingServer) -> str:
    """Returns the reply of the device over a data channel, after two frames of its video."""
    async with Client(server, loopback=False, timeout=PATIENCE) as client:
        await client.frames(2, PATIENCE)
        await client.send_data("hello")
        return str((await client.recv_data(PATIENCE)).data)


async def client(address: str, options: dict[str, Any]) -> None:
    """Runs a server with the options, and the session of a client."""
    if options.pop("short_checks", False):
        # 31 times the first wait, which is 3 s for a check and not a minute. Those that can pass take milliseconds.
        aioice.stun.RETRY_RTO, aioice.stun.RETRY_MAX = 0.1, 4
    granted, announced = options.pop("grant", None), options.pop("pre_register", None)
    if granted is not None:
        options["authorize"] = lambda context: Grant(advertise_address=granted) if context.role == "device" else None
    else:
        options["allow_unauthenticated"] = True
    with tempfile.TemporaryDirectory() as folder:
        if announced is not None:
            options["control_socket"] = Path(folder) / "control"
        async with SignalingServer(host=address, journal=True, **options) as server:
            if announced is not None:
                control = SeqpacketPeer(options["control_socket"])
                devices = [{"id": "cvd-1", "advertise_address": announced}]
                control.send({"message_type": "pre-register", "devices": devices})
                assert control.receive()[0]["status"] == "accepted"
            tell(url=server.url)
            await server.wait_for_device_async("cvd-1", timeout=PATIENCE)
            try:
                result = {"reply": await session(server)}
            except PeerClosedError as error:
                result = {"error": str(error)}
            sent = server.journal.messages(direction="device->client", type="ice-candidate")
            texts = [entry.payload["candidate"] for entry in sent if entry.payload != END]
            tell(**result, candidates=texts, rewritten=sum(entry.rewritten for entry in sent))


async def device(url: str) -> None:
    """Answers each message of a data channel, until standard input ends."""

    async def answer() -> None:
        while True:
            message = await peer.recv_data(timeout=None)
            assert isinstance(message.data, str)
            await peer.send_data(message.data + " yourself", message.client_id)

    async with Device(url, loopback=False, timeout=PATIENCE) as peer:
        answering = asyncio.ensure_future(answer())
        await asyncio.to_thread(sys.stdin.read)
        answering.cancel()


if __name__ == "__main__":
    name, *given = sys.argv[1:]
    asyncio.run(client(given[0], json.loads(given[1])) if name == "client" else device(given[0]))
