"""The addresses of a server that runs: its URLs, for peers, people and Prometheus."""

from __future__ import annotations

from ._annotations import late_annotations
from ._live_settings import LiveSettings
from .errors import ConfigError

TYPE_CHECKING = False

if TYPE_CHECKING:
    from ._listen import Listener

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class ServerAddresses(LiveSettings):
    """A server whose addresses are known once it runs."""

    @property
    def host(self) -> str:
        """The address that the server listens on: that of its first listener with a port."""
        return self._first().place

    @property
    def port(self) -> int:
        """The port that the server listens on: that of its first listener with a port."""
        return self._first().number

    @property
    def url(self) -> str:
        """`http://127.0.0.1:43210`, or `https:`. For a server on all addresses it has the loopback address.

        It is that of the first listener with a port. `urls` has all.
        """
        return self._url("http", "")

    @property
    def urls(self) -> list[str]:
        """The URLs of all listeners, like `https://192.168.7.2:1443` and `unix:/run/signaling.sock`.

        A listener on all addresses has one URL for each address of the machine, loopback last.
        """
        from ._listen import urls

        return urls(self._running().native.listeners)

    @property
    def metrics_urls(self) -> list[str]:
        """The URLs of the metrics that need no token, like `http://127.0.0.1:9464/metrics`, in the form of `urls`.

        That of a Unix socket is the path of the socket, `unix:/run/metrics.sock`.
        """
        from ._listen import urls

        found = urls(self._running().native.metrics_listeners)
        return [url if url.startswith("unix:") else f"{url}/metrics" for url in found]

    @property
    def control_urls(self) -> list[str]:
        """The URLs of the control API, like `http://127.0.0.1:43211` and `unix:/run/control.sock`, as `urls`."""
        from ._listen import urls

        return urls(self._running().native.control_listeners)

    @property
    def control_url(self) -> str | None:
        """The first of them, with the loopback address for a listener on all addresses; None without a control API."""
        from ._listen import Listener

        for listener in map(Listener._make, self._running().native.control_listeners):
            return listener._replace(place=_reachable(listener.place)).url
        return None

    @property
    def control_token(self) -> str | None:
        """The token of the control API; None without one."""
        token: str | None = self._settings.native["control_token"]
        return token

    @property
    def device_url(self) -> str:
        """The URL at which devices register: `ws://127.0.0.1:43210/register_device`, or `wss:`."""
        return self._url("ws", "/register_device")

    @property
    def client_url(self) -> str:
        """The URL at which clients connect: `ws://127.0.0.1:43210/connect_client`, or `wss:`."""
        return self._url("ws", "/connect_client")

    def _url(self, scheme: str, path: str) -> str:
        from ._listen import url

        first = self._first()
        return url(scheme + "s" * first.is_tls, _reachable(first.place), first.number) + path

    def _first(self) -> Listener:
        """The first listener with a port."""
        for listener in self._listeners():
            if listener.scheme != "unix":
                return listener
        raise ConfigError("listen", "has no address with a port, so the server is reached at its `urls` only")

    def _reprs(self) -> list[str]:
        """The listeners, with loopback for all addresses."""
        return [one._replace(place=_reachable(one.place)).url for one in self._listeners()]

    def _listeners(self) -> list[Listener]:
        from ._listen import Listener

        return [Listener._make(listener) for listener in self._running().native.listeners]

    def _reachable_host(self) -> str:
        return _reachable(self.host)


def _reachable(host: str) -> str:
    """The address of this machine at which a listener on this address is reached."""
    return _LOOPBACK.get(host, host)


late_annotations(globals())
