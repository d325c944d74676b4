"""One rule about a program: the host, one run of the program, and its connections."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from ._host import Guest, Host
from ._model import Failed, Transcript
from ._program import Program

CONFIG: dict[str, Any] = {
    "message_type": "config",
    "ice_servers": [{"urls": ["stun:stun.conform.invalid:3478"]}],
}

MOST_ATTEMPTS = 50
"""Opening handshakes after which a storm is not counted any more."""

PATHS = {"device": "/register_device", "client": "/connect_client"}


@dataclass
class Stage:
    """The host, the program and the transcript of one rule."""

    kind: str
    host: Host
    program: Program
    device_id: str
    timeout: float
    transcript: Transcript = field(default_factory=Transcript)
    guests: list[Guest] = field(default_factory=list)

    @property
    def patience(self) -> float:
        """Seconds until a program has to have connected, or come back: a legacy device takes up to 28 s."""
        return self.timeout * 6

    async def arrival(self, timeout: float | None = None) -> Guest:
        """The next connection of the program. Raises Failed, also if the program ends."""
        limit = self.patience if timeout is None else timeout
        waiting = asyncio.ensure_future(self.host.arrivals.get())
        ending = [self.program.task] if self.program.task is not None else []
        done, _ = await asyncio.wait([waiting, *ending], timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if waiting not in done:
            waiting.cancel()
            ended = f": {self.program.task.result()}" if done and self.program.task is not None else ""
            heard = f"the program ended{ended}" if done else f"no connection within {limit:g} s"
            stage = "process" if done else "connect"
            raise Failed("the program did not connect", expected="an opening handshake", heard=heard, stage=stage)
        guest = Guest(waiting.result(), self.transcript, self.timeout)
        self.guests.append(guest)
        return guest

    async def opened(self) -> Guest:
        """The first connection, on the endpoint of its role. Raises Failed."""
        guest = await self.arrival()
        if guest.path != PATHS[self.kind]:
            expected = f"an opening handshake on {PATHS[self.kind]}"
            raise Failed("the program connects to another path", expected=expected, heard=guest.path, stage="http")
        return guest

    async def registered(self) -> Guest:
        """A device that has sent `register` and has got `config`. Raises Failed."""
        guest = await self.opened()
        await self.register(guest)
        return guest

    async def register(self, guest: Guest, config: Any = CONFIG) -> dict[str, Any]:
        """Takes the registration of a device. Raises Failed."""
        message = await guest.message()
        if message["message_type"] != "register" or not isinstance(message.get("device_id"), str):
            raise Failed(
                "the first message is no registration",
                expected='{"message_type":"register","device_id":"...","device_info":...}',
                heard=str(guest.last),
            )
        await guest.say(config)
        return message

    async def connected(self, info: Any = None) -> Guest:
        """A client that has sent `connect` and has got `config` and `device_info`. Raises Failed."""
        guest = await self.opened()
        await self.connect(guest)
        await guest.say(CONFIG)
        await guest.say({"message_type": "device_info", "device_info": info})
        return guest

    async def connect(self, guest: Guest) -> dict[str, Any]:
        """Takes the connection request of a client. Raises Failed."""
        message = await guest.message()
        if message["message_type"] != "connect" or not isinstance(message.get("device_id"), str):
            raise Failed(
                "the first message is no connection request",
                expected='{"message_type":"connect","device_id":"..."}',
                heard=str(guest.last),
            )
        return message

    async def attempts(self, count: int) -> list[float]:
        """The times of this many opening handshakes, as far as they come in time."""
        until = asyncio.get_running_loop().time() + self.patience
        while len(self.host.attempts) < count and asyncio.get_running_loop().time() < until:
            if self.program.task is not None and self.program.task.done():
                break
            await asyncio.sleep(0.01)
        return self.host.attempts[:count]

    async def attempts_within(self, seconds: float) -> int:
        """The number of opening handshakes in this time; no more than a storm is waited for."""
        until = asyncio.get_running_loop().time() + seconds
        while len(self.host.attempts) < MOST_ATTEMPTS and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.01)
        return len(self.host.attempts)

    async def end(self) -> None:
        """Ends the program and its connections."""
        for guest in self.guests:
            guest.abort()
        await self.program.stop()
        self.host.forget()
