"""A controller module for Mobly: signaling servers of the test bed.

    from cuttlefish_signaling import mobly as signaling

    class SessionTest(base_test.BaseTestClass):
        def setup_class(self):
            self.signaling, *_ = self.register_controller(signaling)

The test bed has one entry for each server, with the keywords of `SignalingServer`:

    Controllers:
      CuttlefishSignaling:
        - name: main
          device_wait_timeout: 30
          limits: {max_devices: 8}
        - url: wss://signal.lab:8443   # a server that runs already
          ca: ca.pem                   # its authority

Mobly starts them when a test class registers the module, and stops them after the class.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from ._annotations import late_annotations
from ._limits import Keepalive, Limits
from ._server import SignalingServer
from ._settings import GROUPS, KEYWORDS
from ._tls import Tls
from .errors import (
    ConfigError,
    JournalOffError,
    NotOursError,
    NotRunningError,
    SignalingError,
    UnreachableError,
)

if TYPE_CHECKING:
    from .testing import AttachedServer

MOBLY_CONTROLLER_CONFIG_NAME: str = "CuttlefishSignaling"
"""The name of the servers in the test bed, below `Controllers`."""

_OURS = ("name", "url", "ca")
_OF_PYTHON = ("sockets", "cluster", "filter_device_info", "authorize")
"""Keywords whose values are objects of Python, which a test bed cannot have."""

_names: dict[int, str] = {}
"""The names of the servers that exist, by their identities."""


def create(configs: Sequence[Mapping[str, Any]] | str | int) -> list[SignalingServer | AttachedServer]:
    """Starts the servers of a test bed, for Mobly.

    Args:
        configs: A dictionary for each server; or a number of servers with default settings; or `"*"`, which is one.
            Servers have a journal unless `journal: false` is given.

    Raises:
        ConfigError: An entry is wrong. The name is that of the test bed: `CuttlefishSignaling[0].port`.
        BindError: A server cannot listen on its address.
        UnreachableError: No server answers at a `url`.
    """
    entries = _entries(configs)
    servers: list[SignalingServer | AttachedServer] = []
    try:
        for number, entry in enumerate(entries):
            servers.append(_started(f"{MOBLY_CONTROLLER_CONFIG_NAME}[{number}]", entry))
            _names[id(servers[-1])] = str(entry.get("name", f"server-{number + 1}"))
    except BaseException:
        destroy(servers)
        raise
    return servers


def destroy(servers: Sequence[SignalingServer | AttachedServer]) -> None:
    """Stops all servers, for Mobly. The exception of one does not keep the others running."""
    failures = []
    for server in servers:
        _names.pop(id(server), None)
        try:
            if isinstance(server, SignalingServer) and server.is_running:
                server.stop()
        except SignalingError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def get_info(servers: Sequence[SignalingServer | AttachedServer]) -> list[dict[str, Any]]:
    """Returns the name, URL, devices and counters of each server, for Mobly's summary. There are no secrets in them."""
    return [_info(server, number) for number, server in enumerate(servers)]


def named(servers: Sequence[SignalingServer | AttachedServer], name: str) -> SignalingServer | AttachedServer:
    """Returns the server with this `name` in the test bed. Raises ConfigError."""
    for server in servers:
        if _names.get(id(server)) == name:
            return server
    known = ", ".join(repr(_names.get(id(server))) for server in servers)
    raise ConfigError("name", f"there is no server {name!r}; there are {known}")


def save_transcripts(servers: Sequence[SignalingServer | AttachedServer], folder: str | os.PathLike[str]) -> list[Path]:
    """Writes the conversations of the servers to `signaling-NAME.txt` in a folder, for `on_fail` of a test class.

    Servers outside of this process, and those without a journal, have none. Returns the files.
    """
    files = []
    for number, server in enumerate(servers):
        try:
            text = server.journal.transcript()
        except (JournalOffError, NotOursError, NotRunningError):
            continue
        name = "".join(char if char.isalnum() or char in "-_." else "_" for char in _name(server, number))
        file = Path(folder, f"signaling-{name}.txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n", encoding="utf-8")
        files.append(file)
    return files


def _name(server: SignalingServer | AttachedServer, number: int) -> str:
    return _names.get(id(server), f"server-{number + 1}")


def _info(server: SignalingServer | AttachedServer, number: int) -> dict[str, Any]:
    info: dict[str, Any] = {"name": _name(server, number), "version": __version__}
    if isinstance(server, SignalingServer):
        if server.is_running:
            info |= {"url": server.url, "devices": [device.device_id for device in server.devices()]}
        return info | {"running": server.is_running, "stats": asdict(server.stats())}
    info |= {"url": server.url, "version": "not known: it runs outside of the test"}
    try:
        return info | {"running": True, "devices": server.device_ids()}
    except UnreachableError as error:
        return info | {"running": False, "error": str(error)}


def _entries(configs: Any) -> list[Mapping[str, Any]]:
    if configs == "*":
        return [{}]
    if isinstance(configs, int) and not isinstance(configs, bool) and 1 <= configs <= MOST_SERVERS:
        return [{}] * configs
    if not isinstance(configs, list | tuple) or not all(isinstance(one, Mapping) for one in configs):
        wanted = f'a list with a dictionary for each server, a number from 1 to {MOST_SERVERS}, or "*"'
        raise ConfigError(
            MOBLY_CONTROLLER_CONFIG_NAME, f"must be {wanted}, got a value of type {type(configs).__name__}"
        )
    names = [one["name"] for one in configs if "name" in one]
    for name in names:
        if not isinstance(name, str) or names.count(name) > 1:
            raise ConfigError(f"{MOBLY_CONTROLLER_CONFIG_NAME}.name", f"{name!r} is no string, or is given twice")
    return list(configs)


MOST_SERVERS = 1000
"""Servers that a number in the test bed makes."""


def _started(place: str, entry: Mapping[str, Any]) -> SignalingServer | AttachedServer:
    given = {key: value for key, value in entry.items() if key not in _OURS}
    if "url" in entry:
        if given:
            raise ConfigError(
                f"{place}.{next(iter(given))}", "is a setting of a server of this process: leave out `url`"
            )
        return _attached(place, entry)
    if "ca" in entry:
        raise ConfigError(f"{place}.ca", "belongs to `url`; `tls` makes the certificate of a server of this process")
    settings = {key: _value(f"{place}.{key}", key, value) for key, value in given.items()}
    try:
        server = SignalingServer(**{"journal": True, **settings})
    except ConfigError as error:
        raise ConfigError(f"{place}.{error.setting}", error.what) from None
    server.start()
    return server


def _attached(place: str, entry: Mapping[str, Any]) -> AttachedServer:
    from .testing import AttachedServer

    context = None
    if "ca" in entry:
        try:
            context = ssl.create_default_context(cafile=entry["ca"])
        except (OSError, TypeError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError(f"{place}.ca", f"cannot use {entry['ca']!r}: {reason}") from None
    try:
        return AttachedServer(entry["url"], ssl_context=context)
    except ConfigError as error:
        raise ConfigError(f"{place}.url", error.what) from None


def _value(place: str, key: str, value: Any) -> Any:
    """Returns the value of a keyword. Raises ConfigError for a name that is none."""
    if key in _OF_PYTHON:
        raise ConfigError(place, "takes an object of Python: make the server in `setup_class`")
    _check_name(place, key, [row.name for row in KEYWORDS if row.name not in _OF_PYTHON] + list(GROUPS) + list(_OURS))
    if key == "tls":
        return _tls(place, value)
    if key not in GROUPS:
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(place, f"must be a dictionary of settings, got a value of type {type(value).__name__}")
    for name in value:
        _check_name(f"{place}.{name}", name, [row.name for row in GROUPS[key]])
    return {"limits": Limits, "keepalive": Keepalive}[key](**value)


def _check_name(place: str, name: Any, known: list[str]) -> None:
    if name not in known:
        near = get_close_matches(str(name), known, n=1)
        meant = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"
        raise ConfigError(place, f"there is no such setting; {meant}")


def _tls(place: str, value: Any) -> Tls | None:
    """`true`, a list of names, or the files of a certificate."""
    if value is None or value is False:
        return None
    if value is True:
        return Tls.self_signed()
    if isinstance(value, list | tuple):
        return Tls.self_signed([str(name) for name in value])
    if isinstance(value, Mapping) and set(value) == {"certificate", "key"}:
        return Tls.from_files(value["certificate"], value["key"])
    raise ConfigError(place, "must be true, a list of names, or a dictionary with `certificate` and `key`")


late_annotations(globals())
