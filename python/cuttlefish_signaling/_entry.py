"""`Entry`: one line of a journal."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

EntryTuple: TypeAlias = tuple[
    int, float, bool, str, "str | None", "int | None", str, str, "str | None", str, "list[str]"
]


@dataclass(frozen=True)
class Entry:
    """Something that was said, or a connection that ended."""

    number: int
    """Counts up by one, from 1."""
    at: float
    """When, in seconds since 1970, by the server's clock."""
    closed: bool
    """Whether it is the end of a connection: the side the direction starts from has ended it, `text` says how."""
    direction: str
    """`device->client`, `client->device` for forwards; `device->server` and the like for everything else."""
    device: str | None
    """The device concerned, if it is known."""
    client: int | None
    """The client concerned, if it has a number."""
    message_type: str
    """`register`, `config`, `forward`, …; empty if what a peer sent is no message."""
    text: str = field(repr=False)
    """The whole text: of a forward as its receiver gets it, of anything else as it was said."""
    payload_json: str | None
    """The payload of a forward, byte for byte."""
    outcome: Literal["passed", "gone", "refused", "dropped"]
    """What became of a forward: passed on (now or later), its receiver gone, its sender told an error, dropped by a
    fault. Of anything else `passed`."""
    faults: tuple[str, ...]
    """The faults that hit it, like `("delay", "duplicate")`."""

    @property
    def payload(self) -> Any:
        """The payload of a forward, parsed; None of anything else."""
        return None if self.payload_json is None else json.loads(self.payload_json)

    @property
    def type(self) -> str | None:
        """The payload's `"type"`, if it has one."""
        payload = self.payload
        name = payload.get("type") if isinstance(payload, dict) else None
        return name if isinstance(name, str) else None

    @property
    def error(self) -> str | None:
        """What an `error` of the server says."""
        if self.message_type != "error" or self.closed or not self.direction.startswith("server"):
            return None
        return str(json.loads(self.text)["error"])

    @property
    def size(self) -> int:
        """Bytes of its text."""
        return len(self.text.encode())

    def __str__(self) -> str:
        client = "" if self.client is None else f"#{self.client}"
        return f"{self.direction} {self.device or '?'}{client} {describe(self)}"

    @classmethod
    def _of(cls, entry: EntryTuple) -> Entry:
        *facts, faults = entry
        return cls(*facts, tuple(faults))  # type: ignore[arg-type, call-arg]


def describe(entry: Entry) -> str:
    """An entry in a word or two: a forward's payload type, a message's type, how a connection ended."""
    if entry.closed:
        return f"[{printable(entry.text)}]"
    if entry.message_type == "forward":
        return printable(entry.type or "forward")
    return printable(entry.message_type or "(not a message)")


def printable(text: str) -> str:
    """Without what a terminal would take for more than text: these are a peer's words."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
