"""`SignalingServer`: the settings of a server, its addresses, its peers and its counters."""

from __future__ import annotations

from ._annotations import late_annotations
from ._limits import DEFAULT_KEEPALIVE, DEFAULT_LIMITS
from ._server_addresses import ServerAddresses
from ._server_peers import ServerPeers
from .errors import ConfigError, JournalOffError

# All else is imported where it is used: a program that starts a server needs few of the modules.
TYPE_CHECKING = False

if TYPE_CHECKING:
    import os
    import socket
    from collections.abc import Iterable
    from typing import Any, Literal

    from ._cluster import Cluster
    from ._hook_failure import HookFailure
    from ._hook_types import Authorize, FilterDeviceInfo, IceServers
    from ._jwt import Jwt
    from ._limits import Keepalive, Limits
    from ._tls import Tls
    from ._upstream import Upstream


class SignalingServer(ServerAddresses, ServerPeers):
    """A signaling server in this process. It runs on threads of its own, and relayed messages never enter Python.

    The defaults are for tests: 127.0.0.1, a free port, plain http, no ICE servers, all peers accepted. Times are in
    seconds.

    Args:
        host: Address or name to listen on. By default other machines cannot reach the server.
        port: Port to listen on. 0: the system chooses a free port, and `port` has its number.
        listen: All addresses to listen on, in the place of `host` and `port`. They share their devices and clients.
            `https` needs a certificate. The file of a `unix` socket has the mode, 0660 by default, and its peers count
            as peers of this machine. (): `host` and `port` count.
        sockets: Sockets that listen already, as systemd passes them. Each takes the place of the one that the server
            would open for a listener or a local socket of the same address. They stay open when the server stops.
        metrics: Addresses at which `GET /metrics` is answered, and nothing else, in the form of `listen`. They ask for
            no token: the numbers have no ids in them. `GET /metrics` of the other listeners stays, for those whom
            `authorize` admits. (): no such address.
        control_api: Addresses of the control API, with which programs read and change the server, in the form of
            `listen`. A Unix socket has the mode 0600 by default. `http` is for addresses of this machine only. See
            docs/control-api.md. (): no control API.
        control_token: Token that each request to the control API needs. None: a random one, which `control_token` has.
        device_socket: Path of a local socket for devices of today's Cuttlefish, like `/run/cuttlefish/operator`. It is
            made with mode 0770. A socket without a server is replaced. None: no such socket.
        control_socket: Path of a local socket on which devices are announced, like `/run/cuttlefish/operator_control`.
            None: no such socket.
        tls: Certificate and key: `Tls.self_signed()`, `Tls.kept_in(...)` or `Tls.from_files(...)`. None: plain http and
            ws.
        tls_check_interval: Time between two checks whether the files of the certificate have changed. New connections
            get the new one, and a certificate of a state directory is made anew in its last 30 days. Files that cannot
            be used are logged once, and tried again. None: no checks. The content of the files counts, so they may be
            replaced in any way.
        ice_servers: ICE servers in the `config` message: a list of `IceServer` or dictionaries, one of them, the JSON
            answer of a TURN provider, a `TurnRest`, an `IceCommand`, or a function that is called with an `IceContext`
            for each peer and returns or yields them. By default no peer contacts a public STUN server.
        filter_device_info: `hook(info, FilterContext)`, which returns the part of the device info that this client may
            see. It is called for each client, and its result is sent to that client only. A result that equals the info
            is sent as the device sent it, byte for byte. It may edit the info in place, and returns it then as well.
            None: each client gets the device info as the device sent it, byte for byte.
        authorize: `hook(AuthorizeContext)`, which returns an identity (any JSON value), a `Grant` or None, or raises
            `Refused`. It is called for each request except `GET /healthz`, `GET /readyz` and the server's own page and
            scripts, which are the same for all. None: all peers are accepted.
        device_wait_timeout: Time that a client waits for a device that is not registered. 0: the client is refused at
            once. None: the client waits forever.
        on_duplicate: The rule for a device id that another connection holds. "reject": the new device is refused, if
            the holder answers a ping. "replace": the new device gets the id, and the holder is closed.
        one_client_per_device: Whether a device has one client at a time, at most. The next one is refused with
            `Connection failed: Device in use: 'ID'` [1013] until the first has left. `Grant(exclusive=True)` says so
            for single clients.
        client_ids: Where the client ids of a registration begin. "from_one": at 1. "unique": at a number made from the
            time of day, for real devices. Either way they are above the last id that this server gave for the device.
            The peers of a real device outlive a restart of the server, and must not get the id of another client.
        jwt: JSON Web Tokens that peers need, `Jwt(...)`, with the keys of their issuers. `authorize` is called for a
            peer with another token, or without one. See docs/tokens.md. None: no such token is known.
        on_token_expiry: The end of a connection whose token or `Grant` expires, by `exp`, `expires` or `valid_for`.
            "close": it is closed with `Authorization expired` [1008]. "keep": it stays. Later requests of its peer need
            another token in any case.
        hook_timeout: Time for a hook to return. Hooks are `def` or `async def`. When one raises, takes longer or
            returns invalid data, the peer that it was called for is closed (`Internal error` [1011]), and no other peer
            is affected. A `def` hook that hangs keeps its thread: use `async def` for a hook that may hang. A real
            device disconnects after 10 s.
        limits: Bounds on the resources that peers may use.
        keepalive: When a silent connection is closed.
        allowed_hosts: Names in `Host` by which the server may be reached, besides IP addresses, `localhost`, `host` and
            the names of a self-signed certificate. `*.lab`: each name below `lab`. `*`: any name. Other names are
            refused, because DNS rebinding needs them.
        allowed_origins: Origins whose pages may use the server, besides its own, like `https://panel.lab`.
            `https://*.lab`: the origins of each name below `lab`. `*`: any origin.
        trusted_proxies: Proxies whose `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded` headers count: addresses,
            networks like `10.0.0.0/8`, and `unix` for all peers on Unix sockets. Each of them has to write or remove
            all of these headers. Those of other peers are ignored and counted.
        advertise_address: Addresses at which clients reach devices behind 1:1 NAT, like a container's:
            `172.17.0.2=192.0.2.7`, or networks like `10.0.0.0/24=192.0.2.0/24`. They replace those of the host
            candidates that devices send; all other bytes stay. A pre-registration and `Grant.advertise_address` replace
            them for a device.
        allow_unauthenticated: Whether the server may listen on other addresses than loopback without `authorize`.
        cluster: The cluster of which this server is a node, `Cluster(...)`: several servers that are one service, with
            one registry in Redis or Valkey. See docs/cluster.md. A reload replaces its secret alone. None: this server
            is alone.
        upstream: The server to which all is passed on, a URL like `wss://HOST:PORT` or `Upstream(...)`: this one is a
            proxy then. It has the journal, the faults and the page of a server, the page at `/_proxy/`. See
            docs/standing-between.md. None: this is a server itself.
        dashboard: Whether there is a dashboard page at `/`: devices, conversations, a viewer.
        assets_dir: A directory whose files are served besides the endpoints: the web client of a Cuttlefish host
            package (`client.html`, `js/app.js`). `js/server_connector.js` is always the server's own. Links in it are
            followed. None: no files.
        proxy_device_files: Whether `/devices/ID/files/...` reaches the device's own web server, on 127.0.0.1 at the
            port that it named on the device socket. It is off because it lets each client reach a port of this machine.
        adb: Whether `WS /devices/ID/adb` carries bytes to and from the device's adb port, on 127.0.0.1. The port is
            that of the announcement, or, for a device on this machine, that of its device info. It is off because adb
            is a shell on the device, and lets each client reach a port of this machine.
        devices_format: The default format of `GET /devices`. A request chooses with `?format=full` and `?format=ids`.
            "full": an object for each device. "ids": the list of ids that the page of the reference server expects.
        access_log: Whether each HTTP response is logged once it has ended: method, path without query, status, bytes,
            duration, peer and user agent. `limits` bounds the rate.
        audit_log: A file that gets a line of JSON for each admission, each refusal and each change by a program or a
            viewer, without tokens. Lines are added to it. A reload opens it again, so that it can be renamed. None: no
            audit log.
        journal: Whether the messages are recorded, for `journal` and the dashboard page. `limits` bounds the journal.
        workers: OS threads that relay messages.
        drain: Time before a stop in which `GET /readyz` answers 503 and peers are served, for load balancers.
        drain_spread: Time over which a stop closes the connections, evenly, each device with its clients. Thousands of
            devices that are closed at once also return at once.
        stop_timeout: Time for all peers to complete the closing handshake when the server stops.

    Raises:
        ConfigError: A value is not allowed. The error names the setting.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        listen: Iterable[str] = (),
        sockets: Iterable[int | socket.socket] = (),
        metrics: Iterable[str] = (),
        control_api: Iterable[str] = (),
        control_token: str | None = None,
        device_socket: str | os.PathLike[str] | None = None,
        control_socket: str | os.PathLike[str] | None = None,
        tls: Tls | None = None,
        tls_check_interval: float | None = 60.0,
        ice_servers: IceServers = (),
        filter_device_info: FilterDeviceInfo | None = None,
        authorize: Authorize | None = None,
        device_wait_timeout: float | None = 0.0,
        on_duplicate: Literal["reject", "replace"] = "reject",
        one_client_per_device: bool = False,
        client_ids: Literal["from_one", "unique"] = "from_one",
        hook_timeout: float = 5.0,
        limits: Limits = DEFAULT_LIMITS,
        keepalive: Keepalive = DEFAULT_KEEPALIVE,
        allowed_hosts: Iterable[str] = (),
        allowed_origins: Iterable[str] = (),
        trusted_proxies: Iterable[str] = (),
        advertise_address: Iterable[str] = (),
        allow_unauthenticated: bool = False,
        jwt: Jwt | None = None,
        on_token_expiry: Literal["close", "keep"] = "close",
        cluster: Cluster | None = None,
        upstream: str | Upstream | None = None,
        dashboard: bool = False,
        assets_dir: str | os.PathLike[str] | None = None,
        proxy_device_files: bool = False,
        adb: bool = False,
        devices_format: Literal["full", "ids"] = "full",
        access_log: bool = False,
        audit_log: str | os.PathLike[str] | None = None,
        journal: bool = False,
        workers: int = 1,
        drain: float = 0.0,
        drain_spread: float = 0.0,
        stop_timeout: float = 2.0,
    ) -> None:
        from ._config import IceSource, Settings

        super().__init__(Settings.of(_settings(locals())), IceSource.of(ice_servers))

    def __repr__(self) -> str:
        return f"<SignalingServer {' '.join(self._reprs()) if self.is_running else 'not running'}>"

    @property
    def tls(self) -> Tls | None:
        """The certificate, which has a context for clients; None if no listener is https."""
        return self._settings.tls

    # Errors -----------------------------------------------------------------------------------------------------------

    @property
    def hook_errors(self) -> list[HookFailure]:
        """The last 100 hooks that raised, hung or returned invalid data, oldest first. Kept when the server stops."""
        run = self._last_run
        return list(run.hooks.failures) if run is not None else []

    @property
    def server_errors(self) -> list[str]:
        """The last 100 errors that the server logged, oldest first. Kept when the server stops."""
        run = self._last_run
        return list(run.events.errors) if run is not None else []

    # For subclasses and the pytest plugin -----------------------------------------------------------------------------

    @property
    def _writes_journal(self) -> bool:
        return self._settings.journal

    def _check_journal(self) -> None:
        if not self._writes_journal:
            raise JournalOffError("this server writes no journal: start it with SignalingServer(journal=True)")

    def _check_cluster(self) -> None:
        if self._settings.given["cluster"] is None:
            raise ConfigError(
                "cluster", "is None, and this call needs a cluster: SignalingServer(cluster=Cluster(...))"
            )

    # Cuttlefish -------------------------------------------------------------------------------------------------------

    def launch_cvd_flags(self, device_id: str = "cvd-{num}", *, host: str | None = None) -> list[str]:
        """Returns arguments of `launch_cvd`: its devices register with this server, and it starts no server of its own.

        Args:
            device_id: The id to register. `launch_cvd` replaces `{num}` by the number of the device.
            host: The address at which the device reaches this machine; None is the one that the server listens on.

        They are for the devices of Android's own tree (through Android 15), which use WebSocket.
        """
        from ._checks import check_text

        if not isinstance(device_id, str) or not device_id:
            raise ConfigError("device_id", f"must be a string that is not empty, got {device_id!r}")
        check_text("host", host, optional=True)
        return [
            "--start_webrtc=true",
            "--start_webrtc_sig_server=false",
            f"--webrtc_sig_server_addr={host or self._reachable_host()}",
            f"--webrtc_sig_server_port={self.port}",
            "--webrtc_sig_server_path=/register_device",
            f"--webrtc_sig_server_secure={'true' if self._first().is_tls else 'false'}",
            "--verify_sig_server_certificate=false",
            f"--webrtc_device_id={device_id}",
        ]


def _settings(variables: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments of `SignalingServer.__init__`. The table of settings has their names."""
    return {name: value for name, value in variables.items() if name not in ("self", "__class__")}


late_annotations(globals())
