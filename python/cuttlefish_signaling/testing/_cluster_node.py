"""A node of a test's cluster: `cuttlefish-signaling serve` as a process of its own."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._annotations import late_annotations
from .._settings import FLAGS, Flag
from .._settings.kinds import Choice, Switch
from ..errors import ClusterError, ConfigError, NotOursError
from ._attached import AttachedServer
from ._process import Process, clean_environment

_FLAGS = {flag.key: flag for flag in FLAGS}

OWN = (
    *("host", "port", "listen", "no_tls", "operator", "tls_cert", "tls_key", "state_dir"),
    *("cluster", "cluster_name", "cluster_listen", "cluster_address", "node", "log_level"),
)
"""The settings that the kit makes for each node."""


def arguments_of(place: str, settings: Mapping[str, Any]) -> list[str]:
    """Returns the flags of settings, which have the names of flags with underscores. Raises ConfigError."""
    import difflib

    arguments = []
    for name, value in settings.items():
        flag = _FLAGS.get(name)
        if flag is None:
            near = difflib.get_close_matches(str(name), _FLAGS, 1)
            hint = f"did you mean {near[0]!r}?" if near else "the names are those of the flags of serve, with _ for -"
            raise ConfigError(f"{place}: {name}", f"unknown setting; {hint}")
        if name in OWN:
            raise ConfigError(f"{place}: {name}", "is set by the cluster of the test: leave it out")
        arguments += _flags_of(f"{place}: {name}", flag, value)
    return arguments


def _flags_of(place: str, flag: Flag, value: Any) -> list[str]:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if value is None and flag.kind.optional:
        return [f"--{flag.name}=none"]
    if value is None and flag.default is None:
        return []
    if isinstance(value, tuple):
        value = list(value)
    read = flag.kind.read(place, value)
    if isinstance(flag.kind, Switch) and not isinstance(flag.kind, Choice):
        return [f"--{flag.name}"] if read else []
    texts = read if flag.kind.repeats else [read]
    return [f"--{flag.name}={text}" for text in texts]


class ClusterNode(AttachedServer):
    """A node of a cluster. Fake peers take it as their `server`; `devices()` and `wait_for_device()` ask it."""

    def __init__(self, name: str, directory: Path, arguments: list[str], engine_url: str, link_port: int) -> None:
        # `AttachedServer.__init__` needs a server that answers: `launch` calls it.
        self._name = name
        self._process = Process(f"node {name}", directory / f"{name}.log")
        self._arguments = arguments
        self._engine_url = engine_url
        self._link_port = link_port
        self._port = 0

    @property
    def name(self) -> str:
        """The name of the node in the cluster."""
        return self._name

    @property
    def pid(self) -> int | None:
        """The id of its process; None when it does not run."""
        return self._process.pid

    @property
    def state(self) -> str:
        """`running`, `paused`, `killed`, `stopped`, or `ended with status N` if it has ended by itself."""
        return self._process.state

    def log(self) -> str:
        """All that the node has logged, over all its starts."""
        return self._process.output()

    def _launch(self) -> tuple[str, int]:
        """Starts the process, at the port of its first start. Returns the address for other nodes."""
        own = {
            "port": self._port,
            "cluster": self._engine_url,
            "cluster-listen": "127.0.0.1:0",
            "cluster-address": f"127.0.0.1:{self._link_port}",
            "node": self.name,
        }
        flags = [f"--{name}={value}" for name, value in own.items()]
        command = [sys.executable, "-m", "cuttlefish_signaling", "serve", "--no-tls", *flags, *self._arguments]
        self._process.start(command, clean_environment())

        def addresses() -> list[str] | None:
            # Only what this start writes: the log of a node that runs for long is long.
            told = self._process.output(self._process.begin)
            found = [re.search(rf"^{kind}: (\S+)$", told, re.MULTILINE) for kind in ("listening", "cluster")]
            return [match[1] for match in found if match] if all(found) else None

        url, address = self._process.wait_for("it listens", addresses)
        if not self._port:
            super().__init__(url)
            self._port = self.port
        host, _, port = address.rpartition(":")
        return host, int(port)

    def _not_available(self, name: str) -> NotOursError:
        return NotOursError(f"{name} is not available: node {self.name} runs in a process of its own")

    def _check_runs(self) -> None:
        if self.state != "running":
            raise ClusterError(f"node {self.name} is {self.state}")

    def __repr__(self) -> str:
        url = f" {self.url}" if self._port else ""
        return f"<ClusterNode {self.name}{url} {self.state}>"


late_annotations(globals())
