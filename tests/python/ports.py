"""TCP ports for programs that a test starts, and for addresses where no program listens."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator

FIRST, LAST = 10_000, 32_767
"""Below the ports that the kernel gives to outgoing connections and to listeners with port 0 (32,768 and up)."""

SHARES = 8
"""Each worker of pytest-xdist takes ports from a share of its own."""


def _candidates() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    size = (LAST - FIRST + 1) // SHARES
    first = FIRST + worker % SHARES * size
    # Two runs side by side begin at different places.
    begin = os.getpid() * 97 % size
    return (first + (begin + step) % size for step in itertools.count())


_PORTS = _candidates()


def free_port() -> int:
    """A port of loopback that is free, and that no other test of this run is given or takes by chance."""
    for port in itertools.islice(_PORTS, 1000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"none of 1000 ports from {FIRST} to {LAST} is free")
