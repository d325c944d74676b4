"""A signaling server that runs outside this process."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote, urlsplit

from .._annotations import late_annotations
from .._checks import check_seconds
from .._field_docs import with_field_docs
from .._loops import running_loop, stood_still
from .._models import Node
from .._timeouts import DEFAULT_TIMEOUT, seconds_of
from ..errors import ConfigError, NotOursError, UnreachableError, WaitTimeoutError
from ._controlled import Controlled

if TYPE_CHECKING:
    from typing_extensions import Self

    from .._models import Device
    from .._remote_server import RemoteServer
    from .._tls import Tls

POLL_INTERVAL = 0.02
"""Seconds between two requests for the list of devices: a server outside this process sends no notification."""

OWN = ("host", "port", "tls", "ssl_context", "control")
"""Attributes that have the names of settings, and can be set."""


@with_field_docs
@dataclass(frozen=True)
class AttachedDevice:
    """A device that is registered with a server outside this process, as the server lists it.

    The reference server lists the id and the device info. Other attributes of a `Device` are known to a server of this
    process only, and raise NotOursError.
    """

    device_id: str
    """The id that it registered."""
    info: Any = field(repr=False)
    """Its device info, parsed."""
    group_name: str = ""
    """The group it was pre-registered in, or empty."""
    owner: str = ""
    """The owner named in the pre-registration, or empty."""
    name: str = ""
    """The name given in the pre-registration, or empty."""
    adb_port: int = 0
    """The TCP port of its adb, given in the pre-registration, or 0."""

    def __getattr__(self, name: str) -> NoReturn:
        from .._models import Device

        if name not in Device.__dataclass_fields__:
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        raise NotOursError(
            f"device.{name} is not available: the server runs outside this process (--signaling-url), "
            "and its list of devices does not have it"
        )


class AttachedServer(Controlled):
    """A server that runs already, this one or the reference server. Its URLs and its devices are available.

    With the control API of a server of this package, its journal, faults, clock, clients and counters are as well, as
    those of a `SignalingServer`.

    Args:
        url: `http://host:port`, or `https:`, `ws:`, `wss:`.
        ssl_context: Verifies the certificate. By default, the system's authorities do.
        timeout: Seconds to wait for an answer.
        control: The control API of the server. It is closed at the end of a `with`.

    Raises:
        UnreachableError: No server answers at the URL, or it is not a signaling server.
        ConfigError: The URL is invalid.
    """

    def __init__(
        self,
        url: str,
        *,
        ssl_context: ssl.SSLContext | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        control: RemoteServer | None = None,
    ) -> None:
        timeout = seconds_of(timeout)
        check_seconds("timeout", timeout, zero=False)
        try:
            parts = urlsplit(url)
            secure = {"http": False, "ws": False, "https": True, "wss": True}[parts.scheme]
            port = parts.port
        except (KeyError, ValueError, AttributeError, TypeError):
            raise ConfigError("signaling_url", f"must be a URL with http, https, ws or wss, got {url!r}") from None
        if not parts.hostname:
            raise ConfigError("signaling_url", f"must be a URL with a host, got {url!r}")
        self._authority = parts.netloc + parts.path.rstrip("/")
        self._secure = secure
        self._timeout = timeout
        self.control = control
        self.host: str = parts.hostname
        self.port: int = port or (443 if secure else 80)
        default = ssl.create_default_context() if secure and ssl_context is None else None
        self.ssl_context: ssl.SSLContext | None = (ssl_context or default) if secure else None
        """Verifies the server's certificate; None without TLS."""
        self.tls: Tls | None = None
        """None: the server's certificate is not known here."""
        handlers: list[Any] = [urllib.request.ProxyHandler({})]
        if self.ssl_context is not None:
            handlers.append(urllib.request.HTTPSHandler(context=self.ssl_context))
        self._opener = urllib.request.build_opener(*handlers)
        self.device_ids()

    @property
    def url(self) -> str:
        """The base URL: `http://127.0.0.1:8443`, or with `https:`."""
        return f"{'https' if self._secure else 'http'}://{self._authority}"

    @property
    def device_url(self) -> str:
        """The WebSocket URL for devices."""
        return f"{'wss' if self._secure else 'ws'}://{self._authority}/register_device"

    @property
    def client_url(self) -> str:
        """The WebSocket URL for clients."""
        return f"{'wss' if self._secure else 'ws'}://{self._authority}/connect_client"

    @property
    def is_running(self) -> bool:
        """Whether the server answers."""
        if self.control is not None:
            return self.control.is_running
        try:
            self.device_ids()
        except UnreachableError:
            return False
        return True

    def device_ids(self) -> list[str]:
        """The ids of the registered devices. Raises UnreachableError."""
        devices = self._get("/devices?format=ids")
        try:
            return sorted(device if isinstance(device, str) else device["device_id"] for device in devices)
        except (TypeError, KeyError) as error:
            raise UnreachableError(
                f"{self.url} is not a signaling server: GET /devices has an unknown format"
            ) from error

    def devices(self) -> list[AttachedDevice] | list[Device]:
        """The devices that are registered now, sorted by id. Raises UnreachableError.

        With the control API they are those of a `SignalingServer`. Without it, there is one request for the ids, and
        one for each device; a device that leaves meanwhile is left out.
        """
        if self.control is not None:
            return self.control.devices()
        found = ((device_id, self._get(f"/devices/{quote(device_id, '')}")) for device_id in self.device_ids())
        return [_device_of(device_id, answer) for device_id, answer in found if answer is not None]

    def nodes(self) -> list[Node]:
        """The nodes of its cluster, sorted by name; [] without a cluster. Raises UnreachableError."""
        if self.control is not None:
            return self.control.nodes()
        try:
            return [Node(**node) for node in self._get("/nodes")]
        except TypeError as error:
            raise UnreachableError(f"{self.url} has another form of GET /nodes: {error}") from error

    def _get(self, path: str) -> Any:
        """The JSON of an answer; None for 404 of a device."""
        try:
            with self._opener.open(f"{self.url}{path}", timeout=self._timeout) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            if error.code == 404 and path.startswith("/devices/"):
                return None
            status = f"{error.code} {error.reason}"
            where = path.partition("?")[0]
            raise UnreachableError(f"{self.url} is not a signaling server: GET {where} failed with {status}") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            hint = (
                "; trust its certificate authority with --signaling-ca or ssl_context"
                if isinstance(reason, ssl.SSLError)
                else ""
            )
            raise UnreachableError(f"no signaling server answers at {self.url}: {reason}{hint}") from error

    def wait_for_device(self, device_id: str, *, timeout: float | None = DEFAULT_TIMEOUT) -> Device | None:
        """Waits until a device of this id is registered. Raises WaitTimeoutError.

        Returns:
            The device, if the server has a control API, and otherwise None.
        """
        if self.control is not None:
            return self.control.wait_for_device(device_id, timeout=timeout)
        timeout = seconds_of(timeout)
        check_seconds("timeout", timeout, optional=True)
        deadline = None if timeout is None else time.monotonic() + timeout
        while device_id not in (ids := self.device_ids()):
            if deadline is not None and time.monotonic() >= deadline:
                raise _timeout_error(device_id, timeout, ids, stood_still("wait_for_device_async()"))
            time.sleep(POLL_INTERVAL)
        return None

    async def wait_for_device_async(self, device_id: str, *, timeout: float | None = DEFAULT_TIMEOUT) -> Device | None:
        """`wait_for_device()` for coroutines."""
        if self.control is not None:
            return await self.control.wait_for_device_async(device_id, timeout=timeout)
        timeout = seconds_of(timeout)
        check_seconds("timeout", timeout, optional=True)
        deadline = None if timeout is None else time.monotonic() + timeout
        loop = running_loop("wait_for_device_async()", "call wait_for_device() in trio.to_thread.run_sync()")
        while device_id not in (ids := await loop.run_in_executor(None, self.device_ids)):
            if deadline is not None and time.monotonic() >= deadline:
                raise _timeout_error(device_id, timeout, ids)
            await asyncio.sleep(POLL_INTERVAL)
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Closes the control API, if there is one. The server ran before, and continues."""
        if self.control is not None:
            self.control.close()

    def __getattr__(self, name: str) -> NoReturn:
        from .._server import SignalingServer

        if name.startswith("_") or not hasattr(SignalingServer, name):
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        raise self._not_available(name)

    def _not_available(self, name: str) -> NotOursError:
        hint = ", or with --signaling-control" if hasattr(Controlled, name) else ""
        return NotOursError(
            f"{name} is not available: --signaling-url points at an external server, {self.url}; "
            f"run this test without --signaling-url{hint}"
        )

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_") and name not in OWN:
            from .._settings import KEYWORDS

            if any(row.name == name for row in KEYWORDS):
                raise self._not_available(name)
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        return f"<AttachedServer {self.url}>"


def _device_of(device_id: str, answer: Any) -> AttachedDevice:
    """A device of `GET /devices/ID`. The answer of the reference server is the device info."""
    if not isinstance(answer, dict) or "registration_info" not in answer:
        return AttachedDevice(device_id, answer)
    given = {name: answer[name] for name in ("group_name", "owner", "name", "adb_port") if name in answer}
    return AttachedDevice(device_id, answer["registration_info"], **given)


def _timeout_error(device_id: str, timeout: float | None, ids: list[str], hint: str = "") -> WaitTimeoutError:
    registered = f"registered devices: {', '.join(map(repr, ids))}" if ids else "no device is registered"
    return WaitTimeoutError(f"waited {timeout:g} s for device {device_id!r} to register; {registered}{hint}")


late_annotations(globals())
