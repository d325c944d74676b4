"""`RemoteServer`: a server of another process, through its control API."""

from __future__ import annotations

import json
import os
import ssl
import threading
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from ._annotations import late_annotations
from ._checks import check_integer, check_seconds
from ._config import IceSource
from ._hook_failure import HookFailure
from ._hook_types import IceServers
from ._remote.address import Address, checked_token, read_token
from ._remote.run import RemoteRun
from ._server_peers import ServerPeers
from .errors import ConfigError, HookError, JournalOffError, NotOursError, NotRunningError, UnreachableError

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._tls import Tls


class RemoteServer(ServerPeers):
    """A server of another process that has a control API (`serve --control-api`). docs/control-api.md describes it.

        with RemoteServer("http://127.0.0.1:9000", token_file="control.token") as server:
            server.wait_for_device("cvd-1")
            with server.faults.drop(type="offer"):
                ...
            server.journal.expect("request-offer")

    Its peers, waits, counters, journal, faults and clock are those of a `SignalingServer`. Fake peers take it as their
    server. Hooks and settings belong to the other process.

    Args:
        control_url: The address of the control API: `https://HOST:PORT`, `unix:PATH` or, on this machine,
            `http://127.0.0.1:PORT`.
        token: The token of the API.
        token_file: A file with the token, in the place of `token`.
        ssl_context: Verifies the certificate of an `https` address. None: the authorities of the system do; on this
            machine's loopback the certificate is not verified.
        timeout: Seconds to wait for an answer.

    Raises:
        UnreachableError: No server answers there, or it has no control API of this version.
        ControlError: The token is missing or wrong. The error has the remedy.
        ConfigError: An argument is invalid, or the file of the token cannot be read.
    """

    def __init__(
        self,
        control_url: str,
        *,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        timeout: float = 10.0,
    ) -> None:
        check_seconds("timeout", timeout, zero=False)
        if ssl_context is not None and not isinstance(ssl_context, ssl.SSLContext):
            raise ConfigError("ssl_context", f"must be an ssl.SSLContext or None, got {ssl_context!r}")
        if token is not None and token_file is not None:
            raise ConfigError("token_file", "contradicts token: give one of them")
        self._address = Address.of("control_url", control_url)
        if token is not None:
            token = checked_token("token", token)
        elif token_file is not None:
            token = read_token("token_file", token_file)
        if token is not None:
            self._address.check_secrecy("control_url")
        self._token, self._context, self._timeout = token, ssl_context, timeout
        self._lock = threading.Lock()
        self._run = RemoteRun(self._address, token, ssl_context, timeout)
        self.ssl_context: ssl.SSLContext | None = ssl_context
        """Verifies the server's certificate, for fake peers as well."""
        self.tls: Tls | None = None
        """None: the server's certificate is not known here."""

    # The server -------------------------------------------------------------------------------------------------------

    @property
    def control_url(self) -> str:
        """The address of the control API."""
        return self._address.url

    @property
    def urls(self) -> list[str]:
        """The URLs of all listeners of the server, as it knows them."""
        return list(self._running().facts["listeners"])

    @property
    def url(self) -> str:
        """The URL of the first listener with a port."""
        for url in self.urls:
            if not url.startswith("unix:"):
                return url
        raise ConfigError("listen", "has no address with a port, so the server is reached at its `urls` only")

    @property
    def device_url(self) -> str:
        """The URL at which devices register."""
        return f"ws{self.url.removeprefix('http')}/register_device"

    @property
    def client_url(self) -> str:
        """The URL at which clients connect."""
        return f"ws{self.url.removeprefix('http')}/connect_client"

    @property
    def version(self) -> str:
        """The version of cuttlefish-signaling that the server has."""
        return str(self._running().facts["version"])

    @property
    def is_running(self) -> bool:
        """Whether the server answers, since its start or since another one."""
        try:
            self._running().native.changes()
        except (UnreachableError, NotRunningError):
            return False
        return True

    def _running(self) -> RemoteRun:
        """Returns the run: another one once the server was started again."""
        with self._lock:
            if self._run.connection.is_of_the_past:
                self._run = RemoteRun(self._address, self._token, self._context, self._timeout)
            return self._run

    def _latest(self) -> RemoteRun:
        return self._running()

    @property
    def _last_run(self) -> RemoteRun:
        return self._running()

    @property
    def _writes_journal(self) -> bool:
        return bool(self._running().facts["journal"])

    def _check_journal(self) -> None:
        if not self._writes_journal:
            raise JournalOffError(f"the server at {self.control_url} writes no journal: start it with --journal")

    def _check_cluster(self) -> None:
        if not self._running().facts["cluster"]:
            raise ConfigError("cluster", f"is not set: the server at {self.control_url} is no node of a cluster")

    @property
    def hook_errors(self) -> list[HookFailure]:
        """The last 100 hooks that failed, oldest first. Their exceptions are texts."""
        return [
            HookFailure(one["hook"], one["device_id"], one["peer"], HookError(one["error"]), one.get("at", 0.0))
            for one in self._running().errors()[0]
        ]

    @property
    def server_errors(self) -> list[str]:
        """The last 100 errors that the server logged, oldest first."""
        return self._running().errors()[1]

    # Settings ---------------------------------------------------------------------------------------------------------

    def set_ice_servers(self, ice_servers: IceServers) -> None:
        """Replaces the ICE servers, as `SignalingServer.set_ice_servers`, until the server is reloaded or restarted.

        Raises:
            ConfigError: An entry is not allowed.
            NotOursError: It is a `TurnRest`, an `IceCommand` or a function, which belong to the other process.
        """
        source = IceSource.of(ice_servers)
        if not isinstance(source.native, str):
            raise NotOursError(
                "set_ice_servers takes a list here: a TurnRest, an IceCommand or a function belongs to the server"
            )
        self._running().connection.request("PUT", "/ice_servers", body={"ice_servers": json.loads(source.native)})

    def reload(self) -> list[str]:
        """Lets the server read its settings and their files again, as SIGHUP does. Connections stay.

        Returns:
            The names of the settings that have changed.

        Raises:
            ConfigError: A setting is invalid. All old ones stay in effect.
        """
        answer = self._reload()
        if fixed := answer["restart_required"]:
            text = f"the server needs a restart for {', '.join(fixed)}, which stay as they are"
            warnings.warn(text, RuntimeWarning, stacklevel=2)
        return list(answer["changed"])

    def _reload(self) -> dict[str, Any]:
        answer: dict[str, Any] = self._running().connection.request("POST", "/reload", wait=RELOAD_TIMEOUT)
        return answer

    # Watching ---------------------------------------------------------------------------------------------------------

    def watch(
        self, *, device: str | None = None, messages: bool | None = None, after: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yields devices, clients, nodes and messages as they come and go, forever. docs/control-api.md has the events.

        Args:
            device: Only those of this device.
            messages: Whether there are messages. None: if the server has a journal.
            after: Also the messages behind the entry with this number.
        """
        if after is not None:
            check_integer("after", after, 0, 2**53)
        query = {"device": device, "messages": messages, "after": after}
        for _, event in self._running().lines("/watch", query):
            yield event

    # The end ----------------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Disarms all faults that were armed over the control API, and lets a frozen clock run."""
        self._running().connection.request("POST", "/reset")

    def close(self) -> None:
        """Disarms the faults that were armed here, lets the clock run on if it was frozen here, and disconnects.

        The server runs on, and a later call connects again.
        """
        run = self._run
        try:
            run.release()
        except (UnreachableError, NotRunningError):
            pass  # The server has ended, and its faults with it.
        run.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> NoReturn:
        from ._server import SignalingServer

        if name.startswith("_") or not hasattr(SignalingServer, name):
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        raise NotOursError(f"{name} is not available: the server at {self.control_url} runs in another process")

    def __repr__(self) -> str:
        return f"<RemoteServer {self.control_url}>"


RELOAD_TIMEOUT = 120.0
"""Seconds for a reload, which loads hooks."""


late_annotations(globals())
