"""Two nodes of one cluster in this process, for tests."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from cuttlefish_signaling import Cluster, SignalingServer
from cuttlefish_signaling.testing._engine import Engine
from cuttlefish_signaling.testing._links import Links

from peers import PATIENCE


def started_engine(stack: ExitStack) -> Engine:
    """A real engine, until the stack is closed."""
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    links = Links(dict)
    stack.callback(links.close)
    engine = Engine(directory, links.listen("engine"))
    engine.launch()
    stack.callback(engine.end)
    links.connect_to("engine", engine.socket)
    return engine


class Farm:
    """Two nodes in this process, and their engine."""

    def __init__(self, stack: ExitStack, *, secret: str | None = None, **settings: Any) -> None:
        self.engine = started_engine(stack)
        self._stack = stack
        self._secret = secret
        self.a = self.node("a", **settings)
        self.b = self.node("b", **settings)

    def node(self, name: str, **settings: Any) -> SignalingServer:
        cluster = Cluster(self.engine.url, name="lab", node=name, secret=self._secret)
        return self._stack.enter_context(SignalingServer(cluster=cluster, **settings))


Place: TypeAlias = Callable[..., AbstractContextManager[tuple[SignalingServer, SignalingServer]]]
"""Starts the server of the page and that of the device, with settings."""


@contextmanager
def one_server(**settings: Any) -> Iterator[tuple[SignalingServer, SignalingServer]]:
    """Page and device have the same server."""
    with SignalingServer(**settings) as server:
        yield server, server


@contextmanager
def two_nodes(**settings: Any) -> Iterator[tuple[SignalingServer, SignalingServer]]:
    """Page and device have different nodes of a cluster."""
    with ExitStack() as stack:
        farm = Farm(stack, **settings)
        for node in (farm.a, farm.b):
            node.wait_for_nodes(2, timeout=PATIENCE)
        yield farm.b, farm.a
