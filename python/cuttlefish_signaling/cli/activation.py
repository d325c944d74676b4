"""Socket activation: the listening sockets that systemd has opened and passes to this process (sd_listen_fds(3))."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import MutableMapping
from typing import NamedTuple

from ..errors import ConfigError

FIRST = 3
"""The first descriptor. Those before it are the standard streams."""

VARIABLES = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
"""The variables of the protocol. They are removed: programs that this one starts have none of the sockets."""

MOST = 1024
"""Sockets that are passed. No setting: a server has a listener or a local socket for each of them."""


class Inherited(NamedTuple):
    """A socket that systemd has passed."""

    number: int
    """The descriptor."""
    name: str
    """`FileDescriptorName=` of the socket unit, by default the name of the unit."""
    kind: int = 0
    """`socket.SOCK_STREAM` or another type; 0 if it is no socket."""
    address: str = ""
    """`127.0.0.1:8443`, `[::]:8443`, or a path."""

    def __str__(self) -> str:
        return f"LISTEN_FDS: descriptor {self.number} ({self.name})"

    @property
    def is_stream(self) -> bool:
        """Whether HTTP can come over it."""
        return self.kind == socket.SOCK_STREAM

    def url(self, scheme: str) -> str:
        """The text of `--listen` for it."""
        return f"unix:{self.address}" if self.is_unix else f"{scheme}://{self.address}"

    @property
    def is_unix(self) -> bool:
        """Whether it is a Unix socket."""
        return self.address.startswith("/")


def take_sockets(environment: MutableMapping[str, str]) -> tuple[list[Inherited], list[str]]:
    """Returns the sockets that were passed to this process, and lines for the log. Raises ConfigError.

    Their descriptors get CLOEXEC, so that programs that are started do not have them.
    """
    given = {name: environment.pop(name, "") for name in VARIABLES}
    if not given["LISTEN_FDS"]:
        return [], []
    if given["LISTEN_PID"] != str(os.getpid()):
        for_whom = f"process {given['LISTEN_PID']}" if given["LISTEN_PID"] else "no process (LISTEN_PID is missing)"
        return [], [f"LISTEN_FDS is for {for_whom} and has no effect: this process is {os.getpid()}"]
    if not re.fullmatch("[0-9]{1,4}", given["LISTEN_FDS"]) or int(given["LISTEN_FDS"]) > MOST:
        raise ConfigError("LISTEN_FDS", f"{given['LISTEN_FDS']!r} is not a number of sockets from 0 to {MOST}")
    count = int(given["LISTEN_FDS"])
    names = given["LISTEN_FDNAMES"].split(":") if given["LISTEN_FDNAMES"] else ["unknown"] * count
    if len(names) != count:
        raise ConfigError("LISTEN_FDNAMES", f"has {len(names)} names for {count} sockets")
    return [_inherited(FIRST + index, name) for index, name in enumerate(names)], []


def _inherited(number: int, name: str) -> Inherited:
    try:
        os.set_inheritable(number, False)
    except OSError:
        raise ConfigError(str(Inherited(number, name)), "is not open") from None
    try:
        # The type and the address come from the system. The object has a descriptor of its own, which it closes.
        with socket.socket(fileno=os.dup(number)) as found:
            address, kind = found.getsockname(), found.type
    except OSError:
        return Inherited(number, name)  # No socket: the core refuses it.
    if isinstance(address, tuple):
        host, port = address[:2]
        return Inherited(number, name, kind, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    return Inherited(number, name, kind, address if isinstance(address, str) else "")


def by_name(origin: str, text: str, inherited: list[Inherited]) -> list[str]:
    """Returns the listeners of `https+fd:NAME` or `http+fd:NAME`, where NAME may also be a descriptor."""
    scheme, _, name = text.partition("+fd:")
    found = [one for one in inherited if one.name == name] or [one for one in inherited if str(one.number) == name]
    if not found:
        passed = ", ".join(f"{one.name!r}" for one in inherited) or "none"
        raise ConfigError(
            origin, f"{text!r}: systemd has passed no socket of this name (LISTEN_FDNAMES); it has passed {passed}"
        )
    for one in found:
        if not one.is_stream:
            raise ConfigError(origin, f"{text!r}: descriptor {one.number} is no stream socket")
        if scheme == "https" and one.is_unix:
            raise ConfigError(
                origin, f"{text!r}: descriptor {one.number} is a Unix socket, which has no TLS: http+fd:{name}"
            )
    return [one.url(scheme) for one in found]
