"""`Upstream`: the server behind a proxy."""

from __future__ import annotations

import os
from typing import NamedTuple

from ._checks import check_seconds, check_text
from .errors import ConfigError


class _Given(NamedTuple):
    """The checked arguments, as the core reads them."""

    url: str
    ca: str | None
    insecure: bool
    timeout: float


class Upstream:
    """The server to which a proxy passes everything on: `SignalingServer(upstream=Upstream("wss://host:1443"))`.

    docs/standing-between.md describes it.

    Args:
        url: `ws://HOST:PORT` or `wss://HOST:PORT`, with a path that is put in front of each path. `http` and `https`
            mean the same.
        ca: File with its certificate authorities, PEM. None: those of the system.
        insecure: Whether its certificate may be any, as a device of Cuttlefish accepts it.
        timeout: Time for a connection to it, and for its answer to an upgrade. Other answers may take
            `Limits.polled_timeout`, if that is longer. A real device disconnects after 10 s.

    Raises:
        ConfigError: An argument is not allowed.
    """

    __slots__ = ("_given",)

    def __init__(
        self,
        url: str,
        *,
        ca: str | os.PathLike[str] | None = None,
        insecure: bool = False,
        timeout: float = 10.0,
    ) -> None:
        check_text("Upstream.url", url)
        try:
            path: object = None if ca is None else os.fspath(ca)
        except TypeError:
            path = b""
        if path is not None and (not isinstance(path, str) or not path or "\0" in path):
            raise ConfigError("Upstream.ca", f"must be a path or None, got {ca!r}")
        if not isinstance(insecure, bool):
            raise ConfigError("Upstream.insecure", f"must be True or False, got {insecure!r}")
        check_seconds("Upstream.timeout", timeout, zero=False)
        self._given = _Given(url, path, insecure, float(timeout))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Upstream) and self._given == other._given

    def __hash__(self) -> int:
        return hash(self._given)

    def __repr__(self) -> str:
        url, *rest = self._given
        more = zip(_Given._fields[1:], rest, strict=True)
        return f"Upstream({url!r}{''.join(f', {name}={value!r}' for name, value in more)})"
