"""The settings that a running server takes."""

from __future__ import annotations

from ._annotations import late_annotations
from ._lifecycle import Lifecycle
from .errors import ConfigError

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from typing_extensions import Unpack

    from ._hook_types import Authorize, FilterDeviceInfo, IceServers
    from ._reload import Reload, ReloadSettings
    from ._tls import Tls


class LiveSettings(Lifecycle):
    """A server whose settings can be exchanged. A base class of `SignalingServer`.

    An exchange holds for the next start as well. It may come from any thread. A call that has begun ends with the hook
    that it began with; calls that wait for a thread get the new one.
    """

    def set_ice_servers(self, ice_servers: IceServers) -> None:
        """Replaces the ICE servers.

        Devices that are registered get a new `config` at once; clients get theirs when they connect.

        Args:
            ice_servers: As the setting of this name.

        Raises:
            ConfigError: An entry is not allowed. The old ICE servers stay.
            NotRunningError: The server is not running.
        """
        from ._config import IceSource

        ice = IceSource.of(ice_servers)
        with self._lock:
            run = self._running()
            if ice.hook is not None:
                run.hooks.set_hook("ice_servers", ice.hook)
            run.native.set_ice_servers(ice.native)
            self._ice = ice

    def set_filter_device_info(self, filter_device_info: FilterDeviceInfo | None) -> None:
        """Replaces the filter of device info. Clients that have their device info keep it.

        Args:
            filter_device_info: As the setting of this name. None: clients get the device info as the device sent it.

        Raises:
            ConfigError: It cannot be called as a filter. The old filter stays.
            NotRunningError: The server is not running.
        """
        from ._hook_checks import check_hook

        check_hook("filter_device_info", filter_device_info)
        with self._lock:
            run = self._running()
            if filter_device_info is not None:
                run.hooks.set_hook("filter_device_info", filter_device_info)
            run.native.set_filter_device_info(filter_device_info is not None)
            self._settings = self._settings.replace(filter_device_info=filter_device_info)

    def set_authorize(self, authorize: Authorize | None) -> None:
        """Replaces the hook that accepts requests. Peers that are connected stay, with their identities and grants.

        Args:
            authorize: As the setting of this name. None: all peers are accepted.

        Raises:
            ConfigError: It cannot be called as `authorize`, or it is None, and other machines can reach the server.
                The old hook stays.
            NotRunningError: The server is not running.
        """
        from ._hook_checks import check_hook

        check_hook("authorize", authorize)
        with self._lock:
            run = self._running()
            if authorize is not None:
                run.hooks.set_hook("authorize", authorize)
            run.native.set_authorize(authorize is not None)
            self._settings = self._settings.replace(authorize=authorize)

    def reload(self, **settings: Unpack[ReloadSettings]) -> list[str]:
        """Replaces settings of the running server. Connections stay.

        All settings are checked first: where one is invalid, all old ones stay in effect. docs/settings.md tells for
        each setting whether it is in effect at once or for new connections. Peers that are connected stay, also where
        a new `authorize` would refuse them.

        Args:
            settings: As the arguments of `SignalingServer`. Those that are not given stay.

        Returns:
            The names of the settings that have changed, like `limits.max_devices`.

        Raises:
            RestartRequiredError: A setting has another value, and a server that runs cannot change it.
            ConfigError: A value is not allowed.
            NotRunningError: The server is not running.
        """
        with self._lock:
            return self._commit(self._prepare_reload(dict(settings)))

    def reload_tls(self, tls: Tls | None = None) -> bool:
        """Replaces the certificate, for connections that are opened from now on. Those that are open stay.

        Args:
            tls: The certificate. None: the files of the present one are read again, as each `tls_check_interval`.

        Returns:
            Whether the certificate is another one.

        Raises:
            TlsError: The files cannot be used. The old certificate stays.
            ConfigError: The server has no certificate, or one that has no files.
            NotRunningError: The server is not running.
        """
        if tls is not None:
            return bool(self.reload(tls=tls))
        self._running()
        known = self._settings.tls
        if known is None or not known._native.is_renewable:
            has = "no certificate" if known is None else "a certificate in memory"
            raise ConfigError("tls", f"the server has {has}, and there are no files to read: give the new Tls")
        from ._tls import renew

        return renew(known)

    _on_reload: Callable[[], dict[str, Any]] | None = None
    """Answers a reload of the control API. The command line sets it: it reads all settings again."""

    def _reload_for_control(self) -> dict[str, Any]:
        if self._on_reload is not None:
            return self._on_reload()
        from ._reload import reloaded
        from ._tls import renew

        known = self._settings.tls
        return reloaded(["tls"] if known is not None and known._native.is_renewable and renew(known) else [])

    def _prepare_reload(self, settings: dict[str, Any]) -> Reload:
        from ._reload import Reload

        return Reload(self._running(), (self._settings, self._ice), settings)

    def _commit(self, reload: Reload) -> list[str]:
        reload.commit()
        self._settings, self._ice = reload.settings, reload.ice
        return reload.changed

    def __setattr__(self, name: str, value: object) -> None:
        # The attributes of the package begin with `_`: they need no look into the table of settings.
        if not name.startswith("_") and _is_setting(name):
            raise AttributeError(f"a server has no attribute {name!r} to set: {how_to_set(name)}")
        super().__setattr__(name, value)


def _is_setting(name: str) -> bool:
    from ._settings import KEYWORDS

    return any(row.name == name for row in KEYWORDS)


def how_to_set(name: str) -> str:
    """Returns how a setting is given to a server."""
    from ._reload import ReloadSettings

    if hasattr(LiveSettings, f"set_{name}"):
        return f"call set_{name}(...), also while it runs"
    if name in ReloadSettings.__annotations__:
        return f"give it to SignalingServer({name}=...), or call reload({name}=...) while it runs"
    return f"give it to SignalingServer({name}=...)"


late_annotations(globals())
