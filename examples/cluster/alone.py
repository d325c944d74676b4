"""A server without `--cluster`, beside a node: what the cluster costs where it is off.

    python examples/cluster/alone.py

Starts a server alone and a node of a cluster, lets a pair talk on each, and counts the sockets and threads of both
processes once the pairs have left. The server alone has its listener, no connection and the four threads of any
server. Exits with 1 if it has more. Needs Linux and `redis-server`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from balanced import TIMEOUT, free_ports, register, start, talk

LISTENS = "0A"
"""The state of a socket that listens, in /proc/net/tcp."""


class Counts(NamedTuple):
    """The sockets and threads of a process."""

    listeners: int
    connections: int
    threads: int


ALONE = Counts(listeners=1, connections=0, threads=4)
"""The main thread, one for signals, one for events, and one that relays."""


def counts(process: int) -> Counts:
    """Counts the TCP sockets and the threads of a process."""
    folder = Path(f"/proc/{process}")
    links = [os.readlink(file) for file in (folder / "fd").iterdir() if file.is_symlink()]
    rows = [line.split() for name in ("tcp", "tcp6") for line in (folder / "net" / name).open()]
    states = [row[3] for row in rows if f"socket:[{row[9]}]" in links]
    listeners = states.count(LISTENS)
    return Counts(listeners, len(states) - listeners, len(list((folder / "task").iterdir())))


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    """Waits until a condition holds."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {TIMEOUT} s until {what}")
        time.sleep(0.05)


def serve(stack: ExitStack, port: int, *more: str) -> int:
    """Starts a server, lets a pair talk on it, and returns its process."""
    start(stack, [sys.executable, "-m", "cuttlefish_signaling", "serve", "--no-tls", "--port", str(port), *more], port)
    with register(f"ws://127.0.0.1:{port}", "cvd-1") as device:
        talk(f"ws://127.0.0.1:{port}", "cvd-1", device)
    (process,) = [number for number in children() if str(port) in command_of(number)]
    return process


def children() -> list[int]:
    """The processes that this one has started."""
    files = Path("/proc/self/task").glob("*/children")
    return [int(number) for file in files for number in file.read_text().split()]


def command_of(process: int) -> list[str]:
    """The words of the command of a process."""
    return Path(f"/proc/{process}/cmdline").read_text().split("\0")


def main() -> None:
    """Compares a server alone with a node."""
    with ExitStack() as stack:
        engine, port, port_of_node = free_ports(3)
        start(stack, ["redis-server", "--port", str(engine), "--save", ""], engine)
        alone = serve(stack, port)
        node = serve(stack, port_of_node, "--node", "a", "--cluster", f"redis://127.0.0.1:{engine}")
        wait_for("the pair has left", lambda: counts(alone).connections == 0)
        wait_for("the node has a connection to the engine", lambda: counts(node).connections > 0)
        print(f"a node of a cluster: {counts(node)}")
        print(f"a server alone: {counts(alone)}")
        if counts(alone) != ALONE:
            sys.exit(f"a server alone should have {ALONE}")
        if counts(node).listeners <= ALONE.listeners:
            sys.exit("the listener for other nodes was not counted")


if __name__ == "__main__":
    main()
