"""Formats of a transcript: two lanes of text, a Mermaid sequence diagram, JSON lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ._entry import Entry, describe, printable
from ._query import Query
from ._raw_json import on_lines, on_one_line, write

if TYPE_CHECKING:
    from ._interfaces import JournalSource

LANE = 28
"""Columns between a peer and the server."""

MAX_LABEL = 20

HEAD, TAIL = 20, 80
"""The entries that a bounded text shows: the first and the last."""


class Names:
    """The names of the clients in a transcript.

    A client has no id before its device info. The number of its connection tells which client it becomes.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._clients: dict[int, int] = {}
        self._unnumbered: dict[int, int] = {}
        for entry in entries:
            if entry.connection and "client" in entry.direction:
                if entry.client is not None:
                    self._clients[entry.connection] = entry.client
                self._unnumbered.setdefault(entry.connection, 0)
        waiting = [connection for connection in self._unnumbered if connection not in self._clients]
        self._unnumbered = {connection: number for number, connection in enumerate(waiting, 1)}

    def client_of(self, entry: Entry) -> int | None:
        """The id of the client that the entry concerns, also of an entry before the client had it."""
        return entry.client if entry.client is not None else self._clients.get(entry.connection)

    def label(self, entry: Entry) -> str:
        """The device and the id of the client. `#?2`: the second of the clients that have no id."""
        client = self.client_of(entry)
        if client is not None:
            return f"{_device(entry)}#{client}"
        number = self._unnumbered.get(entry.connection, 1)
        return f"{_device(entry)}#?{number if number > 1 else ''}"


def as_text(entries: Sequence[Entry], names: Names, *, bounded: bool = False) -> str:
    """Draws devices on the left, the server in the middle, clients on the right, and problems at the end of a line.

    With `bounded`, it has the first and the last entries, and between them the number of the others.
    """
    if not entries:
        return "(nothing was said)"
    begin, skipped = entries[0].at, len(entries) - HEAD - TAIL if bounded else 0
    shown = [*entries[:HEAD], *entries[-TAIL:]] if skipped > 0 else entries
    left = max(len("device"), *(len(_device(entry)) for entry in shown))
    lines = [f"{'seconds':>9}  {'device':<{left}}  {'':{LANE - 3}}server{'':{LANE - 3}}  client"]
    for entry in shown:
        lane, right = _lane(entry, names)
        label = _device(entry) if "device" in entry.direction else ""
        # The lane has no room for all of it.
        note = _note(entry) if entry.silence is None else _note(entry, entry.text)
        lines.append(f"{entry.at - begin:>9.3f}  {label:<{left}}  {lane}  {right}{note}".rstrip())
    if skipped > 0:
        lines.insert(HEAD + 1, f"{'':9}  ... {skipped} more ...")
    return "\n".join(lines)


def _lane(entry: Entry, names: Names) -> tuple[str, str]:
    """Returns both lanes with the server between them, and the label of the client."""
    words = _cut(describe(entry), LANE - 5)
    empty = " " * LANE
    sender, _, receiver = entry.direction.partition("->")
    if entry.direction == "device->client":
        line = f"{words} ".ljust(2 * LANE, "─")
        lane = f"{line[:LANE]}┼{line[LANE:-1]}─▶" if entry.outcome == "passed" else f"{line[: LANE - 1]}─╳{empty}"
    elif entry.direction == "client->device":
        line = f" {words}".rjust(2 * LANE, "─")
        lane = f"◀{line[1:LANE]}┼{line[LANE:]}" if entry.outcome == "passed" else f"{empty}╳{line[LANE:]}"
    elif sender == "device":
        lane = f"{f'{words} ':─<{LANE - 1}}▶│{empty}"
    elif receiver == "device":
        lane = f"◀{f' {words} ─':─>{LANE - 1}}│{empty}"
    elif sender == "client":
        lane = f"{empty}│◀{f' {words}':─>{LANE - 1}}"
    else:
        lane = f"{empty}│{f'─ {words} ':─<{LANE - 1}}▶"
    return lane, names.label(entry) if "client" in entry.direction else ""


def _note(entry: Entry, *more: str) -> str:
    notes = [*entry.faults, *more]
    if entry.outcome == "refused":
        notes.append("refused")
    elif entry.outcome == "gone":
        notes.append("receiver gone")
    if (error := entry.error) is not None:
        notes.append(error)
    return f"  ! {printable(', '.join(notes))}" if notes else ""


def _device(entry: Entry) -> str:
    return _cut(printable(entry.device or "?"), MAX_LABEL)


def _cut(text: str, length: int) -> str:
    """Cuts a text in the middle: names often differ at their ends."""
    if len(text) <= length:
        return text
    end = (length - 1) // 2
    return f"{text[: length - 1 - end]}…{text[-end:]}"


def as_mermaid(entries: Sequence[Entry], names: Names) -> str:
    """Draws a `sequenceDiagram` (mermaid.js.org). A forward that did not reach its receiver ends at the server."""
    known: dict[tuple[str, ...], tuple[str, str]] = {}
    lines = ["sequenceDiagram"]
    messages = []

    def participant(side: str, entry: Entry) -> str:
        key, label = {
            "device": (("device", entry.device or "?"), f"device {_device(entry)}"),
            "client": (("client", entry.device or "?", names.label(entry)), f"client {names.label(entry)}"),
        }.get(side, ((side,), side))
        return known.setdefault(key, (f"p{len(known)}", label))[0]

    for entry in entries:
        sender, _, receiver = entry.direction.partition("->")
        if entry.outcome != "passed":
            receiver = "server"
        arrow = "-x" if entry.outcome != "passed" or entry.closed else "->>"
        ends = f"{participant(sender, entry)}{arrow}{participant(receiver, entry)}"
        messages.append(f"    {ends}: {_escape(describe(entry) + _note(entry))}")
    lines += [f"    participant {name} as {_escape(label)}" for name, label in known.values()]
    return "\n".join(lines + messages)


def _escape(text: str) -> str:
    """Escapes the characters that Mermaid interprets, as `#35;`."""
    return "".join(f"#{ord(c)};" if c in '#;:<>"{}[]()' else c for c in text)


def as_jsonl(entries: Sequence[Entry]) -> str:
    """Returns one JSON object a line for each entry. A payload stays as its sender wrote it.

    A payload that contains line ends, or characters that many readers of lines take for one, stands there twice:
    `payload` is on one line, and `payload_text` is a string with the payload as it was written.
    """
    return "".join(on_one_line(_json_line(entry)) + "\n" for entry in entries)


def _json_line(entry: Entry) -> str:
    facts: dict[str, Any] = {
        "number": entry.number,
        "at": entry.at,
        "direction": entry.direction,
        "device": entry.device,
        "client": entry.client,
        "connection": entry.connection,
        "message_type": entry.message_type,
        "closed": entry.closed,
        "outcome": entry.outcome,
        "faults": list(entry.faults),
        "size": entry.size,
    }
    if entry.raw is None:
        return write({**facts, "text": entry.text})
    return write({**facts, **on_lines("payload", entry.raw)})


def of(
    journal: JournalSource,
    format: str,
    after: int,
    *,
    device: str | None = None,
    client: int | None = None,
    bounded: bool = False,
) -> str:
    """The transcript of the entries behind the entry numbered `after`, of all peers or of one device or client."""
    names = Names(Query().find(journal, closed=None))
    entries = Query(device=device).find(journal, after, closed=None)
    if client is not None:
        entries = [entry for entry in entries if names.client_of(entry) == client]
    if format == "jsonl":
        return as_jsonl(entries)
    return as_mermaid(entries, names) if format == "mermaid" else as_text(entries, names, bounded=bounded)
