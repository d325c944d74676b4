"""`server.journal`: the messages of a server, to read, to wait for and to print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from . import _transcript
from ._annotations import late_annotations
from ._entry import Entry
from ._filters import check_ids, check_names
from ._query import Filters, Query
from ._search import Search, check_recorded_here
from ._timeouts import DEFAULT_TIMEOUT, seconds_of
from .errors import FilterError

if TYPE_CHECKING:
    from typing_extensions import Never, Unpack

    from ._view import View

__all__ = ["Entry", "Journal"]

SEQUENCE = ("device", "client", "after", "timeout", "check_type")
"""The arguments of `expect_sequence`."""


class Journal:
    """The messages of a server, in a bounded ring that drops the oldest first. Get it as `server.journal`.

    The methods take the same filters:
        type: The payload's `"type"`, of forwards: `"offer"`, `"ice-candidate"`, …
        device, client: The ids that the message concerns.
        direction: `"device->client"`, `"client->device"` (forwards); `"device->server"`, `"server->device"`,
            `"client->server"`, `"server->client"` (all other messages).
        message_type: `"register"`, `"connect"`, `"config"`, `"device_info"`, `"client_disconnected"`, `"error"`,
            `"forward"`.
        where: A function that takes an `Entry` and returns whether it matches.
        after: An `Entry`: only messages behind this one match.
        check_type: False allows a `type` that looks misspelled.

    In a cluster, the journal of a node has the forwards of the devices of this node, wherever their clients are.

    The search begins with the oldest message: an expectation also accepts a message from before the call.
    """

    def __init__(self, run: View) -> None:
        self._run = run
        self._native = run.native.journal

    # Reading ----------------------------------------------------------------------------------------------------------

    def messages(self, type: str | None = None, **filters: Unpack[Filters]) -> list[Entry]:
        """Returns the messages that match, the oldest first.

        Args:
            type: The payload's `"type"`.
            filters: `device`, `client`, `direction`, `message_type`, `where`, `after`, `check_type`: see `Journal`.

        Raises:
            FilterError: A filter is unknown, or its value makes no sense. Or nothing matches, and the device is on
                another node of the cluster, whose journal has its forwards. The error names the node.
        """
        query = self._query(type, filters)
        found = query.find(self._native, _number(filters.get("after")))
        if not found:
            check_recorded_here(self._run, query)
        return found

    def entries(self, *, after: Entry | None = None) -> list[Entry]:
        """Returns all entries, ends of connections included."""
        return Query().find(self._native, _number(after), closed=None)

    @property
    def count(self) -> int:
        """The number of entries recorded so far, dropped ones included."""
        return self._native.count

    @property
    def forgotten(self) -> int:
        """The number of entries dropped because of `Limits.journal_entries` or `Limits.journal_bytes`."""
        return self._native.forgotten

    # Expecting --------------------------------------------------------------------------------------------------------

    def expect(
        self, type: str | None = None, *, timeout: float | None = DEFAULT_TIMEOUT, **filters: Unpack[Filters]
    ) -> Entry:
        """Waits for a message that matches, and returns the first.

        Args:
            type: The payload's `"type"`.
            timeout: Seconds to wait, 5 or `--signaling-timeout` by default; None waits forever.
            filters: `device`, `client`, `direction`, `message_type`, `where`, `after`, `check_type`: see `Journal`.

        Raises:
            ExpectationError: No message matched in time. The text lists the nearest misses and the transcript.
            FilterError: A filter is unknown, or its value makes no sense.
        """
        return self._search(type, filters, "timeout").wait(seconds_of(timeout))[0]

    async def expect_async(
        self, type: str | None = None, *, timeout: float | None = DEFAULT_TIMEOUT, **filters: Unpack[Filters]
    ) -> Entry:
        """`expect()` for coroutines. Its filters are those of `expect()`: see `Journal`."""
        return (await self._search(type, filters, "timeout").wait_async(seconds_of(timeout)))[0]

    def expect_none(self, type: str | None = None, *, within: float = 0.5, **filters: Unpack[Filters]) -> None:
        """Waits, and returns if no message matches.

        Args:
            type: The payload's `"type"`.
            within: Seconds to wait.
            filters: `device`, `client`, `direction`, `message_type`, `where`, `after`, `check_type`: see `Journal`.

        Raises:
            ExpectationError: A message matched. The text has the message and the transcript.
            FilterError: A filter is unknown, or its value makes no sense. Or the device is on another node of the
                cluster, whose journal has its forwards.
        """
        self._search(type, filters, "within").find_none(within)

    async def expect_none_async(
        self, type: str | None = None, *, within: float = 0.5, **filters: Unpack[Filters]
    ) -> None:
        """`expect_none()` for coroutines. Its filters are those of `expect_none()`: see `Journal`."""
        await self._search(type, filters, "within").find_none_async(within)

    def expect_sequence(
        self,
        *types: str | Mapping[str, Any],
        device: str | None = None,
        client: int | None = None,
        after: Entry | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        check_type: bool = True,
        **unknown: Never,
    ) -> list[Entry]:
        """Waits for messages in this order, and returns them. Other messages may come between them.

        Args:
            types: Payload types, or dictionaries of filters (`type`, `device`, `client`, `direction`, `message_type`,
                `where`).
            device: The device id that each of the messages concerns.
            client: The client id that each of the messages concerns.
            after: An `Entry`: only messages behind this one match.
            timeout: Seconds to wait for all of them; None waits forever.
            check_type: False allows types that look misspelled.

        Raises:
            ExpectationError: A message is missing. The text names it, the messages found and the transcript.
            FilterError: A filter is unknown, or its value makes no sense.
        """
        check_names(unknown, SEQUENCE)
        return self._sequence(types, device, client, after, check_type).wait(seconds_of(timeout))

    async def expect_sequence_async(
        self,
        *types: str | Mapping[str, Any],
        device: str | None = None,
        client: int | None = None,
        after: Entry | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        check_type: bool = True,
        **unknown: Never,
    ) -> list[Entry]:
        """`expect_sequence()` for coroutines."""
        check_names(unknown, SEQUENCE)
        return await self._sequence(types, device, client, after, check_type).wait_async(seconds_of(timeout))

    def _query(self, type: str | None, filters: Filters, *arguments: str) -> Query:
        """The query that these filters describe. `arguments` are the other arguments that the method takes."""
        check_names(filters, ("type", *Filters.__annotations__, *arguments))
        query = Query(
            type,
            filters.get("device"),
            filters.get("client"),
            filters.get("direction"),
            filters.get("message_type"),
            filters.get("where"),
        )
        return query.checked(self._native, typos=filters.get("check_type", True))

    def _search(self, type: str | None, filters: Filters, *arguments: str) -> Search:
        return Search(self._run, [self._query(type, filters, *arguments)], _number(filters.get("after")))

    def _sequence(
        self,
        types: tuple[str | Mapping[str, Any], ...],
        device: str | None,
        client: int | None,
        after: Entry | None,
        typos: bool,
    ) -> Search:
        if not types:
            raise FilterError("expect_sequence() needs at least one payload type or dictionary of filters")
        steps = []
        for wanted in types:
            given = dict(wanted) if isinstance(wanted, Mapping) else {"type": wanted}
            check_names(given, Query.__annotations__)
            steps.append(Query(**{"device": device, "client": client, **given}).checked(self._native, typos=typos))
        return Search(self._run, steps, _number(after))

    # Printing ---------------------------------------------------------------------------------------------------------

    def transcript(
        self,
        format: Literal["text", "mermaid", "jsonl"] = "text",
        *,
        device: str | None = None,
        client: int | None = None,
        after: Entry | None = None,
    ) -> str:
        """Returns the conversation as text: all of it, or that of one device or client.

        That of a client begins with its `connect`, before the server had given it an id.

        Args:
            format: `"text"`: two lanes; `"mermaid"`: a sequence diagram; `"jsonl"`: one JSON object a line.
            device: The device id that the entries concern.
            client: The client id that the entries concern.
            after: An `Entry`: only entries behind this one.

        Raises:
            FilterError: The format is unknown, or an id makes no sense. Or the journal has nothing of the device, which
                is on another node of the cluster.
        """
        formats = ("text", "mermaid", "jsonl")
        if format not in formats:
            raise FilterError(f"format={format!r} is not one of {', '.join(map(repr, formats))}")
        check_ids(device, client)
        if device is not None and not self._native.find(0, 1, device=device):
            check_recorded_here(self._run, Query(device=device))
        return _transcript.of(self._native, format, _number(after), device=device, client=client)

    def __repr__(self) -> str:
        return f"<Journal of {self.count} entries>"


def _number(after: Entry | None) -> int:
    return 0 if after is None else after.number


late_annotations(globals())
