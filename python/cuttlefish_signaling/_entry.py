"""`Entry`: one line of a journal."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from ._field_docs import with_field_docs
from ._raw_json import RawJson, parse

EntryTuple: TypeAlias = tuple[
    int, float, bool, str, "str | None", "int | None", int, str, str, "str | None", str, "tuple[list[str], int]"
]


@with_field_docs
@dataclass(frozen=True)
class Entry:
    """A message, or the end of a connection."""

    number: int
    """The number of the entry, counting from 1."""
    at: float
    """The time in seconds since 1970, by the server's clock."""
    closed: bool
    """Whether it is the end of a connection. The first side of `direction` ended it; `text` says how."""
    direction: str
    """`device->client` or `client->device` for forwards; `device->server` and the like for all others."""
    device: str | None
    """The device concerned, if it is known."""
    client: int | None
    """The client concerned, if it has a number."""
    connection: int
    """The number of the connection, counting from 1; 0 for a forward, which concerns two. A client has it before the
    device info gives it a client id."""
    message_type: str
    """`register`, `config`, `forward`, …; empty if the text of the peer is not a message."""
    text: str = field(repr=False)
    """The whole text. For a forward, the text that its receiver gets."""
    payload_json: str | None
    """The payload of a forward, byte for byte."""
    outcome: Literal["passed", "gone", "refused", "dropped"]
    """The outcome of a forward: passed on (now or later), receiver gone, refused with an error to the sender, dropped
    by a fault. `passed` for all others. Of a duplicate, the outcome of the copy that goes furthest."""
    faults: tuple[str, ...]
    """The faults applied to it, like `("delay", "duplicate")`."""
    rewritten: int = 0
    """The addresses in it that were rewritten (`advertise_address`)."""

    @property
    def payload(self) -> Any:
        """The payload of a forward, parsed; None for all others."""
        return None if self.payload_json is None else parse(self.payload_json)

    @property
    def raw(self) -> RawJson | None:
        """The payload of a forward, byte for byte, which fake peers can send; None for all others."""
        return None if self.payload_json is None else RawJson._of(self.payload_json)

    @property
    def type(self) -> str | None:
        """The payload's `"type"`, if it has one."""
        payload = self.payload
        name = payload.get("type") if isinstance(payload, dict) else None
        return name if isinstance(name, str) else None

    @property
    def error(self) -> str | None:
        """The text of an error that the server sent; None for all others."""
        if self.message_type != "error" or self.closed or not self.direction.startswith("server"):
            return None
        return str(json.loads(self.text)["error"])

    @property
    def silence(self) -> str | None:
        """The time for which the peer was silent before the server dropped it, like `15 s`; None for all others."""
        said = self.text.removeprefix("silent for ") if self.closed and self.direction.startswith("server") else ""
        return said.removesuffix(", dropped") if said.endswith(", dropped") else None

    @property
    def size(self) -> int:
        """The length of its text in bytes."""
        return len(self.text.encode())

    def __str__(self) -> str:
        client = "" if self.client is None else f"#{self.client}"
        return f"{self.direction} {self.device or '?'}{client} {describe(self)}"

    @classmethod
    def _of(cls, entry: EntryTuple) -> Entry:
        *facts, (faults, rewritten) = entry
        return cls(*facts, tuple(faults), rewritten)  # type: ignore[arg-type, call-arg]


def describe(entry: Entry) -> str:
    """Describes an entry in a word or two: the type of a payload or a message, or the end of a connection."""
    if entry.closed:
        return f"[{printable(entry.text)}]"
    if entry.message_type == "forward":
        return printable(entry.type or "forward")
    return printable(entry.message_type or "(not a message)")


def printable(text: str) -> str:
    """Escapes the characters that a terminal would interpret: the text comes from a peer."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
