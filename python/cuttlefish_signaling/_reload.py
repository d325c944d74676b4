"""Settings of a running server that are replaced: what changes, and whether a server that runs can change it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from . import _native
from ._cluster import Cluster
from ._config import IceSource, Settings, hook_names
from ._hook_types import Authorize, FilterDeviceInfo, IceServers
from ._jwt import Jwt
from ._limits import Keepalive, Limits
from ._settings import GROUPS, KEYWORDS
from ._settings.reload import RELOAD, RESTART
from ._tls import Tls
from .errors import ConfigError, RestartRequiredError

if TYPE_CHECKING:
    from ._run import Run

_NAMES = [row.name for row in KEYWORDS]


class ReloadSettings(TypedDict, total=False):
    """The settings that `SignalingServer.reload` takes: those of `SignalingServer` that need no restart."""

    control_token: str | None
    tls: Tls | None
    tls_check_interval: float | None
    cluster: Cluster | None
    ice_servers: IceServers
    filter_device_info: FilterDeviceInfo | None
    authorize: Authorize | None
    device_wait_timeout: float | None
    on_duplicate: Literal["reject", "replace"]
    one_client_per_device: bool
    client_ids: Literal["from_one", "unique"]
    allowed_hosts: Iterable[str]
    allowed_origins: Iterable[str]
    trusted_proxies: Iterable[str]
    advertise_address: Iterable[str]
    allow_unauthenticated: bool
    jwt: Jwt | None
    on_token_expiry: Literal["close", "keep"]
    hook_timeout: float
    assets_dir: str | os.PathLike[str] | None
    proxy_device_files: bool
    adb: bool
    access_log: bool
    devices_format: Literal["full", "ids"]
    limits: Limits
    keepalive: Keepalive
    drain: float
    drain_spread: float
    stop_timeout: float


class Reload:
    """Checked settings that replace those of a run. `commit` puts them into effect."""

    def __init__(self, run: Run, old: tuple[Settings, IceSource], given: dict[str, Any]) -> None:
        """Checks the settings. Raises ConfigError, also for those that need a restart."""
        self._run = run
        before, ice = old
        for name in given:
            if name not in _NAMES:
                raise ConfigError(name, f"is not a setting; there are {', '.join(_NAMES)}")
        self.ice = IceSource.of(given["ice_servers"]) if "ice_servers" in given else ice
        kept = {"authorize": before.authorize, "filter_device_info": before.filter_device_info, "ice_servers": ()}
        self.settings = Settings.of({**before.given, **kept, **with_known_tls(given, before.tls)})
        self.changed = changes(before, self.settings)
        renews_ice = is_other_ice(ice, self.ice)
        if renews_ice:
            self.changed.append("ice_servers")
        if fixed := [path for path in self.changed if needs_restart(path, before, self.settings)]:
            raise RestartRequiredError(fixed)
        native = {**self.settings.native, **run.addresses, "sockets": [], "ice_servers": self.ice.native}
        self._checked = run.native.prepare_reload(native, hook_names(self.settings, self.ice), renews_ice)

    def commit(self) -> None:
        """Puts the settings into effect."""
        settings = self.settings
        hooks = {
            "authorize": settings.authorize,
            "filter_device_info": settings.filter_device_info,
            "ice_servers": self.ice.hook,
        }
        self._run.replace(hooks, settings.limits)
        self._checked.apply()


def reloaded(changed: list[str], restart_required: list[str] | None = None, text: str = "") -> dict[str, Any]:
    """Returns the body that answers a reload."""
    shown = text or ", ".join(changed) or "nothing has changed"
    return {"changed": changed, "restart_required": restart_required or [], "text": shown}


def with_known_tls(given: dict[str, Any], known: Tls | None) -> dict[str, Any]:
    """Returns the settings with the certificate that is known in the place of an equal one."""
    new = given.get("tls")
    if isinstance(new, Tls) and known is not None and known._native.is_same(new._native):
        return {**given, "tls": known}
    return given


def changes(old: Settings, new: Settings) -> list[str]:
    """Returns the paths of the settings that are different, in the order of the table. ICE servers are not compared."""
    changed = []
    for row in KEYWORDS:
        if row.name in GROUPS:
            before, after = old.given[row.name], new.given[row.name]
            names = [one.name for one in GROUPS[row.name]]
            changed += [f"{row.name}.{name}" for name in names if getattr(before, name) != getattr(after, name)]
        elif row.name != "ice_servers" and _value(old, row.name) != _value(new, row.name):
            changed.append(row.path)
    return changed


def _value(settings: Settings, name: str) -> Any:
    """The value of a setting as it was checked."""
    if name in ("tls", "authorize", "filter_device_info"):
        return getattr(settings, name)
    return settings.native[name] if name in settings.native else getattr(settings, name)


def needs_restart(path: str, old: Settings, new: Settings) -> bool:
    """Whether a server that runs cannot change this setting.

    A certificate can only be replaced by another one, and of a cluster only the secret.
    """
    if path == "tls":
        return (old.tls is None) != (new.tls is None)
    if path == "cluster":
        return not is_other_secret(old.given["cluster"], new.given["cluster"])
    return RELOAD.get(path, RESTART) == RESTART


def is_other_secret(old: Cluster | None, new: Cluster | None) -> bool:
    """Whether two clusters are the same, but for the secret."""
    return old is not None and new is not None and old._native.is_same_but_secrets(new._native)


def is_other_ice(old: IceSource, new: IceSource) -> bool:
    """Whether peers get other ICE servers."""
    if old is new:
        return False
    return old.hook != new.hook or not _native.same_ice_servers(old.native, new.native)
