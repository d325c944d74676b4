"""`IceCommand`: ICE servers that a command prints."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from . import _native
from ._checks import check_seconds, check_text
from ._ice_server import IceServer, StaticIceServers
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
        fallback: ICE servers for the time without servers of the command: `IceServer`s or dictionaries.

    Raises:
        ConfigError: An argument is not allowed.
    """

    def __init__(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        timeout: float = 5.0,
        ttl: float = 300.0,
        fallback: StaticIceServers = (),
    ) -> None:
        if isinstance(argv, str | bytes) or not isinstance(argv, Sequence):
            raise ConfigError("IceCommand.argv", f"must be a list of strings, got {argv!r}")
        words = [os.fspath(word) if isinstance(word, os.PathLike) else word for word in argv]
        for word in words:
            check_text("IceCommand.argv", word)
        check_seconds("IceCommand.timeout", timeout)
        check_seconds("IceCommand.ttl", ttl)
        self._native = _native.IceCommand(words, timeout, ttl, ice_json(fallback, "IceCommand.fallback"))
        self._program = words[0]

    def __repr__(self) -> str:
        # Arguments may hold a secret.
        return f"<IceCommand {self._program!r}>"


MAX_SERVERS = 4_096
"""The most entries that are read. No `config` message has room for them."""


def ice_json(servers: Any, name: str = "ice_servers") -> str:
    """Returns the JSON of a list of ICE servers. Raises ConfigError, which names the entry.

    Args:
        servers: `IceServer`s or dictionaries, one of them, or the answer of a provider.
        name: The name in errors.
    """
    try:
        return _native.checked_ice_servers(written(servers))
    except ConfigError as error:
        raise ConfigError(error.setting.replace("ice_servers", name, 1), error.what) from None


_encode = json.JSONEncoder(allow_nan=False).encode


def written(servers: Any) -> str:
    """Returns the JSON of ICE servers, whose entries are not checked yet. Raises ConfigError for another value."""
    value: Any
    if isinstance(servers, list):
        value = _entries(servers)
    elif isinstance(servers, IceServer | Mapping):
        value = _entry(servers)
    elif isinstance(servers, str | bytes) or not isinstance(servers, Iterable):
        got = type(servers).__name__
        raise ConfigError("ice_servers", f"expected a list of IceServer, got a value of type {got}")
    else:
        value = _entries(servers)
    try:
        return _encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError("ice_servers", f"cannot be written as JSON: {error}") from error


def _entries(servers: Iterable[Any]) -> list[Any]:
    entries = [_entry(entry) for entry in islice(servers, MAX_SERVERS + 1)]
    if len(entries) > MAX_SERVERS:
        raise ConfigError("ice_servers", f"has more than {MAX_SERVERS} entries")
    return entries


def _entry(entry: Any) -> Any:
    if type(entry) is dict:
        return entry
    if isinstance(entry, IceServer):
        return entry._json()
    return dict(entry) if isinstance(entry, Mapping) else entry
