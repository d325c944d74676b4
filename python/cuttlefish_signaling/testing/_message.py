"""The messages that fake peers receive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from .._field_docs import with_field_docs
from .._raw_json import RawJson, members

Reply: TypeAlias = Any
"""A payload, a list of payloads, a function of the message that returns one of these, or None for no reply."""

FORWARDS = ("client_msg", "device_msg")
BROKEN = "broken"


class Replier(Protocol):
    """The peer that received a message, as far as the message needs it."""

    async def _reply(self, message: Message, payload: Any) -> None: ...


@with_field_docs
@dataclass(frozen=True, repr=False)
class Message:
    """A message that a fake peer received."""

    message_type: str
    """The type, for example `client_msg`, `config` or `error`; `broken` if the text is not a JSON object."""
    text: str = field(repr=False)
    """The received text."""
    fields: Mapping[str, Any] = field(repr=False)
    """The parsed message; empty if it is broken."""
    _peer: Replier = field(repr=False, compare=False)
    is_new_peer: bool = field(default=False, repr=False, compare=False)
    """On devices: whether a real device would create a WebRTC peer for this message.

    It does so for the first message of a client id. The peers of an earlier registration stay, so this is False for a
    new client with the id of an earlier one."""

    @property
    def payload(self) -> Any:
        """The payload; None in messages without one."""
        return self.fields.get("payload")

    @property
    def raw(self) -> RawJson | None:
        """The payload as it came, byte for byte; None in messages without one. `reply(message.raw)` echoes it."""
        return members(self.text)["payload"] if "payload" in self.fields else None

    @property
    def type(self) -> str | None:
        """The payload's `"type"`; None without one."""
        payload = self.payload
        name = payload.get("type") if isinstance(payload, dict) else None
        return name if isinstance(name, str) else None

    @property
    def client_id(self) -> int | None:
        """On devices, the client that the message is from or about. None on clients."""
        return self.fields.get("client_id")

    @property
    def error(self) -> str | None:
        """The text of an `error` of the server; None in other messages."""
        return self.fields.get("error")

    def __repr__(self) -> str:
        client = "" if self.client_id is None else f" of client {self.client_id}"
        content = self.error if self.error is not None else self.payload if "payload" in self.fields else self.text
        return f"<{type(self).__name__} {self.message_type}{client}: {_shortened(repr(content))}>"

    def __str__(self) -> str:
        client = "" if self.client_id is None else f" of client {self.client_id}"
        content = self.error or self.type or self.raw or ""
        from .._entry import printable

        return f"{self.message_type}{client}{f' ({printable(content[:80])})' if content else ''}"


@with_field_docs
class AsyncMessage(Message):
    """A message that an asynchronous fake peer received."""

    async def reply(self, payload: Any) -> None:
        """Forwards a payload to the sender of this message."""
        await self._peer._reply(self, payload)


def _shortened(text: str, length: int = 240) -> str:
    """A long text without its middle."""
    return text if len(text) <= length else f"{text[: length // 2]}…{text[-length // 2 :]}"
