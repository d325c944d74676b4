"""A master with two replicas, watched by three Sentinels, for tests."""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack
from pathlib import Path

from ports import free_port

from cuttlefish_signaling.testing._process import Process

from peers import PATIENCE, wait_until

NAME = "lab"
"""The name that the Sentinels give the master."""

SETTINGS = f"""
bind 127.0.0.1
sentinel down-after-milliseconds {NAME} 500
sentinel failover-timeout {NAME} 2000
"""


class Trio:
    """Three servers and three Sentinels, each a process. A replica follows a master that is killed."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory, self._stack = directory, stack
        self._servers: dict[int, Process] = {}
        self._sentinels: list[int] = []
        self.master = free_port()
        self.launch(self.master)
        for _ in range(2):
            self.launch(free_port())
        self._wait_for_replicas()
        self._sentinels = [self._watch() for _ in range(3)]
        for port in self._sentinels:
            wait_until(lambda port=port: knows_all(port))  # type: ignore[misc]

    @property
    def url(self) -> str:
        """The URL of the engine."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._sentinels)
        return f"redis+sentinel://{hosts}/{NAME}"

    def launch(self, port: int) -> None:
        """Starts a server: as a replica, unless it is the master."""
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        options += ["--dir", str(self._directory), "--repl-diskless-sync-delay", "0"]
        if port != self.master:
            options += ["--replicaof", "127.0.0.1", str(self.master)]
        server = self._servers[port] = Process(f"server {port}", self._directory / f"{port}.log")
        server.start(["redis-server", *options], os.environ)
        self._stack.callback(server.end)
        wait_until(lambda: ask(port, "PING") == "+PONG")

    def fail_over(self) -> int:
        """Kills the master, and returns its port when the Sentinels name another one."""
        lost = self.master
        self._servers[lost].kill()
        wait_until(lambda: all(master(port) not in (None, lost) for port in self._sentinels))
        new = master(self._sentinels[0])
        assert new is not None
        self.master = new
        return lost

    def come_back(self, port: int) -> None:
        """Starts a server that was killed as a replica, and waits until all is as before."""
        self.launch(port)
        self._wait_for_replicas()
        for sentinel in self._sentinels:
            wait_until(lambda sentinel=sentinel: knows_all(sentinel))  # type: ignore[misc]

    def _wait_for_replicas(self) -> None:
        # A Sentinel repeats what a server has missed only after a time: longer than `wait_until` waits.
        deadline = time.monotonic() + 5 * PATIENCE
        while ask(self.master, "WAIT 2 100") != ":2":
            assert time.monotonic() < deadline, f"the replicas do not follow {self.master}"
            # The Sentinels may have changed their mind.
            self.master = (master(self._sentinels[0]) if self._sentinels else None) or self.master

    def _watch(self) -> int:
        port = free_port()
        file = self._directory / f"sentinel-{port}.conf"
        monitor = f"port {port}\ndir {self._directory}\nsentinel monitor {NAME} 127.0.0.1 {self.master} 2"
        file.write_text(monitor + SETTINGS)
        sentinel = Process(f"sentinel {port}", self._directory / f"{port}.log")
        sentinel.start(["redis-sentinel", str(file)], os.environ)
        self._stack.callback(sentinel.end)
        wait_until(lambda: ask(port, "PING") == "+PONG")
        return port


def ask(port: int, command: str) -> str:
    """The answer to a command, up to 64 KiB; empty if the server does not answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(65_536).decode(errors="replace").rstrip()
    except OSError:
        return ""


def master(sentinel: int) -> int | None:
    """The port of the master, by a Sentinel."""
    words = ask(sentinel, f"SENTINEL get-master-addr-by-name {NAME}").split()
    return int(words[-1]) if words and words[-1].isdecimal() else None


def knows_all(sentinel: int) -> bool:
    """Whether a Sentinel knows both replicas, which are well, and both other Sentinels."""
    words = ask(sentinel, f"SENTINEL master {NAME}").split()
    facts = {word: words[at + 2] for at, word in enumerate(words[:-2])}
    replicas = ask(sentinel, f"SENTINEL replicas {NAME}")
    is_well = "s_down" not in replicas and "disconnected" not in replicas and replicas.count("master-link-status") == 2
    return is_well and (facts.get("num-slaves"), facts.get("num-other-sentinels"), facts.get("flags")) == (
        "2",
        "2",
        "master",
    )
