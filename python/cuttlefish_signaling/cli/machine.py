"""The names and addresses of this machine."""

from __future__ import annotations

import socket

from .. import _native
from .._listen import machine_addresses


def machine_names() -> list[str]:
    """Returns the host name and, if the resolver knows one, the fully qualified name, as `hostname --fqdn` does."""
    name = socket.gethostname()
    found = [name]
    try:
        found += [entry[3] for entry in socket.getaddrinfo(name, None, flags=socket.AI_CANONNAME)]
    except OSError:  # The resolver does not know the host name.
        pass
    found = [one.rstrip(".").lower() for one in found]
    # A canonical name may be an address, or `localhost`, which need no setting.
    useful = (one for one in found if _native.Tls.is_name(one) and not _is_address(one) and one != "localhost")
    return list(dict.fromkeys(useful))


def machine_hosts() -> list[str]:
    """Returns the hosts by which a browser may reach this machine: its names, its addresses and loopback."""
    return [*machine_names(), *machine_addresses(), "localhost", "127.0.0.1", "::1"]


def _is_address(text: str) -> bool:
    return ":" in text or text.replace(".", "").isdecimal()
