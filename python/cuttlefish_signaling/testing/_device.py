"""A fake Cuttlefish device, and the device info of a real one."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from .._config import check_seconds
from ..errors import ConfigError, PeerClosedError, PeerRefusedError, UnreachableError, WaitTimeoutError
from ._peer import BROKEN, AsyncPeer, Endpoint, Message, _refused

MAX_BACKOFF = 60.0
PROFILES = ("current", "legacy")


def device_info(
    device_id: str = "cvd-1", *, displays: int = 1, width: int = 720, height: int = 1280, **more: Any
) -> dict[str, Any]:
    """The device info of a Cuttlefish phone: displays, audio streams, hardware, buttons; with `more` on top."""
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


def pauses(first: float) -> Iterator[float]:
    """Seconds before each attempt to come back: each twice the one before, up to a minute (PROTOCOL.md 6)."""
    while True:
        yield first
        first = min(first * 2, MAX_BACKOFF)


class AsyncFakeDevice(AsyncPeer):
    """A device, as far as signaling goes: `async with AsyncFakeDevice(server, "cvd-1") as device: ...`.

    It does what the real ones do: sends the server's address as `Origin`,
    pings every 3 s and hangs up after 10 s without a pong, and takes an error, or a message that it does not know,
    for a broken connection.

    Args:
        server: A `SignalingServer`, or a URL.
        device_id: What it registers as.
        info: Its device info; `device_info(device_id)` where nothing is said.
        profile: `"current"` (since Android 13): after a connection that broke it comes back, first after `backoff`
            seconds, then after twice that, and so on. `"legacy"`: it does not.
        backoff: Seconds.
        tolerant: Hears errors and goes on, as no real device does.
        headers: More headers for its request.
        tls: What to verify the server's certificate with; that of a `SignalingServer` is known.
        timeout: Seconds it may take to be let in.
    """

    _path = "/register_device"
    _ping_interval = 3.0

    def __init__(
        self,
        server: Endpoint | str,
        device_id: str = "cvd-1",
        *,
        info: Any = ...,
        profile: Literal["current", "legacy"] = "current",
        backoff: float = 1.0,
        tolerant: bool = False,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = 5.0,
    ) -> None:
        if profile not in PROFILES:
            raise ConfigError("profile", f"must be one of {', '.join(map(repr, PROFILES))}, got {profile!r}")
        check_seconds("backoff", backoff)
        self._name = f"device {device_id!r}"
        super().__init__(server, headers=headers, tls=tls, timeout=timeout)
        self.device_id = device_id
        self.info = device_info(str(device_id)) if info is ... else info
        self.profile = profile
        self.reconnects = 0
        """How often it came back."""
        self._backoff = backoff
        self._tolerant = tolerant
        self._clients: set[int] = set()

    def _origin(self) -> str | None:
        scheme, _, rest = self._url.partition("://")
        return f"{'https' if scheme == 'wss' else 'http'}://{rest.split('/', 1)[0]}"

    async def _introduce(self) -> None:
        await self._say(message_type="register", device_id=self.device_id, device_info=self.info)
        try:
            await self.recv(self._timeout, message_type="config")
        except PeerClosedError:
            raise _refused(self, f"register {self.device_id!r}") from None

    @property
    def clients(self) -> list[int]:
        """The clients that have sent something, and are not gone."""
        return sorted(self._clients)

    async def _react(self, message: Message) -> None:
        client_id = message.client_id
        if message.message_type == "client_msg" and client_id is not None:
            self._clients.add(client_id)
        elif message.message_type == "client_disconnected" and client_id is not None:
            self._clients.discard(client_id)
        elif message.message_type not in ("config", "client_msg", "client_disconnected") and not self._tolerant:
            await self._hang_up(message)

    async def _hang_up(self, message: Message) -> None:
        if self._socket is not None:
            why = "broken message" if message.message_type == BROKEN else "error"
            await self._socket.close(1002 if message.message_type == BROKEN else 1000, why)

    def _lost(self) -> bool:
        self._clients.clear()
        comes_back = self.profile == "current" and self.config is not None
        if comes_back:
            self._spawn(self._come_back())
        return comes_back

    async def _come_back(self) -> None:
        for pause in pauses(self._backoff):
            await asyncio.sleep(pause)
            try:
                # Errors of this attempt end this attempt.
                await self._open()
                await self._introduce()
            except (PeerRefusedError, PeerClosedError, UnreachableError, WaitTimeoutError):
                continue
            else:
                self.reconnects += 1
                self._news.set()
                return

    async def wait_reconnected(self, times: int = 1, timeout: float | None = 5.0) -> None:
        """Waits until it has come back so often, all in all. Raises WaitTimeoutError."""
        check_seconds("timeout", timeout, optional=True)
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while self.reconnects < times:
            self._news.clear()
            left = None if deadline is None else deadline - loop.time()
            if left is not None and left <= 0:
                raise WaitTimeoutError(
                    f"{self._name} waited {timeout:g} s to come back {times} times; it has {self.reconnects} times"
                )
            try:
                await asyncio.wait_for(self._news.wait(), left)
            except asyncio.TimeoutError:
                pass

    async def send(self, payload: Any, client_id: int | None = None) -> None:
        """Forwards a payload (anything JSON can say) to a client; with one client alone, to that.

        Raises PeerClosedError, and ConfigError where it is not clear which client is meant.
        """
        if client_id is None:
            if len(self._clients) != 1:
                known = f"known are {self.clients}" if self._clients else "none has sent anything yet"
                raise ConfigError("client_id", f"say to which client; {known}")
            client_id = next(iter(self._clients))
        await self._say(message_type="forward", client_id=client_id, payload=payload)

    async def _reply(self, message: Message, payload: Any) -> None:
        await self.send(payload, message.client_id)
