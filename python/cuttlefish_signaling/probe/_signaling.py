"""The signaling of a client with its device, for the probe: all messages that came, and how it ended."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from ._changes import Changes
from ._deadline import DeadlineError, within
from ._facts import CLOSED, TIMEOUT, ConnectFacts
from ._http import Route
from ._turn import TurnServer
from ._websocket import CLIENTS, closed, opened

MOST_PAYLOADS = 1000
"""Payloads of a device that are kept. A session has some dozens; a device that floods is not kept in memory."""


class Signaling:
    """A client of one device.

    At the current operator (`operator_servers` has its ICE servers) the path names the device, the device info comes
    first, and each text of the client is a payload (docs/protocol.md 5.3.7, 5.3.8).
    """

    def __init__(
        self, route: Route, device_id: str, changes: Changes, operator_servers: list[Any] | None = None
    ) -> None:
        self._route = route
        self._changes = changes
        self._connection: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._more = asyncio.Event()
        self.device_id = device_id
        self._is_operator = operator_servers is not None
        self.config: dict[str, Any] | None = {"ice_servers": operator_servers} if self._is_operator else None
        self.has_info = False
        self.payloads: list[Any] = []
        self.error = ""
        self.garbage = ""
        self.end = ""
        """The end of the connection; empty while it is open."""

    @property
    def ice_servers(self) -> list[Any]:
        """The ICE servers that the server has handed out."""
        found = (self.config or {}).get("ice_servers")
        return found if isinstance(found, list) else []

    @property
    def how_ended(self) -> str:
        """The last error of the server and the end of the connection, for texts."""
        return "; ".join(part for part in (self.error, self.end) if part)

    async def connect(self, seconds: float) -> ConnectFacts:
        """Opens the WebSocket and sends `connect`. Returns when the device info has come."""
        until = time.monotonic() + seconds
        try:
            path = f"/devices/{quote(self.device_id, safe='')}/connect" if self._is_operator else CLIENTS
            self._connection = await within(seconds, opened(self._route, path))
        except DeadlineError:
            return ConnectFacts(self.device_id, TIMEOUT)
        except Exception as error:
            return ConnectFacts(self.device_id, CLOSED, close=str(error) or type(error).__name__)
        self._reader = asyncio.ensure_future(self._read(self._connection))
        if not self._is_operator:
            await self._send({"message_type": "connect", "device_id": self.device_id})

        def is_over() -> bool:
            return bool(self.has_info or self.error or self.garbage or self.end)

        await self._changes.until(is_over, max(until - time.monotonic(), 0.001))
        urls, strings, expired = ice_servers_of(self.ice_servers, time.time())
        outcome = self._outcome()
        close = self.garbage if outcome == "garbage" else self.end
        return ConnectFacts(self.device_id, outcome, self.error, close, urls, strings, expired)

    def _outcome(self) -> str:
        if self.has_info:
            return "connected"
        if self.error:
            return "refused"
        if self.garbage:
            return "garbage"
        if self.end:
            return CLOSED
        return "no_config" if self.config is None else "no_info"

    async def forward(self, payload: Any) -> bool:
        """Sends a payload to the device. Returns whether the connection is open."""
        return await self._send(payload if self._is_operator else {"message_type": "forward", "payload": payload})

    async def _send(self, message: Any) -> bool:
        if self._connection is None:
            return False
        try:
            await self._connection.send(json.dumps(message))
        except ConnectionClosed:
            return False
        return True

    async def _read(self, connection: ClientConnection) -> None:
        try:
            async for text in connection:
                self._take(text)
                self._more.set()
                self._changes.set()
        except ConnectionClosed:
            pass
        finally:
            reason = connection.close_reason or ""
            self.end = f"the connection was closed [{connection.close_code}] {reason}".rstrip()
            self._more.set()
            self._changes.set()

    def _take(self, text: str | bytes) -> None:
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            self.garbage = self.garbage or str(text[:60])
            return
        kind = message.get("message_type")
        if kind == "config":
            self.config = message
        elif kind == "device_info" or (self._is_operator and kind is None and "device_info" in message):
            self.has_info = True
        elif kind == "device_msg":
            if len(self.payloads) < MOST_PAYLOADS:
                self.payloads.append(message.get("payload"))
        elif "error" in message:
            self.error = str(message["error"])

    async def each_payload(self) -> AsyncIterator[Any]:
        """The payloads from the first on, until the connection ends."""
        number = 0
        while True:
            while number < len(self.payloads):
                yield self.payloads[number]
                number += 1
            if self.end:
                return
            self._more.clear()
            await self._more.wait()

    async def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            await closed(self._connection)
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader


def ice_servers_of(servers: list[Any], now: float) -> tuple[tuple[str, ...], bool, tuple[float, ...]]:
    """Returns the URLs of ICE servers, whether one has a plain string, and the seconds since credentials expired."""
    found: list[str] = []
    strings, expired = False, []
    for server in servers:
        if not isinstance(server, dict):
            continue
        urls = server.get("urls", ())
        strings = strings or isinstance(urls, str)
        all_urls = [urls] if isinstance(urls, str) else urls if isinstance(urls, list) else []
        found += [url for url in all_urls if isinstance(url, str)]
        username = server.get("username")
        time_of = TurnServer("", username if isinstance(username, str) else None, None).expires
        if time_of is not None and time_of < now:
            expired.append(now - time_of)
    return tuple(found), strings, tuple(expired)


def type_of(payload: Any) -> str:
    """Returns the type of a payload, for texts."""
    kind = payload.get("type") if isinstance(payload, dict) else None
    return kind if isinstance(kind, str) else "a payload without a type"


def candidate_text(payload: Any) -> tuple[str, str, int] | None:
    """Returns mid, index and text of a payload with an ICE candidate; None if it is none.

    A device sends `{"mid", "mLineIndex", "candidate": TEXT}`; the current one may send the form of a browser.
    """
    if not isinstance(payload, dict) or payload.get("type") != "ice-candidate":
        return None
    inner = payload.get("candidate")
    source = inner if isinstance(inner, dict) else payload
    text, mid = source.get("candidate"), source.get("sdpMid", source.get("mid", "0"))
    index = source.get("sdpMLineIndex", source.get("mLineIndex", 0))
    if not isinstance(text, str) or not isinstance(mid, str) or not isinstance(index, int):
        return None
    return mid, text, index


def media_of(sdp: str) -> tuple[str, ...]:
    """Returns the kinds of the media sections of an SDP."""
    return tuple(re.findall(r"^m=(\w+)", sdp, re.MULTILINE))
