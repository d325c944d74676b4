"""`Query`: the messages that a method of the journal looks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from ._entry import Entry
from ._filters import check_direction, check_ids, check_type
from .errors import FilterError

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._interfaces import JournalSource

Where: TypeAlias = Callable[[Entry], Any]


class Filters(TypedDict, total=False):
    """The filters of the journal's methods, beside `type`. A filter that is absent or None matches any message."""

    device: str | None
    """The id of the device that the message concerns."""
    client: int | None
    """The id of the client that the message concerns."""
    direction: str | None
    """`"device->client"` or `"client->device"` for forwards; `"device->server"` and the like for all others."""
    message_type: str | None
    """The type of the message, like `"register"` or `"forward"`."""
    where: Where | None
    """A function that takes an `Entry` and returns whether it matches."""
    after: Entry | None
    """Only entries behind this one."""
    check_type: bool
    """Whether to raise FilterError for a `type` that looks misspelled. True by default."""


FORWARDS = ("client->device", "device->client")
"""The directions of forwards."""

LAST = 2**40
"""A number beyond that of any entry."""


@dataclass(frozen=True)
class Query:
    """The values that an entry must have. A field that is None matches any value."""

    type: str | None = None
    device: str | None = None
    client: int | None = None
    direction: str | None = None
    message_type: str | None = None
    where: Where | None = None

    def checked(self, journal: JournalSource, *, typos: bool) -> Self:
        """Returns the query. Raises FilterError for a value that makes no sense.

        With `typos`, a type that looks like a misspelled one is an error as well.
        """
        check_direction(self.direction)
        check_ids(self.device, self.client)
        if self.where is not None and not callable(self.where):
            raise FilterError(f"where={self.where!r} is not a function; pass one that takes an Entry")
        if typos:
            check_type(self.type, lambda: {entry.type for entry in Query().find(journal) if entry.type})
        return self

    def find(self, journal: JournalSource, after: int = 0, *, closed: bool | None = False) -> list[Entry]:
        """Returns the entries that match, behind the entry numbered `after`, the oldest first.

        `closed` selects messages (False), ends of connections (True), or both (None).
        """
        found = journal.find(
            after,
            LAST,
            closed=closed,
            payload_type=self.type,
            device=self.device,
            client=self.client,
            direction=self.direction,
            message_type=self.message_type,
        )
        entries = map(Entry._of, found)
        return [entry for entry in entries if self.where is None or self.where(entry)]

    def may_be_forward(self) -> bool:
        """Whether a forward can match."""
        return self.message_type in (None, "forward") and self.direction in (None, *FORWARDS)

    def given(self) -> dict[str, Any]:
        """Returns the fields that are not None."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def misses(self, entry: Entry) -> list[str]:
        """Returns the reasons why an entry does not match, one for each field."""
        reasons = []
        for name, wanted in self.given().items():
            if name == "where":
                if not wanted(entry):
                    reasons.append("where() says no")
            elif (value := getattr(entry, name)) != wanted:
                reasons.append(f"{name} is {value!r}")
        return reasons

    def __str__(self) -> str:
        words = [f"{name}={value!r}" for name, value in self.given().items() if name != "where"]
        return ", ".join([*words, *(["where=..."] if self.where else [])]) or "anything"
