"""`Cluster`: the settings of a server that is a node of a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import ClassVar, Literal

from . import _native
from ._checks import check_text
from .errors import ConfigError

ON_OUTAGE = ("admit", "hold")


class Cluster:
    """The cluster of which a server is a node: several servers that are one service, with one registry.

    A client reaches each device through each node. Nodes reach the engine (Redis 6 or later, or Valkey), and each other
    at `listen`. docs/cluster.md describes it.

    Args:
        url: The URL of the engine: `redis://HOST:6379`, or `redis+sentinel://HOST:26379,HOST:26379/MASTER`; `rediss`
            in the place of `redis` for TLS. It may have `USER:PASSWORD@` before the first host, and with Sentinels that
            have another password `?sentinel_password=PASSWORD` at its end. Neither is ever printed.
        name: The name of the service. Nodes of one name share a registry.
        listen: The address for other nodes, `ADDRESS:PORT`. Port 0: the system chooses a free port.
        address: The `HOST:PORT` at which other nodes reach this one. None: `listen`.
        secret: The text that all nodes share, at least 32 bytes. Of several, or of several lines, the first signs, and
            all verify, so that it can be replaced without an outage. None: no secret, which is allowed only where
            engine and `listen` are on loopback. It is never printed.
        node: The name of this node, unique in the cluster. None: the host name.
        ca: A file with the certificate authority of the engine, PEM, for TLS. None: those of the system.
        on_outage: The rule for a device that registers while the engine is unreachable. "admit": its node serves
            it alone until the engine is back. "hold": it is held, and refused after 5 s; and `start()` waits 10 s for
            the engine, then raises EngineUnreachableError.
        device_id_template: The name in the cluster of a device on a local socket, like `{node}-{id}`: devices of
            several hosts have the same ids. On its own node it keeps its own id as well. None: its own id.

    Raises:
        ConfigError: An argument is not allowed.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str = "default",
        listen: str = "127.0.0.1:0",
        address: str | None = None,
        secret: str | Iterable[str] | None = None,
        node: str | None = None,
        ca: str | os.PathLike[str] | None = None,
        on_outage: Literal["admit", "hold"] = "admit",
        device_id_template: str | None = None,
    ) -> None:
        check_text("Cluster.url", url, is_secret=True)
        check_text("Cluster.name", name)
        check_text("Cluster.listen", listen)
        check_text("Cluster.address", address, optional=True)
        check_text("Cluster.node", node, optional=True)
        check_text("Cluster.device_id_template", device_id_template, optional=True)
        if on_outage not in ON_OUTAGE:
            raise ConfigError("Cluster.on_outage", f"must be {' or '.join(map(repr, ON_OUTAGE))}, got {on_outage!r}")
        self._needs_engine = on_outage == "hold"
        self._native = _native.Cluster(
            url,
            name=name,
            node=_host_name() if node is None else node,
            listen=listen,
            address=address,
            secrets=_secrets(secret),
            ca=_path(ca),
            hold_on_outage=self._needs_engine,
            device_id_template=device_id_template,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cluster) and self._native == other._native

    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        # Neither the password of the URL nor the secret.
        return f"<{self._native!r}>"


def _host_name() -> str:
    import socket

    return socket.gethostname()


def _secrets(secret: str | Iterable[str] | None) -> list[str]:
    """Returns the secrets: the lines of a text, or the texts of a list. Empty lines do not count."""
    if secret is None:
        return []
    given = [secret] if isinstance(secret, str) else secret
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise ConfigError("Cluster.secret", f"must be a string, a list of strings or None, got {_kind(secret)}")
    found: list[str] = []
    for text in given:
        check_text("Cluster.secret", text, is_secret=True)
        found += [line.strip() for line in text.splitlines() if line.strip()]
    if not found:
        raise ConfigError("Cluster.secret", "is empty: give a text of at least 32 bytes, or None")
    return found


def _path(path: object) -> str | None:
    if path is None:
        return None
    try:
        text: object = os.fspath(path)  # type: ignore[call-overload]
    except TypeError:
        text = path
    if not isinstance(text, str) or not text or "\0" in text:
        raise ConfigError("Cluster.ca", f"must be a path or None, got {path!r}")
    check_text("Cluster.ca", text)
    return text


def _kind(value: object) -> str:
    return f"a value of type {type(value).__name__}"
