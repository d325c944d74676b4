"""The replies of a fake peer: those given to `on()`, and those that the peer makes by itself."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Coroutine
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
    """A peer that replies to messages, in a task of its own, which runs while there are messages to reply to.

    The peer reads while a reply is made or waits for room: it notices a close, and a peer that writes before it reads
    does not stop the other side.
    """

    def __init__(self) -> None:
        self._script = Script()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reset_replies()

    def _reset_replies(self) -> None:
        """Binds the peer to the event loop that starts it."""
        self._replying: asyncio.Task[None] | None = None  # The task, while there are messages to reply to.
        self._changed = asyncio.Event()  # Set when a waiting method has to check its condition again.
        self._unanswered: deque[Message] = deque()  # Messages that the task has not begun to reply to.

    def on(self, type: str, *, reply_with: Reply) -> Self:
        """Replies to each payload of this type from now on.

        Args:
            type: The payload's `"type"`.
            reply_with: A payload, a list of payloads, or a function of the `Message`, `def` or `async def`, that
                returns one of these or None. `recv()` and `close()` raise its exceptions.
        """
        self._script.add(type, reply_with)
        return self

    def _answer(self, message: Message) -> None:
        """Has the task react and reply to a message, after the earlier ones."""
        if self._replying is None:
            if not self._reacts_to(message) and self._script.reply_to(message) is None:
                return  # Most messages of most tests.
            self._replying = self._spawn(self._make_replies())
        self._unanswered.append(message)

    async def _make_replies(self) -> None:
        """Replies to the messages, one after the other."""
        try:
            while self._unanswered:
                message = self._unanswered.popleft()
                await self._on_message(message)
                await self._send_reply(message, self._script.reply_to(message))
        finally:
            if self._replying is asyncio.current_task():  # Not of an earlier start of the peer.
                self._replying = None

    async def _finish_replies(self) -> None:
        """Waits until each message has its reply. A reply that closes the peer does not wait for itself."""
        while self._replying is not None and self._replying is not asyncio.current_task():
            await asyncio.wait([self._replying])

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts a task that ends with the peer."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _reacts_to(self, message: Message) -> bool:
        """Whether `_on_message` does something for this message: where a class overrides it, it may."""
        return type(self)._on_message is not ScriptedPeer._on_message

    async def _on_message(self, message: Message) -> None:
        """Reacts to the message as the real peer does. Called for messages that `_reacts_to`, or that have a reply."""

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
