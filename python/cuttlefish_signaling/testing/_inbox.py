"""The received messages of a fake peer that the test has not taken yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import Any

from .._raw_json import parse
from ._message import BROKEN, Message

SHOWN = 10
"""How many messages an error text lists."""


def parse_message(text: str) -> tuple[str, dict[str, Any]]:
    """The message type of a text and its fields. Text that is not a JSON object is `broken` and has no fields."""
    try:
        fields = parse(text)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        return BROKEN, {}
    return str(fields.get("message_type", "error" if "error" in fields else BROKEN)), fields


class Inbox:
    """A queue from which messages can be taken by type."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()

    def append(self, message: Message) -> None:
        """Adds a message at the end."""
        self._messages.append(message)

    def remove(self, message: Message) -> None:
        """Removes a message that is in the queue."""
        self._messages.remove(message)

    def clear(self) -> None:
        """Removes all messages."""
        self._messages.clear()

    def discard(self, message_type: str) -> None:
        """Removes the messages of this type."""
        self._messages = deque(message for message in self._messages if message.message_type != message_type)

    def take(self, message_types: Collection[str], type: str | None) -> Message | None:
        """Removes the first message that matches, and returns it."""
        for message in self._messages:
            if message.message_type in message_types and (type is None or message.type == type):
                self._messages.remove(message)
                return message
        return None

    def payload_types(self) -> set[str]:
        """The payload types of the messages."""
        return {message.type for message in self._messages if message.type}

    def summary(self) -> str:
        """The messages for an error text."""
        if not self._messages:
            return "the inbox is empty"
        shown = ", ".join(str(message) for message in list(self._messages)[:SHOWN])
        more = f" and {len(self._messages) - SHOWN} more" if len(self._messages) > SHOWN else ""
        return f"the inbox contains: {shown}{more}"
