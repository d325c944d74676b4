"""The messages that fake peers receive."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

Reply: TypeAlias = Any
"""A payload, a list of payloads, or a function of the message that returns one of these, or None for no reply."""

FORWARDS = ("client_msg", "device_msg")
BROKEN = "broken"


class Replier(Protocol):
    """The peer that received a message, as far as the message needs it."""

    async def _reply(self, message: Message, payload: Any) -> None: ...


@dataclass(frozen=True)
class Message:
    """A message that a fake peer heard."""

    message_type: str
    """`client_msg`, `device_msg`, `client_disconnected`, `config`, `error`; `broken` for what is no JSON object."""
    text: str = field(repr=False)
    """The text as it came."""
    fields: Mapping[str, Any] = field(repr=False)
    """The whole message, parsed; empty where it is broken."""
    _peer: Replier = field(repr=False, compare=False)
    is_new_peer: bool = field(default=False, repr=False, compare=False)
    """On devices: whether this is the first message of its client, for which a real device creates a peer.

    False where the device has a peer of that number already, even one of an earlier registration."""

    @property
    def payload(self) -> Any:
        """The payload; None in messages that have none."""
        return self.fields.get("payload")

    @property
    def type(self) -> str | None:
        """The payload's `"type"`, if it has one."""
        payload = self.payload
        name = payload.get("type") if isinstance(payload, dict) else None
        return name if isinstance(name, str) else None

    @property
    def client_id(self) -> int | None:
        """The client it is about; None on clients."""
        return self.fields.get("client_id")

    @property
    def error(self) -> str | None:
        """What the server says is wrong, in an `error`."""
        return self.fields.get("error")

    def __str__(self) -> str:
        client = "" if self.client_id is None else f" of client {self.client_id}"
        what = self.error or self.type or (json.dumps(self.payload) if "payload" in self.fields else "")
        return f"{self.message_type}{client}{f' ({what[:80]})' if what else ''}"


class AsyncMessage(Message):
    """A message that an asynchronous fake peer heard."""

    async def reply(self, payload: Any) -> None:
        """Forwards a payload to whoever sent this."""
        await self._peer._reply(self, payload)
