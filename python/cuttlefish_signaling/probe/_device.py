"""The stages with a device, and that of TURN servers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

from ._as_json import as_json
from ._changes import Changes
from ._facts import IceFacts, MediaFacts
from ._http import Route
from ._ice import usable_servers, with_loopback
from ._judge_media import CONNECTED, judge_data, judge_dtls, judge_ice, judge_media
from ._judge_session import judge_answer, judge_connect, judge_offer
from ._judge_turn import judge_turn
from ._options import ProbeOptions
from ._report import Finding
from ._runner import Outcome, Runner, Stage
from ._session import Session
from ._signaling import Signaling
from ._target import Target
from ._turn import allocate, turn_servers
from ._words import listed, shown

IceServers = Callable[[float], Awaitable["list[Any] | None"]]


class DeviceStages:
    """The stages of a session with one device."""

    def __init__(
        self, target: Target, device_id: str | None, options: ProbeOptions, runner: Runner, ice_servers: IceServers
    ) -> None:
        self.route = Route(target, target.host, None, options)
        self.is_operator: bool = False
        self._device_id = device_id
        self._options = options
        self._runner = runner
        self._ice_servers = ice_servers
        self._changes = Changes()
        self._signaling: Signaling | None = None
        self._session: Session | None = None
        self._stack = ExitStack()

    def plan(self) -> list[tuple[str, Stage]]:
        """Returns the stages in their order."""
        plan: list[tuple[str, Stage]] = []
        if self._device_id is not None:
            plan.append(("connect", self.connect))
        if self._options.turn or self._options.turn_servers:
            plan.append(("turn", self.turn))
        if self._device_id is not None:
            plan += [("offer", self.offer), ("answer", self.answer), ("ice", self.ice), ("dtls", self.dtls)]
            plan += [("media", self.media), ("data", self.data)]
        return plan

    async def close(self) -> None:
        """Ends the session and its signaling."""
        try:
            if self._session is not None:
                await self._session.close()
            if self._signaling is not None:
                await self._signaling.close()
        finally:
            self._stack.close()

    async def connect(self, seconds: float) -> Outcome:
        """Connects to the device as a client."""
        servers = await self._ice_servers(seconds) if self.is_operator else None
        self._signaling = Signaling(self.route, self._device_id or "", self._changes, servers)
        facts = await self._signaling.connect(seconds)
        self._runner.hide(self._signaling.ice_servers)
        text = f"{len(facts.urls)} ICE servers{': ' if facts.urls else ''}{listed(facts.urls)}"
        return Outcome(text if facts.outcome == "connected" else "no session", as_json(facts), judge_connect(facts))

    async def turn(self, seconds: float) -> Outcome:
        """Asks all TURN servers for an allocation, at once."""
        servers: Any = self._options.turn_servers
        if not servers:
            servers = self._signaling.ice_servers if self._signaling else await self._ice_servers(seconds)
        if servers is None:
            fix = "give a device, or --turn-server: only this server and the current operator have it"
            text = "GET /infra_config tells no ICE servers"
            return Outcome("no ICE servers", {}, (Finding("no_infra_config", text, fix),))
        self._runner.hide(servers)
        context = self._options.context()
        # A second for the end of an allocation, which `allocate` gives back itself.
        facts = tuple(await asyncio.gather(*(allocate(one, seconds, context) for one in turn_servers(servers))))
        good = [one for one in facts if one.outcome == "allocated"]
        text = f"{len(good)} of {len(facts)} TURN servers allocated: {listed(one.url for one in good)}".rstrip(": ")
        return Outcome(text, {"servers": as_json(facts)}, judge_turn(facts))

    async def offer(self, seconds: float) -> Outcome:
        """Requests an offer."""
        assert self._signaling is not None
        servers = await usable_servers(self._signaling.ice_servers, seconds)
        is_local = self.route.target.is_loopback
        self._stack.enter_context(with_loopback(is_local))
        self._session = Session(self._signaling, self._changes, servers)
        facts = await self._session.offer(seconds)
        text = f"an offer of {listed(facts.media)}" if facts.outcome == "offer" else "no offer"
        return Outcome(text, as_json(facts), judge_offer(facts))

    async def answer(self, seconds: float) -> Outcome:
        """Answers the offer."""
        facts = await self._now().answer(seconds)
        kinds = listed(f"{one.type} {one.address}" for one in facts.local)
        text = f"sent, {len(facts.local)} candidates: {kinds}" if facts.outcome == "sent" else "no answer"
        return Outcome(text, as_json(facts), judge_answer(facts))

    async def ice(self, seconds: float) -> Outcome:
        """Waits for a pair that works."""
        facts = await self._now().ice(seconds, self._options, is_loopback=self.route.target.is_loopback)
        return Outcome(_ice_text(facts), as_json(facts), judge_ice(facts))

    async def dtls(self, seconds: float) -> Outcome:
        """Waits for the encryption of media."""
        facts = await self._now().dtls(seconds)
        return Outcome(facts.state, as_json(facts), judge_dtls(facts))

    async def media(self, seconds: float) -> Outcome:
        """Counts frames."""
        facts = await self._now().media(seconds, self._options)
        found = as_json(facts) | {"loss_ratio": round(facts.loss, 6)}
        if facts.first_frame is not None:
            found["first_frame_seconds"] = found.pop("first_frame")
        return Outcome(_media_text(facts), found, judge_media(facts))

    async def data(self, seconds: float) -> Outcome:
        """Waits for a data channel."""
        facts = await self._now().data(seconds)
        text = f"open: {listed(facts.labels)}" if facts.labels else "none is open"
        return Outcome(text, as_json(facts), judge_data(facts))

    def _now(self) -> Session:
        assert self._session is not None
        return self._session


def _ice_text(facts: IceFacts) -> str:
    states = ", ".join(f"{state} at {seconds:.2f} s" for state, seconds in facts.states)
    pair = next((one for one in facts.pairs if one.is_nominated), None)
    if facts.state not in CONNECTED or pair is None:
        return states or facts.state
    remote = f"{pair.remote.type} {shown(pair.remote.address)}:{pair.remote.port}"
    return f"{states}; {pair.local.type} {pair.local.address} to {remote}, of {len(facts.pairs)} pairs"


def _media_text(facts: MediaFacts) -> str:
    if facts.first_frame is None:
        return "no frame"
    rate = facts.frames / facts.seconds if facts.seconds else 0.0
    first = f"first frame after {facts.first_frame:.2f} s"
    return f"{first}, {facts.frames} of {facts.size} in {facts.seconds:.1f} s ({rate:.0f}/s), {facts.loss:.1%} lost"
