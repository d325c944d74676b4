"""Cassettes: recorded payloads of a device, which a fake device replays."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import CassetteError
from ._device import AsyncFakeDevice
from ._endpoint import Endpoint
from ._message import Message

if TYPE_CHECKING:
    from .._journal import Entry, Journal

VERSION = 1


@dataclass(frozen=True)
class Line:
    """One payload of a cassette."""

    sender: Literal["device", "client"]
    client: int
    payload: Any

    @property
    def type(self) -> str | None:
        """The payload's `"type"`; None without one."""
        return self.payload.get("type") if isinstance(self.payload, dict) else None


@dataclass(frozen=True)
class Cassette:
    """The payloads that a device and its clients sent each other.

    The file has JSON lines: first `{"cassette": 1, "device_id": ..., "device_info": ...}`, then for each payload
    `{"from": "client" | "device", "client": N, "payload": ...}`.
    """

    device_id: str
    device_info: Any
    lines: tuple[Line, ...] = field(repr=False)

    @classmethod
    def record(cls, journal: Journal, device: str) -> Cassette:
        """The payloads since the last registration of a device. Raises CassetteError if the journal has none."""
        registered = journal.messages(device=device, message_type="register")
        if not registered:
            raise CassetteError(
                f"the journal has no registration of device {device!r}: the device did not register, or the journal "
                "has discarded the entry"
            )
        info = json.loads(registered[-1].text).get("device_info")
        forwards = journal.messages(device=device, message_type="forward", after=registered[-1])
        # A refused forward has no receiver.
        return cls(device, info, tuple(_line(entry) for entry in forwards if entry.outcome != "refused"))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Cassette:
        """Reads a cassette from a file. Raises CassetteError, which names the line."""
        try:
            # Not `splitlines`, which also splits at U+2028: JSON strings may contain it.
            texts = Path(path).read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise CassetteError(f"cannot read the cassette {os.fspath(path)!r}: {error}") from error
        parsed = [(number, _parse(path, number, text)) for number, text in enumerate(texts, 1) if text.strip()]
        if not parsed or "cassette" not in parsed[0][1]:
            raise CassetteError(
                f'{os.fspath(path)}:1: the first line of a cassette must be {{"cassette": {VERSION}, "device_id": ...}}'
            )
        number, head = parsed[0]
        if head["cassette"] != VERSION:
            raise CassetteError(
                f"{os.fspath(path)}:{number}: version {head['cassette']!r} is unknown; the known one is {VERSION}"
            )
        if not isinstance(head.get("device_id"), str) or not head["device_id"]:
            raise CassetteError(
                f"{os.fspath(path)}:{number}: device_id must be a non-empty string, got {head.get('device_id')!r}"
            )
        lines = tuple(_checked(path, number, line) for number, line in parsed[1:])
        return cls(head["device_id"], head.get("device_info"), lines)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the cassette to a file. Raises CassetteError."""
        head = {"cassette": VERSION, "device_id": self.device_id, "device_info": self.device_info}
        rest = [{"from": line.sender, "client": line.client, "payload": line.payload} for line in self.lines]
        text = "".join(json.dumps(line) + "\n" for line in [head, *rest])
        try:
            Path(path).write_text(text, encoding="utf-8")
        except OSError as error:
            raise CassetteError(f"cannot write the cassette {os.fspath(path)!r}: {error}") from error


def _line(entry: Entry) -> Line:
    sender: Literal["device", "client"] = "device" if entry.direction == "device->client" else "client"
    return Line(sender, entry.client or 0, entry.payload)


def _parse(path: str | os.PathLike[str], number: int, text: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except ValueError as error:
        raise CassetteError(f"{os.fspath(path)}:{number}: invalid JSON: {error}") from error
    if not isinstance(line, dict):
        raise CassetteError(f"{os.fspath(path)}:{number}: must be a JSON object, got {text[:80]!r}")
    return line


def _checked(path: str | os.PathLike[str], number: int, line: dict[str, Any]) -> Line:
    sender, client = line.get("from"), line.get("client")
    if sender not in ("device", "client"):
        raise CassetteError(f'{os.fspath(path)}:{number}: "from" must be "device" or "client", got {sender!r}')
    if not isinstance(client, int) or isinstance(client, bool):
        raise CassetteError(f'{os.fspath(path)}:{number}: "client" must be a whole number, got {client!r}')
    if "payload" not in line:
        raise CassetteError(f'{os.fspath(path)}:{number}: "payload" is missing')
    return Line(sender, client, line["payload"])


class Track:
    """The payloads that the device sent to one client, grouped by the payload of the client that they follow."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self.unprompted: list[Any] = []
        self._parts: list[tuple[str | None, list[Any]]] = []
        for line in lines:
            if line.sender == "client":
                self._parts.append((line.type, []))
            else:
                (self._parts[-1][1] if self._parts else self.unprompted).append(line.payload)

    def answer(self, type: str | None) -> list[Any] | None:
        """Takes the payloads that follow the first payload of this type; None if there are none left."""
        for index, (asked, answers) in enumerate(self._parts):
            if asked == type:
                del self._parts[index]
                return answers
        return None


class AsyncReplayDevice(AsyncFakeDevice):
    """A device that replays a cassette: `async with AsyncReplayDevice(server, "boot.jsonl") as device: ...`.

    The first client receives the payloads of the first client in the cassette, the second those of the second, and so
    on; additional clients receive those of the last one. A client's payload is matched by type: the reply to the n-th
    payload of a type is the payloads that follow the n-th payload of that type in the cassette. With a profile the
    replay continues after a reconnect: a client with the number of an earlier client receives the remaining payloads.

    Args:
        server: A `SignalingServer`, an `AttachedServer` or a URL.
        cassette: A `Cassette`, or its file.
        device_id: The device id; by default, that of the cassette.
        options: As for `AsyncFakeDevice`.

    Raises:
        CassetteError: The file cannot be read.
    """

    def __init__(
        self,
        server: Endpoint | str,
        cassette: Cassette | str | os.PathLike[str],
        device_id: str | None = None,
        **options: Any,
    ) -> None:
        self.cassette = cassette if isinstance(cassette, Cassette) else Cassette.load(cassette)
        options.setdefault("info", self.cassette.device_info)
        super().__init__(server, device_id or self.cassette.device_id, **options)
        self.unmatched: list[Any] = []
        """The payloads of clients that have no match in the cassette."""
        self._tracks: dict[int, Track] = {}
        self._tracks_assigned = 0

    async def _connect(self) -> None:
        self._tracks.clear()
        self._tracks_assigned = 0
        await super()._connect()

    async def _on_message(self, message: Message) -> None:
        await super()._on_message(message)
        client = message.client_id
        if message.message_type == "client_disconnected" and client is not None:
            self._tracks.pop(client, None)
        if message.message_type != "client_msg" or client is None:
            return
        track = self._tracks.get(client)
        answers: list[Any] = []
        if track is None:
            track = self._tracks[client] = self._next_track()
            answers += track.unprompted
        found = track.answer(message.type)
        if found is None:
            self.unmatched.append(message.payload)
        await self._send_reply(message, answers + (found or []))

    def _next_track(self) -> Track:
        recorded = list(dict.fromkeys(line.client for line in self.cassette.lines))
        if not recorded:
            return Track(())
        client = recorded[min(self._tracks_assigned, len(recorded) - 1)]
        self._tracks_assigned += 1
        return Track(line for line in self.cassette.lines if line.client == client)
