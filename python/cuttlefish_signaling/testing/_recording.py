"""The recording of a cassette: a real device answers the payloads that the cassette lacks, and both are added."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from .._raw_json import RawJson
from ..errors import CassetteError, ConfigError, PeerClosedError, SignalingError
from ._cassette import Cassette, Line
from ._client import AsyncFakeClient
from ._endpoint import Endpoint
from ._message import Message

MODES = ("none", "once", "new")

Send: TypeAlias = Callable[[RawJson], Awaitable[None]]


class RealClient(AsyncFakeClient):
    """A client of the real device, which hands on each payload."""

    def __init__(
        self, server: Endpoint | str, device_id: str, on_payload: Send | None, options: Mapping[str, Any]
    ) -> None:
        super().__init__(server, device_id, **options)
        self._on_payload = on_payload

    async def _on_message(self, message: Message) -> None:
        await super()._on_message(message)
        if message.message_type == "device_msg" and message.raw is not None and self._on_payload is not None:
            await self._on_payload(message.raw)


class Recording:
    """The lines that a cassette gets, and the connections to the real device: one for each client."""

    def __init__(
        self, path: str | os.PathLike[str], server: Endpoint | str, device_id: str, options: Mapping[str, Any]
    ) -> None:
        self._path = path
        self._server = server
        self._device_id = device_id
        self._options = options
        self._clients: dict[int, RealClient] = {}
        self._lines: list[Line] = []
        self._info: RawJson | None = None
        # A mistake in the address or in the options is told here, and not when a client comes.
        self._client(None)

    def _client(self, on_payload: Send | None) -> RealClient:
        try:
            return RealClient(self._server, self._device_id, on_payload, self._options)
        except ConfigError as error:
            name = "real" if error.setting == "server" else f"real_options[{error.setting!r}]"
            raise ConfigError(name, error.what) from None
        except TypeError as error:
            raise ConfigError("real_options", f"must be options of FakeClient: {error}") from None

    async def device_info(self) -> RawJson:
        """Asks the real device for its info, for a cassette that is new. Raises CassetteError."""
        client = self._client(None)
        try:
            await client.start()
            self._info = client.device_info_json or RawJson("null")
            return self._info
        except SignalingError as error:
            raise self._failed(error) from error
        finally:
            await client.close()

    async def ask(self, payload: RawJson, client: int, number: int, send: Send) -> None:
        """Forwards a payload of a client to the real device. `send` gets the answers. Raises CassetteError."""

        async def answer(raw: RawJson) -> None:
            self._lines.append(Line("device", number, raw))
            try:
                await send(raw)
            except PeerClosedError:
                pass  # The client, or this device, has left.

        try:
            real = self._clients.get(client)
            if real is None:
                real = self._client(answer)
                await real.start()
                self._clients[client] = real
            self._lines.append(Line("client", number, payload))
            await real.send(payload)
        except SignalingError as error:
            raise self._failed(error) from error

    def _failed(self, error: SignalingError) -> CassetteError:
        return CassetteError(f"cannot add to the cassette {os.fspath(self._path)!r}: the real device fails: {error}")

    async def leave(self, client: int) -> None:
        """Closes the connection of a client that has left."""
        real = self._clients.pop(client, None)
        if real is not None:
            await real.close()

    async def close(self) -> None:
        """Closes all connections."""
        for client in list(self._clients):
            await self.leave(client)

    def save(self, cassette: Cassette) -> Cassette:
        """Writes a cassette with the lines that were added. Returns it. Raises CassetteError."""
        if not self._lines and self._info is None:
            return cassette
        info = cassette.device_info_json if self._info is None else self._info
        added = Cassette(cassette.device_id, info, (*cassette.lines, *self._lines))
        added.save(self._path)
        self._lines, self._info = [], None
        return added
