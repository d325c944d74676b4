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
from contextlib import ExitStack, suppress
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


THREADS = {
    "main": "waits for the end",
    "signals": "takes SIGTERM and SIGHUP, also while code of the main one runs",
    "events": "passes log records to Python",
    "core": "accepts and relays: one, as --workers is 1",
}
"""The threads of any server, and what each is for."""

ALONE = Counts(listeners=1, connections=0, threads=len(THREADS))


def counts(process: int) -> Counts:
    """Counts the TCP sockets and the threads of a process."""
    folder = Path(f"/proc/{process}")
    links = []
    for file in (folder / "fd").iterdir():
        with suppress(FileNotFoundError):  # It has been closed since.
            links.append(os.readlink(file))
    rows = [line.split() for name in ("tcp", "tcp6") for line in (folder / "net" / name).open()]
    states = [row[3] for row in rows if f"socket:[{row[9]}]" in links]
    listeners = states.count(LISTENS)
    return Counts(listeners, len(states) - listeners, len(list((folder / "task").iterdir())))


def described(process: int) -> str:
    """The counts of a process, with the names of its threads. Before Python 3.14, those of Python have its name."""
    names = sorted(file.read_text().strip() for file in Path(f"/proc/{process}/task").glob("*/comm"))
    return f"{counts(process)}, {', '.join(names)}"


def wait_for(what: str, process: int, condition: Callable[[Counts], bool]) -> None:
    """Waits until a condition holds for the counts of a process."""
    deadline = time.monotonic() + TIMEOUT
    while not condition(counts(process)):
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {TIMEOUT} s until {what}; it has {described(process)}")
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
        # The pair leaves, and the thread that has started the one of events ends.
        wait_for(f"a server alone has {ALONE}", alone, lambda found: found == ALONE)
        wait_for("a node has a connection to the engine", node, lambda found: found.connections > 0)
        print(f"a node of a cluster: {counts(node)}")
        print(f"a server alone: {counts(alone)}")
        if counts(node).listeners <= ALONE.listeners:
            sys.exit("the listener for other nodes was not counted")


if __name__ == "__main__":
    main()
