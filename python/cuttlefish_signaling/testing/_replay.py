"""A device that replays a cassette, and adds to it if wanted."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from .._raw_json import RawJson
from ..errors import CassetteError, ConfigError
from ._cassette import Cassette, Line
from ._device import AsyncFakeDevice
from ._endpoint import Endpoint
from ._message import Message
from ._recording import MODES, Recording


class Track:
    """The payloads that the device sent to one client, grouped by the payload of the client that they follow."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self.unprompted: list[RawJson] = []
        self._parts: list[tuple[str | None, list[RawJson]]] = []
        for line in lines:
            if line.sender == "client":
                self._parts.append((line.type, []))
            else:
                (self._parts[-1][1] if self._parts else self.unprompted).append(line.raw)

    def answer(self, type: str | None) -> list[RawJson] | None:
        """Takes the payloads that follow the first payload of this type; None if there are none left."""
        for index, (asked, answers) in enumerate(self._parts):
            if asked == type:
                del self._parts[index]
                return answers
        return None


class AsyncReplayDevice(AsyncFakeDevice):
    """A device that replays a cassette: `async with AsyncReplayDevice(server, "boot.jsonl") as device: ...`.

    It sends the device info and the payloads byte for byte as they were recorded.

    The first client receives the payloads of the first client in the cassette, the second those of the second, and so
    on; additional clients receive those of the last one. A client's payload is matched by type: the reply to the n-th
    payload of a type is the payloads that follow the n-th payload of that type in the cassette. With a profile the
    replay continues after a reconnect: a client with the number of an earlier client receives the remaining payloads.

    With `mode="once"` or `"new"`, a real device at another server answers what the cassette lacks. The real device gets
    only these payloads, one connection for each client. `close` writes both to the file.

    Args:
        server: A `SignalingServer`, an `AttachedServer` or a URL.
        cassette: A `Cassette`, or its file.
        device_id: The device id; by default, that of the cassette.
        mode: `"none"` replays only. `"once"` records all if there is no file, and replays it otherwise. `"new"` adds
            what the file lacks.
        real: The server of the real device: a `SignalingServer`, an `AttachedServer` or a URL. `"none"` ignores it.
        real_device_id: The id of the real device there; by default, `device_id`.
        real_options: Options of `AsyncFakeClient` for the connections to the real device: `headers`, `tls`, `timeout`.
        options: As for `AsyncFakeDevice`.

    Raises:
        CassetteError: The file cannot be read, or cannot be written by `close`. The real device does not answer: the
            next `recv` or `close` raises it.
        ConfigError: The mode needs a file, or a real device.
    """

    def __init__(
        self,
        server: Endpoint | str,
        cassette: Cassette | str | os.PathLike[str],
        device_id: str | None = None,
        *,
        mode: Literal["none", "once", "new"] = "none",
        real: Endpoint | str | None = None,
        real_device_id: str | None = None,
        real_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if mode not in MODES:
            raise ConfigError("mode", f"must be one of {', '.join(map(repr, MODES))}, got {mode!r}")
        if mode != "none" and isinstance(cassette, Cassette):
            raise ConfigError("mode", f"{mode!r} needs the file of a cassette, to write it")
        path = None if isinstance(cassette, Cassette) else Path(cassette)
        self._is_new = mode != "none" and path is not None and not path.exists()
        if self._is_new:
            cassette = Cassette(device_id or real_device_id or "cvd-1", None, ())
        self.cassette: Cassette = cassette if isinstance(cassette, Cassette) else Cassette.load(cassette)
        options.setdefault("info", self.cassette.device_info_json)
        super().__init__(server, device_id or self.cassette.device_id, **options)
        self.unmatched: list[Any] = []
        """The payloads of clients that have no match in the cassette, and that no real device was asked for."""
        self._tracks: dict[int, Track] = {}
        self._numbers: dict[int, int] = {}  # By client id: the client of the cassette.
        self._tracks_assigned = 0
        self._recording: Recording | None = None
        if path is not None and (mode == "new" or self._is_new):
            if real is None:
                missing = f"there is no file {os.fspath(path)!r}" if self._is_new else "the mode is 'new'"
                raise ConfigError("real", f"is missing: {missing}, and a real device has to answer; give its server")
            self._recording = Recording(path, real, real_device_id or self.device_id, real_options or {})

    async def _connect(self) -> None:
        self._tracks.clear()
        self._numbers.clear()
        self._tracks_assigned = 0
        if self._recording is not None and self._is_new:
            self._info_json = await self._recording.device_info()
            self.info: Any = self._info_json.value
            self._is_new = False
        await super()._connect()

    async def _end_tasks(self) -> None:
        try:
            await super()._end_tasks()
        finally:
            if self._recording is not None:
                await self._recording.close()
                try:
                    self.cassette = self._recording.save(self.cassette)
                except CassetteError as error:
                    self._fail(error)

    async def _on_message(self, message: Message) -> None:
        await super()._on_message(message)
        client = message.client_id
        if message.message_type == "client_disconnected" and client is not None:
            self._tracks.pop(client, None)
            if self._recording is not None:
                await self._recording.leave(client)
        if message.message_type != "client_msg" or client is None:
            return
        track = self._tracks.get(client)
        answers: list[RawJson] = []
        if track is None:
            track = self._tracks[client] = self._next_track(client)
            answers += track.unprompted
        found = track.answer(message.type)
        await self._send_reply(message, answers + (found or []))
        if found is None:
            await self._ask(message, client)

    async def _ask(self, message: Message, client: int) -> None:
        """Has the real device answer a payload that the cassette lacks."""
        if self._recording is None or message.raw is None:
            self.unmatched.append(message.payload)
            return

        async def send(raw: RawJson) -> None:
            await self.send(raw, client)

        try:
            await self._recording.ask(message.raw, client, self._numbers[client], send)
        except CassetteError as error:
            self._fail(error)

    def _next_track(self, client: int) -> Track:
        recorded = list(dict.fromkeys(line.client for line in self.cassette.lines))
        assigned = self._tracks_assigned
        self._tracks_assigned += 1
        if not recorded:
            self._numbers[client] = assigned + 1
            return Track(())
        number = self._numbers[client] = recorded[min(assigned, len(recorded) - 1)]
        return Track(line for line in self.cassette.lines if line.client == number)
