"""A process of a test's cluster: a node or the engine."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from ..errors import ClusterError

START_TIMEOUT = 30.0
"""Seconds for a process to start, on a machine that is busy."""
STOP_TIMEOUT = 15.0
POLL_INTERVAL = 0.01
LINES = 20
"""The last lines of the output of a process, for reports."""
TAIL = 65_536
"""Bytes of the output that these are taken from: a node that runs for long has a long log."""

T = TypeVar("T")


class Process:
    """A process that a test can pause and kill. Its output is in a file."""

    def __init__(self, name: str, output: Path) -> None:
        self.name = name
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None
        self._is_paused = False
        self._was_killed = False
        self.begin: int = 0
        """Place in the output, in bytes, at which that of its last start begins."""

    @property
    def pid(self) -> int | None:
        """The id of the process; None when it does not run."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def state(self) -> str:
        """`running`, `paused`, `killed`, `stopped`, or `ended with status N` if it has ended by itself."""
        if self.pid is not None:
            return "paused" if self._is_paused else "running"
        status = self._process.returncode if self._process is not None else 0
        if self._was_killed:
            return "killed"
        return f"ended with status {status}" if status else "stopped"

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Starts the process. Raises ClusterError if it runs, or cannot be started."""
        if self.pid is not None:
            raise ClusterError(f"{self.name} is {self.state} already, as process {self.pid}")
        with self._output.open("ab") as output:
            self.begin = output.tell()
            try:
                self._process = subprocess.Popen(
                    command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=output
                )
            except OSError as error:
                raise ClusterError(f"{self.name} cannot be started: {command[0]}: {error}") from None
        self._is_paused = self._was_killed = False

    def wait_for(self, what: str, find: Callable[[], T | None]) -> T:
        """Calls a function until it returns a value. Raises ClusterError if the process ends, or takes too long."""
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            # Before the call, which may take long on a busy machine.
            is_late = time.monotonic() > deadline
            if (found := find()) is not None:
                return found
            if self.pid is None:
                raise ClusterError(f"{self.name} has ended before {what}: {self.state}{self._last_lines()}")
            if is_late:
                raise ClusterError(f"{self.name} has run for {START_TIMEOUT:g} s without {what}{self._last_lines()}")
            time.sleep(POLL_INTERVAL)

    def pause(self) -> None:
        """Stops it as by SIGSTOP: it does nothing, and its connections stay open."""
        self._signal(signal.SIGSTOP, "pause")
        self._is_paused = True

    def resume(self) -> None:
        """Lets it go on after `pause`."""
        if self.state != "paused":
            raise ClusterError(f"{self.name} is {self.state}, and was to be resumed")
        self._signal(signal.SIGCONT, "resume")
        self._is_paused = False

    def kill(self) -> None:
        """Kills it as by SIGKILL (-9)."""
        self._signal(signal.SIGKILL, "kill")
        self._was_killed = True
        self._wait(STOP_TIMEOUT)

    def stop(self) -> None:
        """Ends it as by SIGTERM, and waits for its end."""
        if self.state == "paused":
            raise ClusterError(f"{self.name} is paused, and was to be stopped: resume it, or kill it")
        self._signal(signal.SIGTERM, "stop")
        self._wait(STOP_TIMEOUT)

    def end(self) -> None:
        """Kills it, if it runs."""
        if self._process is not None and self.pid is not None:
            self._process.kill()
            self._process.wait()

    def output(self, since: int = 0) -> str:
        """All that it has written to stdout and stderr, without the first bytes."""
        if not self._output.exists():
            return ""
        with self._output.open("rb") as output:
            output.seek(since)
            return output.read().decode(errors="replace")

    def last_lines(self, since: int = 0) -> str:
        """The last lines that it has written to stdout and stderr, over all its starts, without the first bytes."""
        size = self._output.stat().st_size if self._output.exists() else 0
        return "\n".join(self.output(max(since, size - TAIL)).splitlines()[-LINES:])

    def _last_lines(self) -> str:
        """Those of its last start, for an error."""
        lines = self.last_lines(self.begin)
        if not lines:
            return "; it said nothing"
        return f"; it said: {lines}" if "\n" not in lines else f"; it said:\n{lines}"

    def _signal(self, number: signal.Signals, what: str) -> None:
        if self._process is None or (pid := self.pid) is None:
            done = {"stop": "stopped"}.get(what, f"{what}{'' if what.endswith('e') else 'e'}d")
            raise ClusterError(f"{self.name} is {self.state}, and was to be {done}")
        os.kill(pid, number)

    def _wait(self, timeout: float) -> None:
        assert self._process is not None
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ClusterError(f"{self.name} has not ended within {timeout:g} s{self._last_lines()}") from None


def clean_environment() -> dict[str, str]:
    """The environment without settings of the server, which would apply to each node."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CUTTLEFISH_SIGNALING_")}
