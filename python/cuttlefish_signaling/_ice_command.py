"""`IceCommand`: ICE servers that a command prints."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

from . import _native
from ._checks import check_seconds
from ._models import IceServer
from .errors import ConfigError


class IceCommand:
    """A command that prints ICE servers as JSON on its standard output. No shell is involved.

    The command prints `{"ice_servers": [...]}`, as the delegate of Cuttlefish's own operator does, or the list itself.
    The object may have a `"ttl"`: the seconds for which the credentials are valid.

    One run is under way at a time; all peers that ask meanwhile get its servers, and so do those that ask within `ttl`.
    When a run fails, the servers of the last good one are used for as long as they are valid, then `fallback`. Each
    failure is logged with the program, its exit status and the beginning of its standard error, and counted
    (`stats().ice_command_failures`). The next run begins 10 s later at the earliest. Registered devices get new servers
    after `ttl`.

    Args:
        argv: The program and its arguments.
        timeout: Seconds after which a run is killed, with the processes that it has started.
        ttl: Seconds for which the servers of a run are used. Without a `"ttl"` in the output, they count as valid for
            twice that time; with one, they are used for half of it at most.
        fallback: `IceServer`s or dictionaries for the time without servers of the command.

    Raises:
        ConfigError: An argument is not allowed.
    """

    def __init__(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        timeout: float = 5.0,
        ttl: float = 300.0,
        fallback: Iterable[IceServer | dict[str, Any]] = (),
    ) -> None:
        if isinstance(argv, str | bytes) or not isinstance(argv, Sequence):
            raise ConfigError("IceCommand.argv", f"must be a list of strings, got {argv!r}")
        words = [os.fspath(word) if isinstance(word, os.PathLike) else word for word in argv]
        if not all(isinstance(word, str) for word in words):
            raise ConfigError("IceCommand.argv", f"must be a list of strings, got {argv!r}")
        check_seconds("IceCommand.timeout", timeout)
        check_seconds("IceCommand.ttl", ttl)
        self._native = _native.IceCommand(words, timeout, ttl, ice_json(fallback))
        self._program = words[0]

    def __repr__(self) -> str:
        # Arguments may hold a secret.
        return f"<IceCommand {self._program!r}>"


def ice_json(servers: Any) -> str:
    """Returns the JSON of a list of `IceServer`s or dictionaries. Raises ConfigError, which names the entry."""
    if isinstance(servers, str | bytes | dict | IceServer) or not isinstance(servers, Iterable):
        raise ConfigError("ice_servers", f"expected a list of IceServer, got a value of type {type(servers).__name__}")
    entries = [entry._json() if isinstance(entry, IceServer) else entry for entry in servers]
    try:
        text = json.dumps(entries, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError("ice_servers", f"cannot be written as JSON: {error}") from error
    _native.check_ice_servers(text)
    return text
