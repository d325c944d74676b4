"""The engine of a test's cluster: a `redis-server` in a directory of its own."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

from ..errors import ClusterError
from ._process import Process

PROGRAMS = ("redis-server", "valkey-server")

MISSING = (
    "signaling_cluster needs redis-server or valkey-server in PATH (Debian: apt-get install redis-server), "
    "and neither is there"
)


def find_engine() -> str | None:
    """The path of a program that can be the engine; None if there is none."""
    return next((path for name in PROGRAMS if (path := shutil.which(name)) is not None), None)


class Engine(Process):
    """The engine: Redis or Valkey, without persistence. Nodes reach it through the cluster's connections."""

    def __init__(self, directory: Path, port: int) -> None:
        super().__init__("engine", directory / "engine.log")
        self._directory = directory
        self._port = port

    @property
    def url(self) -> str:
        """The URL at which nodes reach it."""
        return f"redis://127.0.0.1:{self._port}"

    @property
    def socket(self) -> str:
        """The path of its Unix socket, which no partition affects."""
        return str(self._directory / "engine.sock")

    def launch(self) -> None:
        """Starts it, with the registry of the last `restart(empty=False)` if there is one."""
        program = find_engine()
        if program is None:
            raise ClusterError(MISSING)
        Path(self.socket).unlink(missing_ok=True)
        options = {
            "port": "0",
            "unixsocket": self.socket,
            "unixsocketperm": "700",
            "dir": str(self._directory),
            "dbfilename": "dump.rdb",
            "save": "",
            "appendonly": "no",
        }
        self.start([program, *(word for name, text in options.items() for word in (f"--{name}", text))], os.environ)
        self.wait_for("it answers", lambda: self._answers("PING", "+PONG"))

    def restart(self, *, empty: bool = True) -> None:
        """Kills it and starts it again: without the registry, or with the registry of this moment."""
        if not isinstance(empty, bool):
            raise ClusterError(f"engine.restart: empty must be True or False, got {empty!r}")
        if not empty:
            self.call("SAVE")
        if self.pid is not None:
            self.kill()
        if empty:
            (self._directory / "dump.rdb").unlink(missing_ok=True)
        self.launch()

    def call(self, command: str) -> str:
        """Returns the first line of the answer to a command of one line, like `FLUSHALL`. Raises ClusterError."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(5)
                connection.connect(self.socket)
                connection.sendall(f"{command}\r\n".encode())
                with connection.makefile("rb") as answer:
                    line = answer.readline().decode(errors="replace").rstrip()
        except OSError as error:
            raise ClusterError(f"the engine is {self.state}, and does not answer {command}: {error}") from None
        if line.startswith("-"):
            raise ClusterError(f"the engine refuses {command}: {line[1:]}")
        return line

    def _answers(self, command: str, wanted: str) -> bool | None:
        try:
            return True if self.call(command) == wanted else None
        except ClusterError:
            return None
