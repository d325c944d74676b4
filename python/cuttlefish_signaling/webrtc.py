"""Real media in tests: a device that streams video and a client that watches it, both real WebRTC peers (aiortc).

    async with WebRtcDevice(server) as device, WebRtcClient(server) as client:
        frames = await client.frames(5)
        await client.send_data("hello")
        assert (await device.recv_data()).data == "hello"

Needs the extra `aiortc`. Signaling is that of the fake peers, in the words of real devices and browsers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

try:
    import aioice.ice
    from aiortc import (
        RTCConfiguration,
        RTCDataChannel,
        RTCIceServer,
        RTCPeerConnection,
        RTCSessionDescription,
        VideoStreamTrack,
    )
    from aiortc.mediastreams import MediaStreamError
    from aiortc.sdp import candidate_from_sdp
    from av import VideoFrame
except ImportError as _error:  # pragma: no cover
    raise ImportError(
        "cuttlefish_signaling.webrtc needs aiortc: pip install 'cuttlefish-signaling[aiortc]'"
    ) from _error

from ._config import check_seconds
from .errors import ConfigError, PeerClosedError, WaitTimeoutError
from .testing._client import AsyncFakeClient
from .testing._device import AsyncFakeDevice
from .testing._endpoint import Endpoint
from .testing._message import Message

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["CONTROL", "DataMessage", "TestPattern", "WebRtcClient", "WebRtcDevice"]

T = TypeVar("T")

CONTROL = "device-control"
"""The data channel a device opens."""


@dataclass(frozen=True)
class DataMessage:
    """A message of a data channel."""

    label: str
    """The channel."""
    data: str | bytes
    """What was said."""
    client_id: int | None
    """On devices, the client that said it."""


class TestPattern(VideoStreamTrack):
    """Grey frames, 30 a second, each a little brighter than the last until they begin again."""

    __test__ = False  # For pytest: not a test class.

    def __init__(self, width: int = 320, height: int = 240) -> None:
        super().__init__()
        self._size = (width, height)
        self._shade = 0

    async def recv(self) -> VideoFrame:
        """The next frame, when it is time for it."""
        pts, time_base = await self.next_timestamp()
        self._shade = (self._shade + 8) % 256
        frame = VideoFrame(*self._size, "yuv420p")
        for plane, value in zip(frame.planes, (self._shade, 128, 128), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.pts, frame.time_base = pts, time_base
        return frame


class _Loopback:
    """While anybody is in, ICE keeps to 127.0.0.1, which aioice would leave out: tests talk to nobody else."""

    def __init__(self) -> None:
        self._users = 0
        self._original: Callable[..., list[str]] | None = None

    def acquire(self) -> None:
        self._users += 1
        if self._original is None:
            self._original = aioice.ice.get_host_addresses
            aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]

    def release(self) -> None:
        self._users -= 1
        if self._users == 0 and self._original is not None:
            aioice.ice.get_host_addresses = self._original
            self._original = None


_loopback = _Loopback()


class MediaConnection:
    """One peer connection, and the data channels on it."""

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
        """A channel that was opened, by whichever side."""
        label = channel.label
        self.channels[label] = channel
        self.changed.set()
        channel.on("open", self.changed.set)
        channel.on("message", lambda data: self._on_data(DataMessage(label, data, self._client_id)))

    def open_channel(self, label: str) -> RTCDataChannel | None:
        """The channel, if it is open."""
        channel = self.channels.get(label)
        return channel if channel is not None and channel.readyState == "open" else None

    async def describe(self, description: RTCSessionDescription) -> tuple[str, list[tuple[str, int, str]]]:
        """Sets the local description, and takes the candidates out of it, to be sent one by one as real peers do."""
        await self.pc.setLocalDescription(description)
        return split_candidates(self.pc.localDescription.sdp)

    async def add_candidate(self, mid: str, index: int, text: str) -> None:
        """A candidate of the other side. Empty ones say that there are no more."""
        text = text.removeprefix("candidate:")
        if text:
            candidate = candidate_from_sdp(text)
            candidate.sdpMid, candidate.sdpMLineIndex = mid, index
            await self.pc.addIceCandidate(candidate)


def split_candidates(sdp: str) -> tuple[str, list[tuple[str, int, str]]]:
    """An SDP without its candidates, and these, each with the `mid` and the index of its media."""
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
    """What devices and clients with media have in common: lines, an inbox of data, and waiting for both."""

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
            _loopback.acquire()

    def _release_loopback(self) -> None:
        if self._has_loopback:
            self._has_loopback = False
            _loopback.release()

    def _on_data(self, message: DataMessage) -> None:
        self._data.append(message)
        self._data_changed.set()

    async def recv_data(self, timeout: float | None = 5.0, *, label: str | None = None) -> DataMessage:
        """The next message of a data channel, or of this one. Raises WaitTimeoutError."""
        check_seconds("timeout", timeout, optional=True)

        def check() -> DataMessage | None:
            found = next((message for message in self._data if label in (None, message.label)), None)
            if found is not None:
                self._data.remove(found)
            return found

        what = f"a message on the data channel {label!r}" if label else "a message on a data channel"
        return await _wait_until(
            check, self._data_changed, timeout, lambda: f"{self._name} waited {timeout:g} s for {what}"
        )


async def _wait_until(
    check: Callable[[], T | None], changed: asyncio.Event, timeout: float | None, failure: Callable[[], str]
) -> T:
    """Looks again whenever something changed. Raises WaitTimeoutError, with the words of `failure`."""
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    while (found := check()) is None:
        changed.clear()
        left = None if deadline is None else deadline - loop.time()
        if left is not None and left <= 0:
            raise WaitTimeoutError(failure())
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(changed.wait(), left)
    return found


class WebRtcDevice(MediaPeer, AsyncFakeDevice):
    """A device with media: whoever asks for an offer gets video and a data channel.

    With a profile it keeps its media over a reconnect, and negotiates anew on the old connection when a client with an
    old number asks for an offer: a client that is new gets no media from that.

    Args:
        server, device_id, options: As for `AsyncFakeDevice`.
        video: Makes the video track for a client; a `TestPattern` where nothing is said.
        loopback: Whether ICE keeps to 127.0.0.1.
    """

    def __init__(
        self,
        server: Endpoint | str,
        device_id: str = "cvd-1",
        *,
        video: Callable[[], Any] = TestPattern,
        loopback: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(server, device_id, **options)
        self._prepare(loopback)
        self._video = video
        self._media: dict[int, MediaConnection] = {}

    async def start(self) -> Self:
        """Registers. Raises as `AsyncFakeDevice.start`."""
        self._acquire_loopback()
        try:
            return await super().start()
        except BaseException:
            self._release_loopback()
            raise

    async def close(self) -> None:
        """Hangs up, media included."""
        try:
            await super().close()
        finally:
            all_media, self._media = self._media, {}
            for media in all_media.values():
                await media.pc.close()
            self._release_loopback()

    async def _on_message(self, message: Message) -> None:
        await super()._on_message(message)
        try:
            if message.message_type == "client_msg" and message.client_id is not None:
                await self._negotiate(message.client_id, message.payload)
            elif message.message_type == "client_disconnected" and message.client_id in self._media:
                await self._media.pop(message.client_id).pc.close()
        except PeerClosedError:
            pass
        except Exception as error:
            self._script_error = error
            self._changed.set()

    async def _negotiate(self, client_id: int, payload: Any) -> None:
        kind = payload.get("type") if isinstance(payload, dict) else None
        if kind == "request-offer":
            await self._offer(client_id)
        elif kind == "answer" and client_id in self._media:
            await self._media[client_id].pc.setRemoteDescription(RTCSessionDescription(payload["sdp"], "answer"))
        elif kind == "ice-candidate" and client_id in self._media:
            said = payload["candidate"]
            await self._media[client_id].add_candidate(said["sdpMid"], said["sdpMLineIndex"], said["candidate"])

    async def _offer(self, client_id: int) -> None:
        media = self._media.get(client_id)
        if media is not None and (self.profile is None or media.pc.connectionState in ("closed", "failed")):
            await self._media.pop(client_id).pc.close()
            media = None
        if media is None:
            ice_servers = list((self.config or {}).get("ice_servers", []))
            media = self._media[client_id] = MediaConnection(ice_servers, self._on_data, client_id)
            media.pc.addTrack(self._video())
            media.add(media.pc.createDataChannel(CONTROL))
        sdp, candidates = await media.describe(await media.pc.createOffer())
        await self.send({"type": "offer", "sdp": sdp}, client_id)
        for mid, index, text in candidates:
            await self.send({"type": "ice-candidate", "mid": mid, "mLineIndex": index, "candidate": text}, client_id)

    async def send_data(
        self, data: str | bytes, client_id: int | None = None, *, label: str = CONTROL, timeout: float | None = 5.0
    ) -> None:
        """Says something on a data channel, once it is open; with one client alone, to that.

        Raises WaitTimeoutError, and ConfigError where it is not clear which client is meant.
        """
        if client_id is None:
            if len(self._media) != 1:
                raise ConfigError("client_id", f"say to which client; those with media are {sorted(self._media)}")
            client_id = next(iter(self._media))
        if client_id not in self._media:
            raise ConfigError("client_id", f"client {client_id} has no media; {sorted(self._media)} have")
        await _send(self._media[client_id], data, label, timeout, self._name)


class WebRtcClient(MediaPeer, AsyncFakeClient):
    """A client with media: it asks for an offer, answers it, and is connected when `start` returns.

    Args:
        server, device_id, options: As for `AsyncFakeClient`. `timeout` is for the media as well.
        loopback: Whether ICE keeps to 127.0.0.1.
    """

    def __init__(
        self,
        server: Endpoint | str,
        device_id: str = "cvd-1",
        *,
        loopback: bool = True,
        timeout: float = 10.0,
        **options: Any,
    ) -> None:
        super().__init__(server, device_id, timeout=timeout, **options)
        self._prepare(loopback)
        self._media: MediaConnection | None = None
        self._frames: asyncio.Queue[VideoFrame] = asyncio.Queue()

    async def start(self) -> Self:
        """Connects, asks for an offer, and returns when media can flow.

        Raises as `AsyncFakeClient.start`; WaitTimeoutError tells how far ICE has come.
        """
        self._acquire_loopback()
        try:
            await super().start()
            await self._connect_media()
        except BaseException:
            await self.close()
            raise
        return self

    async def _connect_media(self) -> None:
        media = self._media = MediaConnection(self.ice_servers, self._on_data, None)
        media.pc.on("track", lambda track: self._spawn(self._receive_frames(track)))
        await self.send({"type": "request-offer", "ice_servers": self.ice_servers})

        def check() -> bool | None:
            self._raise_script_error()
            if media.pc.connectionState in ("failed", "closed"):
                raise PeerClosedError(f"{self._name}: the media connection is {media.pc.connectionState}")
            if self._ended:
                raise self._closed("waits for media in vain")
            return True if media.pc.connectionState == "connected" else None

        def failure() -> str:
            return f"{self._name} waited {self._timeout:g} s for media: {self._progress()}"

        await _wait_until(check, media.changed, self._timeout, failure)

    def _progress(self) -> str:
        pc = self._media.pc if self._media else None
        return f"signaling {pc.signalingState}, ICE {pc.iceConnectionState}" if pc else "nothing began"

    async def close(self) -> None:
        """Hangs up, media included."""
        try:
            await super().close()
        finally:
            if self._media is not None:
                await self._media.pc.close()
            self._release_loopback()

    async def _on_message(self, message: Message) -> None:
        await super()._on_message(message)
        try:
            if message.message_type == "device_msg" and self._media is not None:
                await self._negotiate(self._media, message.payload)
        except PeerClosedError:
            pass
        except Exception as error:
            self._script_error = error
            self._changed.set()
            if self._media is not None:
                self._media.changed.set()

    async def _negotiate(self, media: MediaConnection, payload: Any) -> None:
        kind = payload.get("type") if isinstance(payload, dict) else None
        if kind == "offer":
            await media.pc.setRemoteDescription(RTCSessionDescription(payload["sdp"], "offer"))
            sdp, candidates = await media.describe(await media.pc.createAnswer())
            await self.send({"type": "answer", "sdp": sdp})
            for mid, index, text in candidates:
                candidate = {"candidate": text, "sdpMid": mid, "sdpMLineIndex": index}
                await self.send({"type": "ice-candidate", "candidate": candidate})
        elif kind == "ice-candidate":
            await media.add_candidate(payload["mid"], payload["mLineIndex"], payload["candidate"])

    async def _receive_frames(self, track: Any) -> None:
        # The track ends with the connection.
        with suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                if isinstance(frame, VideoFrame):
                    self._frames.put_nowait(frame)

    async def frames(self, count: int = 1, timeout: float | None = 10.0) -> list[VideoFrame]:
        """The next frames of video, so many. Raises WaitTimeoutError."""
        check_seconds("timeout", timeout, optional=True)
        frames: list[VideoFrame] = []

        async def collect() -> None:
            while len(frames) < count:
                frames.append(await self._frames.get())

        try:
            await asyncio.wait_for(collect(), timeout)
        except asyncio.TimeoutError:
            received = f"{len(frames)} came; {self._progress()}"
            raise WaitTimeoutError(f"{self._name} waited {timeout:g} s for {count} frames; {received}") from None
        return frames

    async def send_data(self, data: str | bytes, *, label: str = CONTROL, timeout: float | None = 5.0) -> None:
        """Says something on a data channel, once it is open. Raises WaitTimeoutError."""
        if self._media is None:
            raise PeerClosedError(f"{self._name} has no media: it is not started")
        await _send(self._media, data, label, timeout, self._name)


async def _send(media: MediaConnection, data: str | bytes, label: str, timeout: float | None, name: str) -> None:
    def failure() -> str:
        return (
            f"{name} waited {timeout:g} s for the data channel {label!r} to open; there are: {sorted(media.channels)}"
        )

    channel = await _wait_until(lambda: media.open_channel(label), media.changed, timeout, failure)
    channel.send(data)
