"""Media of the WebRTC peers in `webrtc`: a peer connection, a test pattern, and received data channel messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

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

from ._field_docs import with_field_docs
from ._timeouts import DEFAULT_TIMEOUT, seconds_of
from .testing._wait import wait_until

Candidate: TypeAlias = tuple[str, int, str]
"""An ICE candidate: the `mid` and the index of its media section, and the text."""


@with_field_docs
@dataclass(frozen=True)
class DataMessage:
    """A message of a data channel."""

    label: str
    """The label of the channel."""
    data: str | bytes
    """The content."""
    client_id: int | None
    """On devices, the client that sent the message."""


class TestPattern(VideoStreamTrack):
    """Grey frames, 30 per second. The brightness changes with each frame."""

    __test__ = False  # For pytest: not a test class.

    def __init__(self, width: int = 320, height: int = 240) -> None:
        super().__init__()
        self._size = (width, height)
        self._shade = 0

    async def recv(self) -> VideoFrame:
        """The next frame, at its presentation time."""
        pts, time_base = await self.next_timestamp()
        self._shade = (self._shade + 8) % 256
        frame = VideoFrame(*self._size, "yuv420p")
        for plane, value in zip(frame.planes, (self._shade, 128, 128), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.pts, frame.time_base = pts, time_base
        return frame


class LoopbackOnly:
    """Restricts ICE to 127.0.0.1 while it has users, so that tests send no packets to the network.

    aioice never gathers loopback addresses, so its function that lists the addresses is replaced.
    """

    def __init__(self) -> None:
        self._users = 0
        self._original: Callable[..., list[str]] | None = None

    def acquire(self) -> None:
        """Adds a user. Each `acquire` needs a `release`."""
        self._users += 1
        if self._original is None:
            self._original = aioice.ice.get_host_addresses
            aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]

    def release(self) -> None:
        """Removes a user. The last one restores the function of aioice."""
        self._users -= 1
        if self._users == 0 and self._original is not None:
            aioice.ice.get_host_addresses = self._original
            self._original = None


loopback_only = LoopbackOnly()


class MediaConnection:
    """A peer connection and its data channels."""

    def __init__(
        self, ice_servers: list[dict[str, Any]], on_data: Callable[[DataMessage], None], client_id: int | None
    ) -> None:
        servers = [RTCIceServer(**server) for server in ice_servers]
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self.channels: dict[str, RTCDataChannel] = {}
        self.changed = asyncio.Event()
        self._on_data = on_data
        self._client_id = client_id
        self.pc.on("connectionstatechange", self.changed.set)
        self.pc.on("datachannel", self.add)

    def add(self, channel: RTCDataChannel) -> None:
        """Adds a data channel, which this or the other side opened."""
        label = channel.label
        self.channels[label] = channel
        self.changed.set()
        channel.on("open", self.changed.set)
        channel.on("message", lambda data: self._on_data(DataMessage(label, data, self._client_id)))

    async def set_local_description(self, description: RTCSessionDescription) -> tuple[str, list[Candidate]]:
        """Sets the local description. Returns the SDP without candidates, and the candidates.

        Real peers send the candidates one by one, after the SDP.
        """
        await self.pc.setLocalDescription(description)
        return split_candidates(self.pc.localDescription.sdp)

    async def set_remote_description(self, sdp: str, type: str) -> None:
        """Sets the remote description: an `offer` or an `answer`."""
        await self.pc.setRemoteDescription(RTCSessionDescription(sdp, type))

    async def add_candidate(self, mid: str, index: int, text: str) -> None:
        """Adds a candidate of the other side. An empty text marks the end of the candidates."""
        text = text.removeprefix("candidate:")
        if text:
            candidate = candidate_from_sdp(text)
            candidate.sdpMid, candidate.sdpMLineIndex = mid, index
            await self.pc.addIceCandidate(candidate)

    async def send_data(self, data: str | bytes, label: str, timeout: float | None, name: str) -> None:
        """Sends a message on a data channel, and waits until the channel is open first. Raises WaitTimeoutError."""

        def check() -> RTCDataChannel | None:
            channel = self.channels.get(label)
            return channel if channel is not None and channel.readyState == "open" else None

        def failure() -> str:
            waited = f"{name} waited {timeout:g} s for the data channel {label!r} to open"
            return f"{waited}; its data channels are {sorted(self.channels)}"

        channel = await wait_until(check, self.changed, timeout, failure)
        channel.send(data)


def split_candidates(sdp: str) -> tuple[str, list[Candidate]]:
    """Returns an SDP without its candidates, and the candidates."""
    kept: list[str] = []
    found: list[tuple[int, str]] = []
    mids: dict[int, str] = {}
    index = -1
    for line in sdp.splitlines():
        if line.startswith("m="):
            index += 1
        elif line.startswith("a=mid:"):
            mids[index] = line.removeprefix("a=mid:")
        if line.startswith("a=candidate:"):
            found.append((index, line.removeprefix("a=")))
        elif line != "a=end-of-candidates":
            kept.append(line)
    return "\r\n".join(kept) + "\r\n", [(mids.get(index, str(index)), index, text) for index, text in found]


class MediaPeer:
    """The common part of devices and clients with media: the restriction of ICE, and received data messages."""

    _name: str
    _loopback: bool
    _has_loopback: bool
    _data: list[DataMessage]
    _data_changed: asyncio.Event

    def _prepare(self, loopback: bool) -> None:
        self._loopback, self._has_loopback = loopback, False
        self._data, self._data_changed = [], asyncio.Event()

    def _acquire_loopback(self) -> None:
        if self._loopback and not self._has_loopback:
            self._has_loopback = True
            loopback_only.acquire()

    def _release_loopback(self) -> None:
        if self._has_loopback:
            self._has_loopback = False
            loopback_only.release()

    def _on_data(self, message: DataMessage) -> None:
        self._data.append(message)
        self._data_changed.set()

    async def recv_data(self, timeout: float | None = DEFAULT_TIMEOUT, *, label: str | None = None) -> DataMessage:
        """Takes the next message of the data channel `label`, or of any data channel. Raises WaitTimeoutError."""
        timeout = seconds_of(timeout)

        def check() -> DataMessage | None:
            found = next((message for message in self._data if label in (None, message.label)), None)
            if found is not None:
                self._data.remove(found)
            return found

        what = f"a message on the data channel {label!r}" if label else "a message on a data channel"
        return await wait_until(
            check, self._data_changed, timeout, lambda: f"{self._name} waited {timeout:g} s for {what}"
        )
