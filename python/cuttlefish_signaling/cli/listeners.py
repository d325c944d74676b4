"""The listeners of the command line: of `--listen`, or the one of `--host`, `--port` and `--no-tls`."""

from __future__ import annotations

import errno
import ipaddress

from .._listen import EVERY_ADDRESS, Listener
from .._settings.kinds import MAX_SOCKET_PATH
from ..errors import BindError, ConfigError
from .sources import Found

ONE_LISTENER = ("host", "port", "no_tls")
"""The settings that `listen` replaces."""


def listeners(found: Found) -> list[Listener]:
    """Returns the listeners of these settings. Raises ConfigError, which names the flags that contradict."""
    if not found["listen"]:
        return [Listener("http" if found["no_tls"] else "https", found["host"], found["port"])]
    if others := [key for key in ONE_LISTENER if key in found.origins and found[key] is not False]:
        given = " and ".join(found.origin(key) for key in others)
        raise ConfigError(found.origin("listen"), f"contradicts {given}: write all of it as --listen URL")
    return [Listener.parse(found.origin("listen"), text, most=MAX_SOCKET_PATH) for text in found["listen"]]


def keywords(found: Found) -> dict[str, object]:
    """Returns the keyword arguments of `SignalingServer` that say where it listens."""
    if found["listen"]:
        return {"listen": found["listen"], "host": "127.0.0.1", "port": 0}
    return {"host": found["host"], "port": found["port"]}


def is_reached_from_here_only(found: Found) -> bool:
    """Whether no other machine reaches the server."""
    return all(one.scheme == "unix" or _is_loopback(one.place) for one in listeners(found))


def hosts_for_tls(found: Found) -> list[str]:
    """Returns the hosts of the encrypted listeners, but no address that stands for all addresses."""
    return [one.place for one in listeners(found) if one.is_tls and one.place not in EVERY_ADDRESS]


def with_flags(error: BindError, found: Found) -> str:
    """Returns the text of an error of the start, with flags, variables or places in files for the settings."""
    settings, separator, what = str(error).partition(": ")
    keys = settings.split(", ")
    if not separator or not all(key in found for key in keys):
        return str(error)
    if error.errno == errno.EADDRINUSE and found["operator"]:
        what += "; end the operator that uses it: systemctl stop cuttlefish-operator"
    given = [key for key in keys if key in found.origins]
    return f"{', '.join(found.origin(key) for key in given or keys)}: {what}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
