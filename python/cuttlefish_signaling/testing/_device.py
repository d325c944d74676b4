"""A fake Cuttlefish device, and the device info of a Cuttlefish phone."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from websockets.exceptions import ConnectionClosed

from .._annotations import late_annotations
from .._checks import check_seconds
from .._raw_json import RawJson, write
from .._timeouts import DEFAULT_TIMEOUT, seconds_of
from ..errors import (
    ConfigError,
    DeviceLostError,
    PeerClosedError,
    PeerRefusedError,
    UnreachableError,
    WaitTimeoutError,
)
from ._endpoint import Endpoint
from ._message import BROKEN, Message
from ._peer import AsyncPeer
from ._texts import refused_by_server

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

Profile: TypeAlias = Literal["legacy", "current"] | None
"""The real device whose behavior a fake device has; None for a program that is not a Cuttlefish device."""

PROFILES = (None, "legacy", "current")
SUBPROTOCOLS = ("webrtc-operator",)
MAX_BACKOFF = 60.0
MAX_RECONNECTS = 4
"""The maximum number of connections and scheduled reconnects. A real reconnect storm has no bound; a test needs one."""
KNOWN = ("config", "client_msg", "client_disconnected")


def device_info(
    device_id: str = "cvd-1", *, displays: int = 1, width: int = 720, height: int = 1280, **more: Any
) -> dict[str, Any]:
    """The device info of a Cuttlefish phone: displays, audio, hardware and buttons. `more` adds or replaces keys."""
    info: dict[str, Any] = {
        "displays": [
            {"stream_id": f"display_{number}", "x_res": width, "y_res": height, "dpi": 320, "is_touch": True}
            for number in range(displays)
        ],
        "audio_streams": [{"stream_id": "audio"}],
        "hardware": {
            "CPUs": 4,
            "RAM": "4096 mb",
            "GPU Mode": "guest_swiftshader",
            "VM Manager": "crosvm",
            "Device ID": device_id,
        },
        "custom_control_panel_buttons": [
            {
                "command": "device_state",
                "title": "Device State Toggle",
                "icon_name": "smartphone",
                "device_states": [{"lid_switch_open": True, "hinge_angle_value": 0}, {"lid_switch_open": False}],
            }
        ],
        "mouse_enabled": False,
    }
    return {**info, **more}


class AsyncFakeDevice(AsyncPeer):
    """A device for signaling: `async with AsyncFakeDevice(server, "cvd-1") as device: ...`.

    The device sends the server's address as `Origin`, pings every 3 s, and aborts the connection after 10 s without a
    pong. Without a profile it is a program that is not a Cuttlefish device: it offers no subprotocol, continues after
    an error, and does not reconnect.

    With a profile it behaves like a real device. It offers the subprotocol `webrtc-operator`, and keeps one WebRTC peer
    per client when it reconnects. It reconnects `backoff` seconds after a close; each failed attempt doubles the delay,
    up to a minute. It closes a connection on which it receives an unknown message. Each error schedules one more
    reconnect, and so does each close. After both, a `"legacy"` device is lost forever, and a `"current"` device opens a
    second connection, which starts a reconnect storm.

    Args:
        server: A `SignalingServer`, an `AttachedServer` or a URL.
        device_id: The id to register.
        info: The device info, a JSON value or `RawJson`; by default, `device_info(device_id)`.
        profile: None, `"legacy"` (Android's own tree, through Android 15) or `"current"` (today's public repository).
        backoff: Seconds between a close and the reconnect.
        tolerant: With a profile, ignores errors and unknown messages, which no real device does. No effect without one.
        headers: Additional headers of the request.
        tls: Verifies the server's certificate. By default, the certificate of a `SignalingServer` is trusted.
        timeout: Seconds for the connection, and again for the registration.
    """

    _path = "/register_device"
    _ping_interval = 3.0

    def __init__(
        self,
        server: Endpoint | str,
        device_id: str = "cvd-1",
        *,
        info: Any = ...,
        profile: Profile = None,
        backoff: float = 1.0,
        tolerant: bool = False,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        if profile not in PROFILES:
            raise ConfigError("profile", f"must be one of {', '.join(map(repr, PROFILES))}, got {profile!r}")
        check_seconds("backoff", backoff)
        self._name = f"device {device_id!r}"
        super().__init__(server, headers=headers, tls=tls, timeout=timeout)
        self.device_id = device_id
        self._info_json = info if isinstance(info, RawJson) else None
        self.info: Any = device_info(str(device_id)) if info is ... else info.value if self._info_json else info
        self.profile: Profile = profile
        self._subprotocols = () if profile is None else SUBPROTOCOLS
        self._backoff = backoff
        self._tolerant = tolerant or profile is None
        self._reset()

    def _reset(self) -> None:
        """Sets the state of a device that has just booted."""
        self.reconnects: int = 0
        """The number of registrations after the first."""
        self.extra_connections: int = 0
        """The number of connections that were opened beside an open one. More than 0 is a reconnect storm."""
        self.collisions: list[int] = []
        """The client ids whose messages went to a WebRTC peer of an earlier registration.

        The server gave an old number to a new client, which a real device cannot serve."""
        self.lost_reason: str | None = None
        """The reason why the device is lost; None if it is not."""
        self._peers: dict[int, int] = {}  # By client id: the registration, from 1, in which the peer was created.
        self._registrations = 0
        self._registered: set[ClientConnection] = set()
        self._scheduled: list[str] = []  # The cause of each scheduled reconnect.
        self._reconnect_delay = self._backoff
        self._extra_cause = ""

    async def _connect(self) -> None:
        self._reset()
        await super()._connect()

    def _origin(self) -> str | None:
        scheme, _, rest = self._url.partition("://")
        return f"{'https' if scheme == 'wss' else 'http'}://{rest.split('/', 1)[0]}"

    async def _handshake(self) -> None:
        connection = self._socket
        assert connection is not None

        def check() -> bool | None:
            if not self._registrations and connection not in self._connections:
                raise refused_by_server(self, f"register {self.device_id!r}")
            return self._registrations > 0 or None

        await self._register(connection)
        what = f"waited {self._timeout:g} s for a message 'config'"
        await self._wait_until(check, self._timeout, lambda: f"{what}; {self._inbox.summary()}")

    async def _register(self, connection: ClientConnection) -> None:
        info = self._info_json or write(self.info, "info")
        message = {"message_type": "register", "device_id": self.device_id, "device_info": info}
        with suppress(ConnectionClosed):
            await connection.send(write(message, "device_id"))

    @property
    def clients(self) -> list[int]:
        """The clients that have sent a payload and have not disconnected. A profile keeps them over a reconnect."""
        return sorted(self._peers)

    @property
    def is_lost(self) -> bool:
        """Whether the device is lost forever: a `"legacy"` device that received an error and a close."""
        return self.lost_reason is not None

    @property
    def is_open(self) -> bool:
        """Whether the peer is connected."""
        return super().is_open and not self.is_lost

    def _creates_peer(self, message_type: str, client_id: Any) -> bool:
        if message_type != "client_msg" or not isinstance(client_id, int) or client_id in self._peers:
            return False
        self._peers[client_id] = self._registrations
        return True

    async def _update_connections(self, message: Message, connection: ClientConnection) -> None:
        kind = message.message_type
        client_id = message.client_id if isinstance(message.client_id, int) else None
        if kind == "config" and connection not in self._registered:
            self._mark_registered(connection)
            self._inbox.remove(message)
        elif kind == "client_msg" and client_id is not None:
            self._count_collision(client_id)
        elif kind == "client_disconnected" and client_id is not None:
            self._peers.pop(client_id, None)
        elif kind == "error" and not self._tolerant and self._registrations:
            self._schedule(f"the error {message.error!r}")
        elif kind not in (*KNOWN, "error") and not self._tolerant:
            await self._close_connection(connection, *((1002, "broken message") if kind == BROKEN else (1000, "error")))

    def _count_collision(self, client_id: int) -> None:
        # A client counts once: from now on, the peer belongs to the new client.
        if self._peers[client_id] < self._registrations:
            self._peers[client_id] = self._registrations
            self.collisions.append(client_id)

    def _mark_registered(self, connection: ClientConnection) -> None:
        self._registered.add(connection)
        self._registrations += 1
        self.reconnects = self._registrations - 1

    # Reconnects -------------------------------------------------------------------------------------------------------

    def _reconnects_after(self, connection: ClientConnection) -> bool:
        self._registered.discard(connection)
        if self.profile is None or not self._registrations or self.is_lost:
            return False
        code, reason = connection.close_code, connection.close_reason
        self._schedule(
            "a disconnect without a close frame" if code == 1006 else f"the close [{code}] {reason!r}", ended=True
        )
        return not self.is_lost

    def _schedule(self, cause: str, *, ended: bool = False, failed: bool = False) -> None:
        """Schedules one more reconnect, in addition to the scheduled ones."""
        self._reconnect_delay = min(self._reconnect_delay * 2, MAX_BACKOFF) if failed else self._backoff
        if self.profile == "legacy" and (self._scheduled or (ended and self._connections)):
            first = self._scheduled[0] if self._scheduled else f"{self._extra_cause}, a second connection"
            self._mark_lost(f"it had {first}, then {cause}; a real legacy device does not reconnect after that")
        elif len(self._scheduled) + len(self._connections) < MAX_RECONNECTS:
            self._scheduled.append(cause)
            self._spawn(self._reconnect(cause, self._reconnect_delay))

    def _mark_lost(self, reason: str) -> None:
        self.lost_reason = f"{self._name} is lost: {reason}"
        self._ended = True
        for connection in self._connections:
            connection.transport.abort()
        self._changed.set()

    async def _reconnect(self, cause: str, wait: float) -> None:
        await asyncio.sleep(wait)
        # A process that hangs reconnects only after it continues.
        await self._wait_until(lambda: not self._stalled or None, None, lambda: "")
        if self.is_lost:
            return
        try:
            connection = await self._open()
        except PeerClosedError:
            return
        except (PeerRefusedError, UnreachableError, WaitTimeoutError):
            self._scheduled.remove(cause)
            self._schedule(cause, failed=True)
            return
        self._scheduled.remove(cause)
        if self.is_lost:
            connection.transport.abort()
        if len(self._connections) > 1:
            self.extra_connections += 1
            self._extra_cause = cause
        await self._register(connection)

    async def wait_reconnected(self, times: int = 1, timeout: float | None = DEFAULT_TIMEOUT) -> None:
        """Waits until the device has reconnected `times` times since its start.

        Raises:
            WaitTimeoutError: It did not reconnect that often in time.
            DeviceLostError: The device is lost.
            PeerClosedError: The device is closed.
            ConfigError: The device has no profile, so it does not reconnect.
        """
        timeout = seconds_of(timeout)
        if self.profile is None:
            raise ConfigError("profile", "a device without a profile does not reconnect; pass 'legacy' or 'current'")

        def check() -> bool | None:
            if self.is_lost or (self._ended and self.reconnects < times):
                raise self._closed("cannot reconnect")
            return self.reconnects >= times or None

        def failure() -> str:
            return f"waited {timeout:g} s for reconnect {times}; reconnects so far: {self.reconnects}"

        await self._wait_until(check, timeout, failure)

    def _closed(self, what: str) -> PeerClosedError:
        if self.lost_reason is None:
            return super()._closed(what)
        error = self.errors[-1] if self.errors else None
        return DeviceLostError(self.lost_reason, error=error, code=self.close_code, reason=self.close_reason)

    async def send(self, payload: Any, client_id: int | None = None) -> None:
        """Forwards a payload (any JSON value, or `RawJson`) to a client. `client_id` is optional with one client.

        Raises PeerClosedError, and ConfigError if `client_id` is missing and `clients` has none or more than one.
        """
        if client_id is None:
            if len(self._peers) != 1:
                known = f"clients: {self.clients}" if self._peers else "no client has sent a payload yet"
                raise ConfigError("client_id", f"must be given unless there is exactly one client; {known}")
            client_id = next(iter(self._peers))
        await self._send_message(message_type="forward", client_id=client_id, payload=payload)

    async def _reply(self, message: Message, payload: Any) -> None:
        await self.send(payload, message.client_id)


late_annotations(globals())
