"""Scripted replies of a fake peer, as given to `on()`."""

from __future__ import annotations

import inspect
from typing import Any

from ..errors import ConfigError
from ._message import FORWARDS, Message, Reply


class Script:
    """The reply for each payload type, and the exception of a reply until a method of the peer raises it."""

    def __init__(self) -> None:
        self._replies: dict[str, Reply] = {}
        self._error: Exception | None = None

    def add(self, type: str, reply: Reply) -> None:
        """Sets the reply for a payload type."""
        if not isinstance(type, str):
            raise ConfigError("type", f"must be a string, got {type!r}")
        self._replies[type] = reply

    def reply_to(self, message: Message) -> Reply:
        """The reply for a message; None if there is none."""
        if message.message_type not in FORWARDS or message.type is None:
            return None
        return self._replies.get(message.type)

    def fail(self, error: Exception) -> None:
        """Keeps the exception of a reply."""
        self._error = error

    def raise_error(self) -> None:
        """Raises the exception that is kept, once."""
        error, self._error = self._error, None
        if error is not None:
            raise error


async def payloads(reply: Reply, message: Message) -> list[Any]:
    """The payloads of a reply. Calls the reply with the message if it is a function."""
    if callable(reply):
        reply = reply(message)
        if inspect.isawaitable(reply):
            reply = await reply
    if reply is None:
        return []
    return reply if isinstance(reply, list) else [reply]
