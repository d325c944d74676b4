"""The transcripts that the tests of the server use, read for servers elsewhere: with device ids of this run alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any

COLUMNS = ("others", "cuttlefish")
"""Devices that receive errors, and Cuttlefish devices, which offer the sub-protocol and receive none."""

_LOCAL = ("packets",)
"""Transports that no URL leads to."""


@dataclass(frozen=True)
class Case:
    """One conversation, in one column."""

    file: str
    title: str
    column: str
    settings: dict[str, Any] = field(default_factory=dict)
    lines: tuple[dict[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """`forward.jsonl: null is a payload, both ways`."""
        return f"{self.file}.jsonl: {self.title}"

    @property
    def id(self) -> str:
        """The id of its rule."""
        words = re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")
        return f"{self.file}.{words}{'@cuttlefish' if self.column == 'cuttlefish' else ''}"

    @property
    def is_local(self) -> bool:
        """Whether a peer uses a local socket."""
        return any(line.get("over") in _LOCAL for line in self.lines)

    @property
    def differs(self) -> bool:
        """Whether Cuttlefish devices hear other messages in it than custom devices."""
        return any("only" in line for line in self.lines)


def cases() -> tuple[Case, ...]:
    """All cases, in both columns where the columns differ."""
    if not _CASES:
        _CASES.extend(_all_cases())
    return tuple(_CASES)


_CASES: list[Case] = []


def _all_cases() -> tuple[Case, ...]:
    folder = files(__package__) / "transcripts"
    found = sorted((file for file in folder.iterdir() if file.name.endswith(".jsonl")), key=lambda file: file.name)
    return tuple(
        column
        for file in found
        for case in _read(file.name.removesuffix(".jsonl"), file.read_text(encoding="utf-8"))
        for column in _columns(case)
    )


def _read(name: str, text: str) -> Iterator[Case]:
    case: Case | None = None
    lines: list[dict[str, Any]] = []
    for line in map(json.loads, text.split("\n")[:-1]):
        if "case" not in line:
            lines.append(line)
            continue
        if case is not None:
            yield replace(case, lines=tuple(lines))
        case, lines = Case(name, line["case"], "others", line.get("settings", {})), []
    if case is not None:
        yield replace(case, lines=tuple(lines))


def _columns(case: Case) -> Iterator[Case]:
    for column in COLUMNS if case.differs else COLUMNS[:1]:
        lines = tuple(line for line in case.lines if line.get("only", column) == column)
        yield replace(case, column=column, lines=lines)


def expand(text: str, line: dict[str, Any]) -> str:
    """A text with its padding and its nesting."""
    nest = line.get("nest", 0)
    return text.replace("%PAD%", "x" * line.get("pad", 0)).replace("%NEST%", "[" * nest + "]" * nest)


# Device ids of this run -----------------------------------------------------------------------------------------------

_ID = re.compile(r'("device_id"\s*:\s*)("(?:[^"\\]|\\.)*")')


def localized(case: Case, token: str) -> Case:
    """The case with the token in each device id. Ids that no device can register stay as they are."""
    ids = {found: _with_token(found, token) for found in _ids(case)}
    lines = tuple(_replaced(line, ids) for line in case.lines)
    return replace(case, lines=lines if "without device_info" in case.title else tuple(map(_with_info, lines)))


def _with_info(line: dict[str, Any]) -> dict[str, Any]:
    """The line with `device_info`: null in a registration without it, which a rule of its own is about."""
    says = line.get("says")
    if not isinstance(says, dict) or says.get("message_type") != "register" or "device_info" in says:
        return line
    return {**line, "says": {**says, "device_info": None}}


def _ids(case: Case) -> Iterator[str]:
    for line in case.lines:
        if isinstance(line.get("says"), dict) and isinstance(line["says"].get("device_id"), str):
            yield line["says"]["device_id"]
        for found in _ID.finditer(line.get("says_text", "")):
            try:
                yield str(json.loads(found[2]))
            except ValueError:
                continue
        if "of" in line:
            yield line["of"]


def _with_token(device_id: str, token: str) -> str:
    """The id with the token in front. The length of a long one, which its case is about, stays."""
    if not device_id or "%PAD%" in device_id:
        return device_id
    length = len(device_id.encode())
    if length < 200:
        return f"{token}-{device_id}"
    front = f"{token}--"[: len(token) + len(token) % 2]
    rest = device_id
    while len(front.encode()) + len(rest.encode()) > length:
        rest = rest[1:]
    return front + rest + "x" * (length - len(front.encode()) - len(rest.encode()))


def _replaced(line: dict[str, Any], ids: dict[str, str]) -> dict[str, Any]:
    new = dict(line)
    if "of" in line:
        new["of"] = ids[line["of"]]
    if "says" in line:
        new["says"] = _in_message(line["says"], ids)
    for key in ("says_text", "hears_text"):
        if key in line:
            new[key] = _ID.sub(lambda found: found[1] + _in_text(found[2], ids), line[key])
    if isinstance(line.get("hears"), dict) and "error" in line["hears"]:
        new["hears"] = {**line["hears"], "error": _in_error(line["hears"]["error"], ids)}
    if "reason" in line:
        new["reason"] = _in_error(line["reason"], ids)
    return new


def _in_message(message: Any, ids: dict[str, str]) -> Any:
    if not isinstance(message, dict) or not isinstance(message.get("device_id"), str):
        return message
    return {**message, "device_id": ids.get(message["device_id"], message["device_id"])}


def _in_text(quoted: str, ids: dict[str, str]) -> str:
    try:
        device_id = json.loads(quoted)
    except ValueError:
        return quoted
    new = ids.get(device_id, device_id)
    return quoted if new == device_id else json.dumps(new, ensure_ascii=False)


def _in_error(error: str, ids: dict[str, str]) -> str:
    quoted = (("Device not found: '", "'"), ("Device in use: '", "'"))
    for before, after in (("Device already registered: ", ""), ("Device replaced: ", ""), *quoted):
        head, mark, rest = error.partition(before)
        if mark and rest.removesuffix(after) in ids:
            return f"{head}{before}{ids[rest.removesuffix(after)]}{after}"
    return error
