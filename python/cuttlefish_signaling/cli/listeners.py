"""The listeners of the command line: of `--listen`, or the one of `--host`, `--port` and `--no-tls`."""

from __future__ import annotations

import errno
import ipaddress

from .._listen import EVERY_ADDRESS, Listener
from .._settings.kinds import CONTROL_LISTENERS, MAX_SOCKET_PATH
from ..errors import BindError, ConfigError
from .activation import Inherited, by_name
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


def apply_sockets(found: Found, inherited: list[Inherited]) -> None:
    """Makes the sockets that systemd has passed those of the settings. Raises ConfigError.

    Where no address is given, the stream sockets are the listeners. Otherwise the core finds a socket by its address.
    """
    found.inherited = inherited
    for one in inherited:
        key = one.name.replace("-", "_")
        if key in ("device_socket", "control_socket") and (key not in found.origins or found.is_preset(key)):
            found[key], found.origins[key] = one.address, "LISTEN_FDNAMES"
    if found["listen"]:
        origin = found.origin("listen")
        named = [by_name(origin, text, inherited) if "+fd:" in text else [text] for text in found["listen"]]
        found["listen"] = [text for texts in named for text in texts]
        return
    others = [*(found["metrics"] or ()), *(found["control_api"] or ())]
    others = [text.partition("?")[0].rstrip("/").removeprefix("unix:") for text in others]
    of_others = {text.rpartition("//")[2] if "//" in text else text for text in others}
    streams = [one for one in inherited if one.is_stream and one.address and one.address not in of_others]
    if "host" in found.origins:
        return
    if "port" in found.origins:
        same_port = [one for one in streams if one.address.endswith(f":{found['port']}")]
        if len(same_port) == 1:
            found["host"] = same_port[0].address.rpartition(":")[0].strip("[]")
    elif streams:
        scheme = "http" if found["no_tls"] else "https"
        found["listen"], found.origins["listen"] = [one.url(scheme) for one in streams], "LISTEN_FDS"
        found["no_tls"] = False
        found.origins.pop("no_tls", None)


def all_listeners(found: Found) -> list[Listener]:
    """Returns the listeners of these settings, those for metrics, and the control API. Raises ConfigError."""
    metrics = [Listener.parse(found.origin("metrics"), text, most=MAX_SOCKET_PATH) for text in found["metrics"] or ()]
    control = [CONTROL_LISTENERS.listener(found.origin("control_api"), text) for text in found["control_api"] or ()]
    return listeners(found) + metrics + control


def keywords(found: Found) -> dict[str, object]:
    """Returns the keyword arguments of `SignalingServer` that say where it listens."""
    sockets = [one.number for one in found.inherited]
    if found["listen"]:
        return {"listen": found["listen"], "host": "127.0.0.1", "port": 0, "sockets": sockets}
    return {"host": found["host"], "port": found["port"], "sockets": sockets}


def is_reached_from_here_only(found: Found) -> bool:
    """Whether no other machine reaches the server."""
    return all(one.scheme == "unix" or _is_loopback(one.place) for one in listeners(found))


def hosts_for_tls(found: Found) -> list[str]:
    """Returns the hosts of the encrypted listeners, but no address that stands for all addresses."""
    return [one.place for one in all_listeners(found) if one.is_tls and one.place not in EVERY_ADDRESS]


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
