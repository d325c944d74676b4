"""`server.journal`: what was said, to look at, to wait for and to draw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from . import _transcript
from ._entry import Entry
from ._filters import check_ids, check_names
from ._query import Query, Where
from ._search import Search
from .errors import FilterError

if TYPE_CHECKING:
    from typing_extensions import Never

    from ._run import Run

__all__ = ["Entry", "Journal"]

NAMES = ("after", "check_type", "client", "device", "direction", "message_type", "type", "where")


class Journal:
    """What was said on a server: a bounded ring, the oldest forgotten first. Get it as `server.journal`.

    Filters, the same everywhere:
        type: The payload's `"type"`, of forwards: `"offer"`, `"ice-candidate"`, …
        device, client: The ids concerned.
        direction: `"device->client"`, `"client->device"` (forwards); `"device->server"`, `"server->device"`,
            `"client->server"`, `"server->client"` (everything else).
        message_type: `"register"`, `"connect"`, `"config"`, `"device_info"`, `"client_disconnected"`, `"error"`,
            `"forward"`.
        where: A function of an `Entry`.
        after: An `Entry`: only what came after it.
        check_type: False, to look for a type that looks like a typo of another.

    What was said before counts as well: an expectation is met by a message that has long passed.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._native = run.native.journal

    # Looking ----------------------------------------------------------------------------------------------------------

    def messages(
        self,
        type: str | None = None,
        *,
        device: str | None = None,
        client: int | None = None,
        direction: str | None = None,
        message_type: str | None = None,
        where: Where | None = None,
        after: Entry | None = None,
        check_type: bool = True,
        **unknown: Never,
    ) -> list[Entry]:
        """The messages that match, the oldest first. Raises FilterError."""
        check_names(unknown, NAMES)
        wanted = self._checked(Query(type, device, client, direction, message_type, where), check_type)
        return wanted.find(self._native, _number(after))

    def entries(self, *, after: Entry | None = None) -> list[Entry]:
        """All of it, ends of connections included."""
        return Query().find(self._native, _number(after), closed=None)

    @property
    def count(self) -> int:
        """How many entries were recorded so far, those forgotten included."""
        return self._native.count

    @property
    def forgotten(self) -> int:
        """How many entries went because of `Limits.journal_entries` or `Limits.journal_bytes`."""
        return self._native.forgotten

    # Expecting --------------------------------------------------------------------------------------------------------

    def expect(
        self,
        type: str | None = None,
        *,
        device: str | None = None,
        client: int | None = None,
        direction: str | None = None,
        message_type: str | None = None,
        where: Where | None = None,
        after: Entry | None = None,
        timeout: float | None = 5.0,
        check_type: bool = True,
        **unknown: Never,
    ) -> Entry:
        """Waits for a message that matches, and returns the first.

        Args:
            timeout: Seconds; None waits for ever.

        Raises:
            ExpectationError: None came; it says what came instead.
            FilterError: A filter makes no sense.
        """
        __tracebackhide__ = True
        check_names(unknown, (*NAMES, "timeout"))
        wanted = self._checked(Query(type, device, client, direction, message_type, where), check_type)
        return Search(self._run, [wanted], _number(after)).wait(timeout)[0]

    async def expect_async(
        self,
        type: str | None = None,
        *,
        device: str | None = None,
        client: int | None = None,
        direction: str | None = None,
        message_type: str | None = None,
        where: Where | None = None,
        after: Entry | None = None,
        timeout: float | None = 5.0,
        check_type: bool = True,
        **unknown: Never,
    ) -> Entry:
        """`expect()` for coroutines."""
        __tracebackhide__ = True
        check_names(unknown, (*NAMES, "timeout"))
        wanted = self._checked(Query(type, device, client, direction, message_type, where), check_type)
        return (await Search(self._run, [wanted], _number(after)).wait_async(timeout))[0]

    def expect_none(
        self,
        type: str | None = None,
        *,
        device: str | None = None,
        client: int | None = None,
        direction: str | None = None,
        message_type: str | None = None,
        where: Where | None = None,
        after: Entry | None = None,
        within: float = 0.5,
        check_type: bool = True,
        **unknown: Never,
    ) -> None:
        """Waits so many seconds, and passes if no message matches until then. Raises ExpectationError if one does."""
        __tracebackhide__ = True
        check_names(unknown, (*NAMES, "within"))
        wanted = self._checked(Query(type, device, client, direction, message_type, where), check_type)
        Search(self._run, [wanted], _number(after)).find_none(within)

    async def expect_none_async(
        self,
        type: str | None = None,
        *,
        device: str | None = None,
        client: int | None = None,
        direction: str | None = None,
        message_type: str | None = None,
        where: Where | None = None,
        after: Entry | None = None,
        within: float = 0.5,
        check_type: bool = True,
        **unknown: Never,
    ) -> None:
        """`expect_none()` for coroutines."""
        __tracebackhide__ = True
        check_names(unknown, (*NAMES, "within"))
        wanted = self._checked(Query(type, device, client, direction, message_type, where), check_type)
        await Search(self._run, [wanted], _number(after)).find_none_async(within)

    def expect_sequence(
        self,
        *types: str | Mapping[str, Any],
        device: str | None = None,
        client: int | None = None,
        after: Entry | None = None,
        timeout: float | None = 5.0,
        check_type: bool = True,
        **unknown: Never,
    ) -> list[Entry]:
        """Waits for messages in this order, whatever comes between them.

        Args:
            types: Payload types, or dictionaries of filters.
            device, client: Only messages of these.
            timeout: Seconds for all of them; None waits for ever.

        Raises:
            ExpectationError: One did not come; it says which, and what came instead.
            FilterError: A filter makes no sense.
        """
        __tracebackhide__ = True
        check_names(unknown, ("device", "client", "after", "timeout", "check_type"))
        return self._sequence(types, device, client, after, check_type).wait(timeout)

    async def expect_sequence_async(
        self,
        *types: str | Mapping[str, Any],
        device: str | None = None,
        client: int | None = None,
        after: Entry | None = None,
        timeout: float | None = 5.0,
        check_type: bool = True,
        **unknown: Never,
    ) -> list[Entry]:
        """`expect_sequence()` for coroutines."""
        __tracebackhide__ = True
        check_names(unknown, ("device", "client", "after", "timeout", "check_type"))
        return await self._sequence(types, device, client, after, check_type).wait_async(timeout)

    def _sequence(
        self,
        types: tuple[str | Mapping[str, Any], ...],
        device: str | None,
        client: int | None,
        after: Entry | None,
        typos: bool,
    ) -> Search:
        if not types:
            raise FilterError("expect_sequence() was given nothing to expect")
        steps = []
        for wanted in types:
            given = dict(wanted) if isinstance(wanted, Mapping) else {"type": wanted}
            known = [name for name in NAMES if name not in ("after", "check_type")]
            check_names({name: None for name in given if name not in known}, known)
            steps.append(self._checked(Query(**{"device": device, "client": client, **given}), typos))
        return Search(self._run, steps, _number(after))

    def _checked(self, query: Query, typos: bool) -> Query:
        return query.checked(self._native, typos=typos)

    # Drawing ----------------------------------------------------------------------------------------------------------

    def transcript(
        self,
        format: Literal["text", "mermaid", "jsonl"] = "text",
        *,
        device: str | None = None,
        client: int | None = None,
        after: Entry | None = None,
    ) -> str:
        """A picture of the conversation, of all or of one device or client.

        Args:
            format: `"text"`: two lanes; `"mermaid"`: a sequence diagram; `"jsonl"`: one JSON object a line.

        Raises:
            FilterError: There is no such format.
        """
        formats = {"text": _transcript.as_text, "mermaid": _transcript.as_mermaid, "jsonl": _transcript.as_jsonl}
        if format not in formats:
            raise FilterError(f"format={format!r} is none of {', '.join(map(repr, formats))}")
        check_ids(device, client)
        return formats[format](Query(device=device, client=client).find(self._native, _number(after), closed=None))

    def _transcript_after(self, number: int) -> str:
        return _transcript.as_text(Query().find(self._native, number, closed=None))

    def __repr__(self) -> str:
        return f"<Journal of {self.count} entries>"


def _number(after: Entry | None) -> int:
    return 0 if after is None else after.number
