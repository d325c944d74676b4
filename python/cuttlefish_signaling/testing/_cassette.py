"""Cassettes: recorded payloads of a device, and their files."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .._annotations import late_annotations
from .._field_docs import with_field_docs
from .._raw_json import RawJson, members, on_lines, on_one_line, write
from ..errors import CassetteError, ConfigError

if TYPE_CHECKING:
    from .._journal import Entry, Journal

VERSION = 1

INFINITIES = {"Infinity": RawJson("1e999"), "-Infinity": RawJson("-1e999")}
"""Words that are not JSON. Version 0.1.0 wrote them into a cassette for numbers like 1e400."""


@with_field_docs
@dataclass(frozen=True, init=False)
class Line:
    """One payload of a cassette."""

    sender: Literal["device", "client"]
    """The peer that sent it."""
    client: int
    """The client that sent or received it."""
    raw: RawJson
    """The payload, byte for byte."""

    def __init__(self, sender: Literal["device", "client"], client: int, payload: Any) -> None:
        for name, value in (("sender", sender), ("client", client), ("raw", write(payload))):
            object.__setattr__(self, name, value)

    @property
    def payload(self) -> Any:
        """The payload, parsed."""
        return self.raw.value

    @property
    def type(self) -> str | None:
        """The payload's `"type"`; None without one."""
        payload = self.payload
        name = payload.get("type") if isinstance(payload, dict) else None
        return name if isinstance(name, str) else None


@with_field_docs
@dataclass(frozen=True, init=False)
class Cassette:
    """The payloads that a device and its clients sent each other, byte for byte.

    The file has JSON lines: first `{"cassette": 1, "device_id": ..., "device_info": ...}`, then for each payload
    `{"from": "client" | "device", "client": N, "payload": ...}`. A payload that contains line ends stands there twice:
    `"payload"` is on one line, and `"payload_text"`, which counts, is a string; `"device_info"` likewise.
    """

    device_id: str
    """The id of the device."""
    device_info_json: RawJson
    """The device info, byte for byte."""
    lines: tuple[Line, ...] = field(repr=False)
    """The payloads, in order."""

    def __init__(self, device_id: str, device_info: Any, lines: Iterable[Line]) -> None:
        info = write(device_info, "device_info")
        for name, value in (("device_id", device_id), ("device_info_json", info), ("lines", tuple(lines))):
            object.__setattr__(self, name, value)

    @property
    def device_info(self) -> Any:
        """The device info, parsed."""
        return self.device_info_json.value

    @classmethod
    def record(cls, journal: Journal, device: str) -> Cassette:
        """The payloads since the last registration of a device. Raises CassetteError if the journal has none."""
        registered = journal.messages(device=device, message_type="register")
        if not registered:
            raise CassetteError(
                f"the journal has no registration of device {device!r}: the device did not register, or the journal "
                "has discarded the entry"
            )
        info = members(registered[-1].text).get("device_info")
        forwards = journal.messages(device=device, message_type="forward", after=registered[-1])
        # A refused forward has no receiver.
        return cls(device, info, tuple(_line(entry) for entry in forwards if entry.outcome != "refused"))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Cassette:
        """Reads a cassette from a file. Raises CassetteError, which names the line."""
        try:
            # Not `splitlines`, which also splits at U+2028: JSON strings may contain it.
            texts = Path(path).read_bytes().decode("utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise CassetteError(f"cannot read the cassette {os.fspath(path)!r}: {error}") from error
        places = [(f"{os.fspath(path)}:{number}", text) for number, text in enumerate(texts, 1) if text.strip()]
        parsed = [(place, _parse(place, text)) for place, text in places]
        if not parsed or "cassette" not in parsed[0][1]:
            raise CassetteError(
                f'{os.fspath(path)}:1: the first line of a cassette must be {{"cassette": {VERSION}, "device_id": ...}}'
            )
        place, head = parsed[0]
        version, device_id = _value(head, "cassette"), _value(head, "device_id")
        if version != VERSION:
            raise CassetteError(f"{place}: version {version!r} is unknown; the known one is {VERSION}")
        if not isinstance(device_id, str) or not device_id:
            raise CassetteError(f"{place}: device_id must be a non-empty string, got {device_id!r}")
        return cls(device_id, _exact(place, head, "device_info"), [_checked(place, line) for place, line in parsed[1:]])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the cassette to a file. Raises CassetteError."""
        info = on_lines("device_info", self.device_info_json)
        head = {"cassette": VERSION, "device_id": self.device_id, **info}
        rest = [{"from": line.sender, "client": line.client, **on_lines("payload", line.raw)} for line in self.lines]
        text = "".join(on_one_line(write(line)) + "\n" for line in [head, *rest])
        try:
            _write(Path(path), text.encode())
        except OSError as error:
            raise CassetteError(f"cannot write the cassette {os.fspath(path)!r}: {error}") from error


def _write(path: Path, content: bytes) -> None:
    """Writes a file by a rename: a run that is interrupted leaves no half of a cassette."""
    if path.exists() and not path.is_file():
        path.write_bytes(content)  # A pipe or a device, which a rename would replace; a folder is an error.
        return
    path = path.resolve()  # A link stays.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        temporary.write_bytes(content)
        if path.exists():
            temporary.chmod(path.stat().st_mode & 0o7777)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _line(entry: Entry) -> Line:
    sender: Literal["device", "client"] = "device" if entry.direction == "device->client" else "client"
    return Line(sender, entry.client or 0, entry.raw)


def _parse(place: str, text: str) -> dict[str, RawJson]:
    try:
        return members(text)
    except TypeError:
        raise CassetteError(f"{place}: must be a JSON object, got {text[:80]!r}") from None
    except (ValueError, RecursionError) as error:
        try:
            return members(write(json.loads(text, parse_constant=INFINITIES.__getitem__)))
        except (LookupError, TypeError, ValueError, RecursionError):
            raise CassetteError(f"{place}: invalid JSON: {error}") from error


def _value(line: dict[str, RawJson], name: str) -> Any:
    return line[name].value if name in line else None


def _exact(place: str, line: dict[str, RawJson], name: str) -> RawJson | None:
    """The text of a member, as its sender wrote it."""
    text = _value(line, f"{name}_text")
    if text is None:
        return line.get(name)
    try:
        exact = RawJson(text)
    except ConfigError as error:
        raise CassetteError(f'{place}: "{name}_text" must be a string with JSON: {error.what}') from None
    if name in line and on_one_line(exact) != line[name]:
        raise CassetteError(
            f'{place}: "{name}" and "{name}_text" differ; remove the second after a change of the first'
        )
    return exact


def _checked(place: str, line: dict[str, RawJson]) -> Line:
    sender, client = _value(line, "from"), _value(line, "client")
    if sender not in ("device", "client"):
        raise CassetteError(f'{place}: "from" must be "device" or "client", got {sender!r}')
    if not isinstance(client, int) or isinstance(client, bool):
        raise CassetteError(f'{place}: "client" must be a whole number, got {client!r}')
    payload = _exact(place, line, "payload")
    if payload is None:
        raise CassetteError(f'{place}: "payload" is missing')
    return Line(sender, client, payload)


late_annotations(globals())
