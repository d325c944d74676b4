"""Two nodes of one cluster in this process, for tests."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cuttlefish_signaling import Cluster, SignalingServer
from cuttlefish_signaling.testing._engine import Engine
from cuttlefish_signaling.testing._links import Links


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
