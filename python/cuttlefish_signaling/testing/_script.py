"""The replies of a fake peer: those given to `on()`, and those that the peer makes by itself."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from .._annotations import late_annotations
from ..errors import ConfigError, PeerClosedError
from ._message import FORWARDS, Message, Reply

if TYPE_CHECKING:
    from typing_extensions import Self


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


class ScriptedPeer:
    """A peer that replies to messages, in a task of its own.

    The peer reads while a reply is made or waits for room: it notices a close, and a peer that writes before it reads
    does not stop the other side.
    """

    def __init__(self) -> None:
        self._script = Script()
        self._replying: asyncio.Task[None] | None = None
        self._reset_replies()

    def _reset_replies(self) -> None:
        """Binds the peer to the event loop that starts it."""
        self._changed = asyncio.Event()  # Set when a waiting method has to check its condition again.
        self._unanswered: asyncio.Queue[Message] = asyncio.Queue()  # Messages that the task has not replied to.

    def on(self, type: str, *, reply_with: Reply) -> Self:
        """Replies to each payload of this type from now on.

        Args:
            type: The payload's `"type"`.
            reply_with: A payload, a list of payloads, or a function of the `Message`, `def` or `async def`, that
                returns one of these or None. `recv()` and `close()` raise its exceptions.
        """
        self._script.add(type, reply_with)
        return self

    async def _make_replies(self) -> None:
        """Replies to the messages, one after the other."""
        while True:
            message = await self._unanswered.get()
            await self._on_message(message)
            await self._send_reply(message, self._script.reply_to(message))
            self._unanswered.task_done()

    async def _finish_replies(self) -> None:
        """Waits until each message has its reply. A reply that closes the peer does not wait for itself."""
        if self._replying is not asyncio.current_task():
            await self._unanswered.join()

    async def _on_message(self, message: Message) -> None:
        """Reacts to the message as the real peer does."""

    async def _reply(self, message: Message, payload: Any) -> None:
        """Forwards a payload to the sender of the message."""
        raise NotImplementedError

    async def _send_reply(self, message: Message, reply: Reply) -> None:
        try:
            for payload in await payloads(reply, message):
                await self._reply(message, payload)
        except PeerClosedError:
            pass  # There is no receiver any more; the next `recv()` reports that.
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Keeps an exception, for the next `recv()` or `close()` to raise."""
        self._script.fail(error)
        self._changed.set()


async def payloads(reply: Reply, message: Message) -> list[Any]:
    """The payloads of a reply. Calls the reply with the message if it is a function."""
    if callable(reply):
        reply = reply(message)
        if inspect.isawaitable(reply):
            reply = await reply
    if reply is None:
        return []
    return reply if isinstance(reply, list) else [reply]


late_annotations(globals())
