"""A service manager for tests: it keeps listening sockets, and passes them to one server after the other."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

from peers import PATIENCE

LAUNCHER = """
import fcntl, os, sys
numbers = [int(number) for number in sys.argv[1].split(",")]
kept = [fcntl.fcntl(number, fcntl.F_DUPFD, 100) for number in numbers]
for place, number in enumerate(kept, 3):
    os.dup2(number, place)
os.closerange(3 + len(kept), 200)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "cuttlefish_signaling", *sys.argv[2:]])
"""
"""Moves descriptors to 3 and on, as systemd does, and becomes the command line."""


def launch(
    descriptors: Sequence[int], *arguments: str, names: str = "", environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Starts `cuttlefish-signaling ARGUMENTS` with these descriptors."""
    found = {key: value for key, value in os.environ.items() if not key.startswith("CUTTLEFISH_SIGNALING_")}
    found |= {"LISTEN_FDS": str(len(descriptors)), "LISTEN_FDNAMES": names, **(environment or {})}
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, ",".join(map(str, descriptors)), *arguments],
        pass_fds=descriptors,
        env=found,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def listening(address: str | tuple[str, int] = ("127.0.0.1", 0), kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A socket that listens."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    found = socket.socket(family, kind)
    found.bind(address)
    found.listen(4096)
    return found


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Stops a server. Returns its status, stdout and log."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        output, log = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, output, log
