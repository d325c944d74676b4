"""Real media in tests: a device that streams video and a client that receives it, both WebRTC peers on aiortc.

    async with WebRtcDevice(server) as device, WebRtcClient(server) as client:
        frames = await client.frames(5)
        await client.send_data("hello")
        assert (await device.recv_data()).data == "hello"

Needs the extra `aiortc`. The peers signal like the fake peers, with the payloads of real devices and browsers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

try:
    from aiortc.mediastreams import MediaStreamError
    from av import VideoFrame
except ImportError as _error:  # pragma: no cover
    raise ImportError(
        "cuttlefish_signaling.webrtc needs aiortc: pip install 'cuttlefish-signaling[aiortc]'"
    ) from _error

from ._annotations import late_annotations
from ._checks import check_seconds
from ._media import DataMessage, MediaConnection, MediaPeer, TestPattern
from ._timeouts import DEFAULT_TIMEOUT, seconds_of
from .errors import ConfigError, PeerClosedError, WaitTimeoutError
from .testing._client import AsyncFakeClient
from .testing._device import AsyncFakeDevice
from .testing._endpoint import Endpoint
from .testing._message import Message
from .testing._wait import wait_until

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["CONTROL", "DataMessage", "TestPattern", "WebRtcClient", "WebRtcDevice"]

CONTROL = "device-control"
"""The label of the data channel that a device opens."""


class WebRtcDevice(MediaPeer, AsyncFakeDevice):
    """A device with media. Each client that requests an offer receives video and a data channel.

    With a profile the device keeps its media connections when it reconnects. If a client has the number of an earlier
    client, its request for an offer renegotiates the old connection, so the new client receives no media.

    Args:
        server: As for `AsyncFakeDevice`.
        device_id: As for `AsyncFakeDevice`.
        video: Makes the video track for a client.
        loopback: Whether ICE is restricted to 127.0.0.1.
        options: As for `AsyncFakeDevice`.
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
        """Registers. Raises the exceptions of `AsyncFakeDevice.start`."""
        self._acquire_loopback()
        try:
            return await super().start()
        except BaseException:
            self._release_loopback()
            raise

    async def close(self) -> None:
        """Closes the connection and the media connections. Raises the exceptions of `AsyncFakeDevice.close`."""
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
            self._fail(error)

    async def _negotiate(self, client_id: int, payload: Any) -> None:
        kind = payload.get("type") if isinstance(payload, dict) else None
        if kind == "request-offer":
            await self._offer(client_id)
        elif kind == "answer" and client_id in self._media:
            await self._media[client_id].set_remote_description(payload["sdp"], "answer")
        elif kind == "ice-candidate" and client_id in self._media:
            candidate = payload["candidate"]
            await self._media[client_id].add_candidate(
                candidate["sdpMid"], candidate["sdpMLineIndex"], candidate["candidate"]
            )

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
        sdp, candidates = await media.set_local_description(await media.pc.createOffer())
        await self.send({"type": "offer", "sdp": sdp}, client_id)
        for mid, index, text in candidates:
            await self.send({"type": "ice-candidate", "mid": mid, "mLineIndex": index, "candidate": text}, client_id)

    async def send_data(
        self,
        data: str | bytes,
        client_id: int | None = None,
        *,
        label: str = CONTROL,
        timeout: float | None = DEFAULT_TIMEOUT,
    ) -> None:
        """Sends a message on a data channel, once the channel is open. `client_id` is optional with one client.

        Raises WaitTimeoutError, and ConfigError if no client, or more than one, is possible.
        """
        known = f"clients with media: {sorted(self._media)}"
        if client_id is None:
            if len(self._media) != 1:
                raise ConfigError("client_id", f"must be given unless exactly one client has media; {known}")
            client_id = next(iter(self._media))
        if client_id not in self._media:
            raise ConfigError("client_id", f"client {client_id} has no media; {known}")
        await self._media[client_id].send_data(data, label, seconds_of(timeout), self._name)


class WebRtcClient(MediaPeer, AsyncFakeClient):
    """A client with media. It requests an offer and answers it; media is connected when `start` returns.

    Args:
        server: As for `AsyncFakeClient`.
        device_id: As for `AsyncFakeClient`.
        loopback: Whether ICE is restricted to 127.0.0.1.
        timeout: Seconds for the connection to the server, and again for the media connection.
        options: As for `AsyncFakeClient`.
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
        """Connects and requests an offer. Returns when media is connected.

        Raises the exceptions of `AsyncFakeClient.start`. The text of a WaitTimeoutError has the state of ICE.
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
            self._script.raise_error()
            if media.pc.connectionState in ("failed", "closed"):
                raise PeerClosedError(f"{self._name}: the media connection is {media.pc.connectionState}")
            if self._ended:
                raise self._closed("cannot connect media")
            return True if media.pc.connectionState == "connected" else None

        def failure() -> str:
            return f"{self._name} waited {self._timeout:g} s for media: {self._progress()}"

        await wait_until(check, media.changed, self._timeout, failure)

    def _on_end(self) -> None:
        if self._media is not None:
            self._media.changed.set()

    def _progress(self) -> str:
        pc = self._media.pc if self._media else None
        return (
            f"signaling {pc.signalingState}, ICE {pc.iceConnectionState}" if pc else "no media connection was created"
        )

    async def close(self) -> None:
        """Closes the connection and the media connection. Raises the exceptions of `AsyncFakeClient.close`."""
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
            self._fail(error)
            if self._media is not None:
                self._media.changed.set()

    async def _negotiate(self, media: MediaConnection, payload: Any) -> None:
        kind = payload.get("type") if isinstance(payload, dict) else None
        if kind == "offer":
            await media.set_remote_description(payload["sdp"], "offer")
            sdp, candidates = await media.set_local_description(await media.pc.createAnswer())
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
        """Takes the next `count` video frames. Raises WaitTimeoutError."""
        check_seconds("timeout", timeout, optional=True)
        frames: list[VideoFrame] = []

        async def collect() -> None:
            while len(frames) < count:
                frames.append(await self._frames.get())

        # Not `asyncio.wait_for`: before Python 3.12 it loses a cancellation that comes in the turn of the last frame.
        collecting = asyncio.ensure_future(collect())
        try:
            await asyncio.wait([collecting], timeout=timeout)
        finally:
            collecting.cancel()
        if len(frames) < count:
            received = f"received {len(frames)}; {self._progress()}"
            raise WaitTimeoutError(f"{self._name} waited {timeout:g} s for {count} frames; {received}")
        return frames

    async def send_data(
        self, data: str | bytes, *, label: str = CONTROL, timeout: float | None = DEFAULT_TIMEOUT
    ) -> None:
        """Sends a message on a data channel, once the channel is open. Raises WaitTimeoutError."""
        if self._media is None:
            raise PeerClosedError(f"{self._name} has no media: it is not started")
        await self._media.send_data(data, label, seconds_of(timeout), self._name)


late_annotations(globals())
