"""A signaling server that somebody else runs, as far as it can be used from outside."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from .._config import check_seconds
from ..errors import ConfigError, NotOursError, UnreachableError, WaitTimeoutError

if TYPE_CHECKING:
    from typing_extensions import Self

POLL_INTERVAL = 0.02
"""Seconds between two looks at who is registered: from outside, nobody tells."""


class AttachedServer:
    """A server that runs already, ours or the reference: its URLs, who is registered, and nothing else.

    Args:
        url: `http://host:port`, or `https:`, `ws:`, `wss:`.
        ssl_context: What to verify its certificate with; None are the system's authorities.
        timeout: Seconds it may take to answer.

    Raises:
        UnreachableError: Nobody answers there, or nobody who is a signaling server.
        ConfigError: The URL is none.
    """

    def __init__(self, url: str, *, ssl_context: ssl.SSLContext | None = None, timeout: float = 5.0) -> None:
        check_seconds("timeout", timeout, zero=False)
        try:
            parts = urlsplit(url)
            secure = {"http": False, "ws": False, "https": True, "wss": True}[parts.scheme]
            port = parts.port
        except (KeyError, ValueError, AttributeError):
            raise ConfigError("signaling_url", f"{url!r} is no URL with http, https, ws or wss") from None
        if not parts.hostname:
            raise ConfigError("signaling_url", f"{url!r} names no host")
        self._authority = parts.netloc + parts.path.rstrip("/")
        self._secure = secure
        self._timeout = timeout
        self.host = parts.hostname
        self.port = port or (443 if secure else 80)
        self.ssl_context = (ssl_context or ssl.create_default_context()) if secure else None
        self.tls = None
        handlers: list[Any] = [urllib.request.ProxyHandler({})]
        if self.ssl_context is not None:
            handlers.append(urllib.request.HTTPSHandler(context=self.ssl_context))
        self._opener = urllib.request.build_opener(*handlers)
        self.device_ids()

    @property
    def url(self) -> str:
        """Where it is: `http://127.0.0.1:8443`, or `https:`."""
        return f"{'https' if self._secure else 'http'}://{self._authority}"

    @property
    def device_url(self) -> str:
        """Where devices register."""
        return f"{'wss' if self._secure else 'ws'}://{self._authority}/register_device"

    @property
    def client_url(self) -> str:
        """Where clients connect."""
        return f"{'wss' if self._secure else 'ws'}://{self._authority}/connect_client"

    @property
    def is_running(self) -> bool:
        """Whether it answers."""
        try:
            self.device_ids()
        except UnreachableError:
            return False
        return True

    def device_ids(self) -> list[str]:
        """The devices registered now, by id. Raises UnreachableError."""
        try:
            with self._opener.open(f"{self.url}/devices?format=ids", timeout=self._timeout) as answer:
                devices = json.loads(answer.read())
            return sorted(device if isinstance(device, str) else device["device_id"] for device in devices)
        except urllib.error.HTTPError as error:
            raise UnreachableError(f"{self.url} answers, but GET /devices with {error.code}: {error.reason}") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            hint = "; give its authority with --signaling-ca" if isinstance(reason, ssl.SSLError) else ""
            raise UnreachableError(f"no signaling server answers at {self.url}: {reason}{hint}") from error
        except (TypeError, KeyError) as error:
            raise UnreachableError(f"{self.url} answers, but not as a signaling server does") from error

    def wait_for_device(self, device_id: str, *, timeout: float | None = 5.0) -> None:
        """Waits until a device of this id is registered. Raises WaitTimeoutError."""
        check_seconds("timeout", timeout, optional=True)
        deadline = None if timeout is None else time.monotonic() + timeout
        while device_id not in (ids := self.device_ids()):
            if deadline is not None and time.monotonic() >= deadline:
                raise _timeout_error(device_id, timeout, ids)
            time.sleep(POLL_INTERVAL)

    async def wait_for_device_async(self, device_id: str, *, timeout: float | None = 5.0) -> None:
        """`wait_for_device()` for coroutines."""
        check_seconds("timeout", timeout, optional=True)
        deadline = None if timeout is None else time.monotonic() + timeout
        loop = asyncio.get_running_loop()
        while device_id not in (ids := await loop.run_in_executor(None, self.device_ids)):
            if deadline is not None and time.monotonic() >= deadline:
                raise _timeout_error(device_id, timeout, ids)
            await asyncio.sleep(POLL_INTERVAL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """It was running before, and runs on."""

    def __getattr__(self, name: str) -> NoReturn:
        from .._server import SignalingServer

        if name.startswith("_") or not hasattr(SignalingServer, name):
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        raise NotOursError(
            f"{name} is not to be had: the server at {self.url} runs elsewhere (--signaling-url); "
            "run this test without it, on a server of its own"
        )

    def __repr__(self) -> str:
        return f"<AttachedServer {self.url}>"


def _timeout_error(device_id: str, timeout: float | None, ids: list[str]) -> WaitTimeoutError:
    there = f"registered: {', '.join(map(repr, ids))}" if ids else "no device is registered"
    return WaitTimeoutError(f"waited {timeout:g} s for device {device_id!r} to register; {there}")
