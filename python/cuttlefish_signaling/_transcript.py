"""Formats of a transcript: two lanes of text, a Mermaid sequence diagram, JSON lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._entry import Entry, describe, printable
from ._raw_json import on_lines, on_one_line, write

LANE = 28
"""Columns between a peer and the server."""

MAX_LABEL = 20


def as_text(entries: Sequence[Entry]) -> str:
    """Draws devices on the left, the server in the middle, clients on the right, and problems at the end of a line."""
    if not entries:
        return "(nothing was said)"
    left = max(len("device"), *(len(_device(entry)) for entry in entries))
    lines = [f"{'seconds':>9}  {'device':<{left}}  {'':{LANE - 3}}server{'':{LANE - 3}}  client"]
    begin = entries[0].at
    for entry in entries:
        lane, right = _lane(entry)
        label = _device(entry) if "device" in entry.direction else ""
        note = _note(entry)
        lines.append(f"{entry.at - begin:>9.3f}  {label:<{left}}  {lane}  {right}{note}".rstrip())
    return "\n".join(lines)


def _lane(entry: Entry) -> tuple[str, str]:
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
    return lane, _client(entry) if "client" in entry.direction else ""


def _note(entry: Entry) -> str:
    notes = [*entry.faults]
    if entry.outcome == "refused":
        notes.append("refused")
    elif entry.outcome == "gone":
        notes.append("receiver gone")
    if entry.message_type == "error" and not entry.closed and "->" in entry.direction:
        error = entry.error
        notes.extend([error] if error else [])
    return f"  ! {printable(', '.join(notes))}" if notes else ""


def _device(entry: Entry) -> str:
    return _cut(printable(entry.device or "?"), MAX_LABEL)


def _client(entry: Entry) -> str:
    return f"{_device(entry)}#{entry.client if entry.client is not None else '?'}"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def as_mermaid(entries: Sequence[Entry]) -> str:
    """Draws a `sequenceDiagram` (mermaid.js.org)."""
    names: dict[str, str] = {}
    lines = ["sequenceDiagram"]
    messages = []

    def participant(side: str, entry: Entry) -> str:
        label = {"device": f"device {_device(entry)}", "client": f"client {_client(entry)}"}.get(side, side)
        return names.setdefault(_escape(label), f"p{len(names)}")

    for entry in entries:
        sender, _, receiver = entry.direction.partition("->")
        arrow = "-x" if entry.outcome != "passed" or entry.closed else "->>"
        ends = f"{participant(sender, entry)}{arrow}{participant(receiver, entry)}"
        messages.append(f"    {ends}: {_escape(describe(entry) + _note(entry))}")
    lines += [f"    participant {name} as {label}" for label, name in names.items()]
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
        "message_type": entry.message_type,
        "closed": entry.closed,
        "outcome": entry.outcome,
        "faults": list(entry.faults),
        "size": entry.size,
    }
    if entry.raw is None:
        return write({**facts, "text": entry.text})
    return write({**facts, **on_lines("payload", entry.raw)})
