"""Devices and clients of a farm of nodes. Each payload has a number, and each end checks all that it hears."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from cuttlefish_signaling.testing._cluster_node import ClusterNode

LOST = (ConnectionClosed, InvalidHandshake, InvalidMessage, OSError, TimeoutError, EOFError)
"""A node that is killed, paused or stopped ends connections, or makes none."""

REFUSALS = ("Device disconnected", "not found", "Cluster unavailable", "already registered", "Device replaced")
"""Errors that a fault may cause."""


@dataclass
class Books:
    """The numbers of payloads that all peers have sent and heard, and each rule that was broken."""

    sent: int = 0
    """Payloads of clients."""
    arrived: int = 0
    """Those that their device has heard."""
    answered: int = 0
    """Those whose answer the client has heard."""
    told: int = 0
    """Those without an answer, of clients that have heard that their device or their connection is gone."""
    ended: int = 0
    """Connected clients that have heard so."""
    registered: int = 0
    connected: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """Errors that clients have heard in the place of a device, without the ids in them."""
    broken: list[str] = field(default_factory=list)
    """Each rule that was broken, and by which message."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def check(self, holds: bool, what: str) -> None:
        """Notes a rule that does not hold."""
        if not holds:
            self.broken.append(what)
            self.note()

    @property
    def silent(self) -> int:
        """Payloads that are neither answered nor told of."""
        return self.sent - self.answered - self.told

    def note(self) -> None:
        """Wakes those that wait for a number."""
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns when a condition about these numbers holds, or a rule is broken."""
        while not self.broken and not condition():
            self._changed.clear()
            await self._changed.wait()


@asynccontextmanager
async def dial(url: str) -> AsyncIterator[ClientConnection]:
    """A connection that sends no pings of its own: a paused node must not end it."""
    async with connect(url, ping_interval=None, close_timeout=1, open_timeout=30, proxy=None) as socket:
        yield socket


async def hear(socket: ClientConnection) -> dict[str, Any]:
    """The next message."""
    message: dict[str, Any] = json.loads(await socket.recv())
    return message


def is_refusal(message: dict[str, Any]) -> bool:
    """Returns whether it tells of something that a fault may cause."""
    return any(text in str(message.get("error", "")) for text in REFUSALS)


@dataclass
class Talk:
    """A device and one of its clients, as the device counts."""

    client: int
    heard: int = 0
    over: bool = False


class Device:
    """A device that answers each payload, and registers again where its connection is lost."""

    def __init__(self, name: str, books: Books) -> None:
        self.name, self.books = name, books
        self.session = 0
        self.registered = asyncio.Event()
        self.socket: ClientConnection | None = None

    async def run(self, pick: Callable[[], ClusterNode]) -> None:
        """Registers with a node, again and again."""
        while True:
            with suppress(*LOST):
                await self.serve(pick())
            self.registered.clear()
            await asyncio.sleep(random.uniform(0.05, 0.3))

    async def serve(self, node: ClusterNode) -> None:
        """Registers, and answers clients until the connection is lost."""
        async with dial(node.device_url) as self.socket:
            self.session += 1
            info = {"session": self.session}
            register = {"message_type": "register", "device_id": self.name, "device_info": info}
            await self.socket.send(json.dumps(register))
            talks: dict[int, Talk] = {}
            while True:
                message = await hear(self.socket)
                kind = message.get("message_type")
                if kind == "config":
                    self.registered.set()
                    self.books.registered += 1
                    self.books.note()
                elif kind == "client_msg":
                    await self._answer(message, talks)
                elif kind == "client_disconnected":
                    talks.setdefault(message["client_id"], Talk(0)).over = True
                else:
                    self.books.check(is_refusal(message), f"{self.name} hears {message}")

    async def _answer(self, message: dict[str, Any], talks: dict[int, Talk]) -> None:
        payload, number = message["payload"], message["client_id"]
        talk = talks.setdefault(number, Talk(payload["client"]))
        where = f"{self.name}, session {self.session}, hears {message}"
        self.books.check(payload["session"] == self.session, f"of another registration: {where}")
        self.books.check(talk.client == payload["client"], f"of another client: {where}")
        self.books.check(talk.heard == payload["at"], f"lost, twice or not in order, after {talk.heard}: {where}")
        self.books.check(not talk.over, f"after client_disconnected: {where}")
        talk.heard = payload["at"] + 1
        self.books.arrived += 1
        assert self.socket is not None
        await self.socket.send(json.dumps({"message_type": "forward", "client_id": number, "payload": payload}))


class Client:
    """A client that sends bursts, waits for all answers, and connects again where its device is gone."""

    numbers = itertools.count(1)

    def __init__(self, books: Books, think: float = 0.0, stay: int = 30) -> None:
        self.books, self.think, self.stay = books, think, stay
        self.halted = False
        self.at = "between connections"
        """The step that the client is at."""

    async def run(self, pick: Callable[[], tuple[ClusterNode, str]]) -> None:
        """Connects to a device, again and again, until it is halted."""
        while not self.halted:
            with suppress(*LOST):
                await self.talk(*pick(), bursts=self.stay)
            self.at = "between connections"
            await asyncio.sleep(random.uniform(0.05, 0.3))

    async def talk(self, node: ClusterNode, device: str, bursts: int) -> None:
        """Connects to a device, and sends some bursts."""
        number, sent, answered = next(self.numbers), 0, 0
        self.at = f"dials {node.name}"
        async with dial(node.client_url) as socket:
            self.at = f"asks {node.name} for a device"
            session = await connect_to(socket, device, self.books)
            if session is None:
                return
            self.books.connected += 1
            try:
                for _ in range(bursts):
                    if self.halted:
                        return
                    count = random.randrange(1, 5)
                    self.at = "waits for an answer"
                    for at in range(sent, sent + count):
                        sent += 1
                        self.books.sent += 1
                        payload = {"client": number, "session": session, "at": at}
                        await socket.send(json.dumps({"message_type": "forward", "payload": payload}))
                    while answered < sent:
                        await self._hear(socket, {"client": number, "session": session, "at": answered})
                        answered += 1
                    self.at = "rests"
                    await asyncio.sleep(random.uniform(0, 2 * self.think))
            except LOST:
                self.books.ended += 1
                self.books.told += sent - answered
                raise
            finally:
                self.at = "closes"
                self.books.note()

    async def _hear(self, socket: ClientConnection, expected: dict[str, Any]) -> None:
        """Hears the next answer. Raises ConnectionError where the device is gone."""
        message = await hear(socket)
        if is_refusal(message):
            raise ConnectionError(message["error"])
        self.books.check(message.get("payload") == expected, f"a client hears {message} and expects {expected}")
        self.books.answered += 1
        if self.books.answered % 16 == 0:
            self.books.note()


async def connect_to(socket: ClientConnection, device: str, books: Books) -> int | None:
    """Connects a client to a device, and returns the session of the device; None if it is refused."""
    await socket.send(json.dumps({"message_type": "connect", "device_id": device}))
    while True:
        message = await hear(socket)
        if message.get("message_type") == "device_info":
            session: int = message["device_info"]["session"]
            return session
        if message.get("message_type") != "config":
            books.check(is_refusal(message), f"a client of {device} hears {message}")
            books.refused[str(message.get("error")).replace(device, "ID")] += 1
            return None
