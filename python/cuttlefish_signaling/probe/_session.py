"""The session with a device: offer, answer, ICE, DTLS, video, data channels. I/O to facts, on `aiortc`."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

from aiortc import RTCConfiguration, RTCDataChannel, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.sdp import candidate_from_sdp
from av import VideoFrame

from .._media import split_candidates
from ._changes import Changes
from ._deadline import DeadlineError, within
from ._facts import (
    CLOSED,
    AnswerFacts,
    Candidate,
    DataFacts,
    DtlsFacts,
    IceFacts,
    MediaFacts,
    OfferFacts,
)
from ._ice import pairs_of
from ._options import ProbeOptions
from ._signaling import Signaling, candidate_text, media_of, type_of

ENDED = ("failed", "closed")
"""States of a connection that is over."""


class Session:
    """A WebRTC session with one device, stage by stage."""

    def __init__(self, signaling: Signaling, changes: Changes, ice_servers: list[dict[str, Any]]) -> None:
        self._signaling = signaling
        self._changes = changes
        self._urls = tuple(url for server in ice_servers for url in server["urls"])
        self._pc = RTCPeerConnection(RTCConfiguration([RTCIceServer(**server) for server in ice_servers]))
        for event in ("connectionstatechange", "iceconnectionstatechange"):
            self._pc.on(event, changes.set)
        self._pc.on("iceconnectionstatechange", self._note_state)
        self._pc.on("datachannel", self._add_channel)
        self._pc.on("track", self._add_track)
        self._begin = self._answered = time.monotonic()
        self._offer = ""
        self._states: list[tuple[str, float]] = []
        self._local: tuple[Candidate, ...] = ()
        self._remote: list[Candidate] = []
        self._channels: list[RTCDataChannel] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._first_frame: float | None = None
        self._frames = 0
        self._size = ""

    def _note_state(self) -> None:
        self._states.append((self._pc.iceConnectionState, time.monotonic() - self._answered))

    def _add_channel(self, channel: RTCDataChannel) -> None:
        self._channels.append(channel)
        channel.on("open", self._changes.set)
        self._changes.set()

    def _add_track(self, track: MediaStreamTrack) -> None:
        self._spawn(self._receive(track))

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _receive(self, track: MediaStreamTrack) -> None:
        # Sound is received as well: its frames would pile up.
        with suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                if isinstance(frame, VideoFrame):
                    self._frames += 1
                    if self._first_frame is None:
                        self._first_frame = time.monotonic() - self._begin
                    self._size = f"{frame.width}x{frame.height}"
                    self._changes.set()

    # Offer and answer -------------------------------------------------------------------------------------------------

    async def offer(self, seconds: float) -> OfferFacts:
        """Requests an offer, and reads it."""
        self._begin = time.monotonic()
        signaling, device = self._signaling, self._signaling.device_id
        await signaling.forward({"type": "request-offer", "ice_servers": signaling.ice_servers})

        def found() -> Any:
            return next((one for one in signaling.payloads if type_of(one) == "offer"), None)

        await self._changes.until(lambda: found() is not None or signaling.end or signaling.error, seconds)
        payload = found()
        if payload is None:
            types = tuple(dict.fromkeys(type_of(one) for one in signaling.payloads))
            outcome = "other_messages" if types else "silent"
            if signaling.end or signaling.error:
                outcome = "gone" if "Device disconnected" in signaling.error else CLOSED
            return OfferFacts(device, time.monotonic() - self._begin, outcome, types, signaling.how_ended)
        sdp = payload.get("sdp")
        try:
            if not isinstance(sdp, str):
                raise ValueError("it has no `sdp`")
            await within(seconds, self._pc.setRemoteDescription(RTCSessionDescription(sdp, "offer")))
        except DeadlineError:
            return OfferFacts(device, time.monotonic() - self._begin, "bad_sdp", reason="it takes too long to read")
        except Exception as error:  # The parser of aiortc raises many kinds.
            reason = str(error) or type(error).__name__
            return OfferFacts(device, time.monotonic() - self._begin, "bad_sdp", reason=reason)
        self._offer = sdp
        return OfferFacts(device, time.monotonic() - self._begin, media=media_of(sdp))

    async def answer(self, seconds: float) -> AnswerFacts:
        """Gathers candidates, and sends the answer and them. Takes those of the device from now on."""
        try:
            await within(seconds, self._set_answer())
        except DeadlineError:
            return AnswerFacts("refused", "gathering candidates takes too long", urls=self._urls)
        except Exception as error:
            return AnswerFacts("refused", str(error) or type(error).__name__, urls=self._urls)
        sdp, candidates = split_candidates(self._pc.localDescription.sdp)
        self._local = tuple(found for _, _, text in candidates if (found := candidate_of(text)))
        self._answered = time.monotonic()
        is_sent = await self._signaling.forward({"type": "answer", "sdp": sdp})
        for mid, index, text in candidates:
            candidate = {"candidate": text, "sdpMid": mid, "sdpMLineIndex": index}
            is_sent = await self._signaling.forward({"type": "ice-candidate", "candidate": candidate}) and is_sent
        if not is_sent:
            return AnswerFacts(CLOSED, self._signaling.how_ended, self._local, self._urls)
        self._spawn(self._take_candidates())
        return AnswerFacts("sent", local=self._local, urls=self._urls)

    async def _set_answer(self) -> None:
        await self._pc.setLocalDescription(await self._pc.createAnswer())

    async def _take_candidates(self) -> None:
        async for payload in self._signaling.each_payload():
            if (found := candidate_text(payload)) and found[1]:
                # A task each: an mDNS name takes seconds.
                self._spawn(self._add_candidate(*found))

    async def _add_candidate(self, mid: str, text: str, index: int) -> None:
        if (found := candidate_of(text)) is None:
            return
        self._remote.append(found)
        # A name that cannot be resolved, or a candidate that aiortc does not take.
        with suppress(Exception):
            candidate = candidate_from_sdp(text.removeprefix("candidate:"))
            candidate.sdpMid, candidate.sdpMLineIndex = mid, index
            await self._pc.addIceCandidate(candidate)

    # ICE, DTLS, video, data channels ----------------------------------------------------------------------------------

    async def ice(self, seconds: float, options: ProbeOptions, *, is_loopback: bool) -> IceFacts:
        """Waits for the end of the checks."""
        signaling = self._signaling
        # A device that has gone ends no ICE: only the deadline would.
        await self._changes.until(lambda: self._ice_state() in ("completed", *ENDED) or signaling.end, seconds)
        state = self._ice_state()
        return IceFacts(
            seconds=time.monotonic() - self._answered,
            state=state,
            states=tuple(self._states),
            local=self._local,
            remote=tuple(dict.fromkeys(self._remote)),
            pairs=pairs_of(self._transport()),
            urls=self._urls,
            is_loopback=is_loopback,
            error="" if state == "completed" else signaling.how_ended if signaling.end else "",
        )

    def _ice_state(self) -> str:
        return str(self._pc.iceConnectionState)

    def _transport(self) -> Any:
        """The DTLS transport; None without media."""
        receivers = self._pc.getReceivers()
        if receivers:
            return receivers[0].transport
        return self._pc.sctp.transport if self._pc.sctp else None

    async def dtls(self, seconds: float) -> DtlsFacts:
        """Waits for the end of the DTLS handshake."""
        transport = self._transport()
        begin = time.monotonic()
        transport.on("statechange", self._changes.set)
        await self._changes.until(lambda: transport.state in ("connected", *ENDED), seconds)
        error = self._signaling.how_ended if self._signaling.end and transport.state != "connected" else ""
        return DtlsFacts(str(transport.state), time.monotonic() - begin, error)

    async def media(self, seconds: float, options: ProbeOptions) -> MediaFacts:
        """Waits for the first frame, then counts frames and packets for `options.seconds`."""
        if "video" not in media_of(self._offer):
            return MediaFacts(0, has_video=False)
        begin = time.monotonic()
        patience = max(seconds - options.seconds, 0.001)
        await self._changes.until(lambda: self._frames or self._is_over(), patience)
        if self._frames:
            await self._changes.until(self._is_over, options.seconds)
        packets, lost = await self._packets()
        return MediaFacts(
            seconds=time.monotonic() - begin,
            first_frame=self._first_frame,
            frames=self._frames,
            size=self._size,
            packets=packets,
            lost=lost,
            max_loss=options.max_loss,
            ended=self._end(),
        )

    def _is_over(self) -> bool:
        return self._pc.connectionState in ENDED or bool(self._signaling.end)

    def _end(self) -> str:
        if self._pc.connectionState in ENDED:
            return f"the media connection is {self._pc.connectionState}"
        return self._signaling.how_ended if self._signaling.end else ""

    async def _packets(self) -> tuple[int, int]:
        packets = lost = 0
        for receiver in self._pc.getReceivers():
            if receiver.track.kind == "video":
                for found in (await receiver.getStats()).values():
                    if found.type == "inbound-rtp":
                        packets, lost = packets + found.packetsReceived, lost + found.packetsLost
        return packets, lost

    async def data(self, seconds: float) -> DataFacts:
        """Waits until a data channel is open."""
        begin = time.monotonic()
        has_section = "application" in media_of(self._offer)
        if has_section:
            await self._changes.until(lambda: self._open_channels() or self._is_over(), seconds)
        labels = tuple(channel.label for channel in self._channels if channel.readyState != "open")
        return DataFacts(time.monotonic() - begin, has_section, self._open_channels(), labels)

    def _open_channels(self) -> tuple[str, ...]:
        return tuple(channel.label for channel in self._channels if channel.readyState == "open")

    async def close(self) -> None:
        """Ends the session."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(DeadlineError):
            await within(CLOSE_SECONDS, self._pc.close())


CLOSE_SECONDS = 5.0
"""Seconds for the end of the media connection."""


def candidate_of(text: str) -> Candidate | None:
    """Returns a candidate from its text; None if it cannot be read."""
    try:
        found = candidate_from_sdp(text.removeprefix("candidate:"))
    except (ValueError, AssertionError, IndexError):
        return None
    return Candidate(found.type, found.protocol, found.ip, found.port)
