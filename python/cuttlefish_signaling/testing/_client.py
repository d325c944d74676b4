"""A fake client, which signals like the page in a browser."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from .._raw_json import RawJson, members
from .._timeouts import DEFAULT_TIMEOUT
from ..errors import PeerClosedError
from ._endpoint import Endpoint
from ._message import Message
from ._peer import AsyncPeer
from ._texts import refused_by_server


class AsyncFakeClient(AsyncPeer):
    """A client of one device: `async with AsyncFakeClient(server, "cvd-1") as client: ...`.

    Like a browser, it offers no subprotocol and sends no pings. It closes the connection if it receives an error before
    the device info.

    Args:
        server: A `SignalingServer`, an `AttachedServer` or a URL.
        device_id: The device to connect to.
        headers: Additional headers of the request, for example the `Origin` that a browser sends.
        tls: Verifies the server's certificate. By default, the certificate of a `SignalingServer` is trusted.
        timeout: Seconds for each step of the connection; a wait for the device is part of the last one.
    """

    _path = "/connect_client"

    def __init__(
        self,
        server: Endpoint | str,
        device_id: str = "cvd-1",
        *,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        self._name = f"client of {device_id!r}"
        super().__init__(server, headers=headers, tls=tls, timeout=timeout)
        self.device_id = device_id
        self.device_info: Any = None
        """The device info that the server sent."""
        self._info_text: str | None = None

    async def _handshake(self) -> None:
        await self._send_message(message_type="connect", device_id=self.device_id)
        try:
            await self.recv(self._timeout, message_type="config")
            message = await self.recv(self._timeout, message_type="device_info")
        except PeerClosedError:
            raise refused_by_server(self, f"connect to {self.device_id!r}") from None
        self.device_info = message.fields.get("device_info")
        self._info_text = message.text

    def _reacts_to(self, message: Message) -> bool:
        is_refused = message.error is not None and self.device_info is None
        return is_refused or type(self)._on_message is not AsyncFakeClient._on_message

    async def _on_message(self, message: Message) -> None:
        if message.error is not None and self.device_info is None and self._socket is not None:
            await self._socket.close()

    @property
    def device_info_json(self) -> RawJson | None:
        """The device info, byte for byte; None before the server has sent it."""
        return None if self._info_text is None else members(self._info_text).get("device_info")

    @property
    def ice_servers(self) -> list[dict[str, Any]]:
        """The ICE servers in the server's `config`."""
        return list((self.config or {}).get("ice_servers", []))

    async def send(self, payload: Any) -> None:
        """Forwards a payload (any JSON value, or `RawJson`) to the device. Raises PeerClosedError."""
        await self._send_message(message_type="forward", payload=payload)

    async def _reply(self, message: Message, payload: Any) -> None:
        await self.send(payload)
