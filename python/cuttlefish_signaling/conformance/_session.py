"""The state of one rule that is being tried on a server: its peers, its transcript, and known facts of the server."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ._model import NotApplicable, Settings, Transcript
from ._peer import Peer
from ._target import Target
from ._wire import Answer, request

T = TypeVar("T")

DEFAULTS: Mapping[str, Any] = {
    "client_ids": "from_one",
    "device_wait_timeout": 0,
    "first_message_timeout": 10,
    "max_message_size": 256 * 1024,
    "on_duplicate": "reject",
    "one_client_per_device": False,
    "probe_timeout": 2,
}
"""The settings of a server that rules depend on, with the defaults of docs/settings.md."""


@dataclass
class Known:
    """Facts that a run learns about the server, for all of its rules."""

    answers_pings: bool | None = None


@dataclass
class Session:
    """One rule, on one server."""

    target: Target
    timeout: float
    settings: Settings = field(default_factory=dict)
    known: Known = field(default_factory=Known)
    is_exact: bool = True
    """Whether close codes, reasons and bytes have to be those of docs/protocol.md."""
    has_texts: bool = True
    """Whether errors have to have their texts."""
    transcript: Transcript = field(default_factory=Transcript)
    peers: list[Peer] = field(default_factory=list)
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    token: str = field(default_factory=lambda: f"conform-{secrets.token_hex(4)}")
    """The beginning of each device id: rules that run at the same time do not meet."""
    settle: float = 0.0
    """Seconds to wait after a peer has left, in a second attempt: some servers notice late."""

    def setting(self, name: str) -> Any:
        """A setting of the server: as it was given, else the default."""
        return self.settings.get(name, DEFAULTS[name])

    def needs_answer_for_unknown_device(self) -> None:
        """Raises NotApplicable if the server waits forever for a device."""
        if self.setting("device_wait_timeout") is None:
            raise NotApplicable("the server waits forever for a device")

    def needs_several_clients(self) -> None:
        """Raises NotApplicable if a device of the server has one client at a time."""
        if self.setting("one_client_per_device"):
            raise NotApplicable("the server has one_client_per_device")

    async def open(self, name: str, path: str, **options: Any) -> Peer:
        """Opens a WebSocket connection. Raises Failed."""
        peer = Peer(name, self.transcript, self.timeout)
        self.peers.append(peer)
        await peer.open(self.target, path, **options)
        return peer

    async def device(self, name: str = "d", device_id: str = "a", info: Any = None, **options: Any) -> Peer:
        """A registered device, with its `config` read."""
        peer = await self.open(name, "/register_device", **options)
        message = {"message_type": "register", "device_id": f"{self.token}-{device_id}"}
        await peer.say({**message, "device_info": info})
        await peer.expect_type("config")
        return peer

    async def client(self, name: str = "c", device_id: str = "a", **options: Any) -> Peer:
        """A client with its `config` and its `device_info` read."""
        peer = await self.open(name, "/connect_client", **options)
        await peer.say({"message_type": "connect", "device_id": f"{self.token}-{device_id}"})
        await peer.expect_type("config")
        await peer.expect_type("device_info")
        return peer

    async def pair(self) -> tuple[Peer, Peer]:
        """A device and its client."""
        return await self.device(), await self.client()

    async def http(
        self,
        method: str,
        path: str,
        body: Any = ...,
        headers: Mapping[str, str] | None = None,
        *,
        host: bool = True,
    ) -> Answer:
        """Sends an HTTP request, and records it with its answer. Raises Failed or UnreachableError."""
        limit = self.timeout + float(self.setting("device_wait_timeout") or 0)
        self.transcript.add("http", "sends", f"{method} {self.target.path(path)}{'' if body is ... else f' {body!r}'}")
        answer = await request(self.target, method, path, headers=headers, body=body, timeout=limit, host=host)
        self.transcript.add("http", "receives", str(answer))
        return answer

    async def wait(self, seconds: float) -> None:
        """Waits, in a loop that asks the server again."""
        await asyncio.sleep(seconds)

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs a coroutine beside the rule. It is cancelled with the rule."""
        task = asyncio.ensure_future(work)
        self.tasks.append(task)
        return task

    async def pause(self) -> None:
        """Waits after a peer has left, if this is the second attempt."""
        if self.settle:
            await asyncio.sleep(self.settle)

    def end(self) -> None:
        """Aborts all connections, and cancels what still runs."""
        for task in self.tasks:
            task.cancel()
        for peer in self.peers:
            peer.abort()
