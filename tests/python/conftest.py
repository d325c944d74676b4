"""Fixtures: a server with default settings, and peers to talk to it."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from cuttlefish_signaling import SignalingServer

from peers import Peers, peers_of

pytest_plugins = ["pytester"]

STATE = tempfile.TemporaryDirectory(prefix="cuttlefish-signaling-")
"""What `serve` keeps in the tests: not in the home of the user who runs them."""
os.environ["XDG_STATE_HOME"] = STATE.name
os.environ.pop("STATE_DIRECTORY", None)


@pytest.fixture(autouse=True)
def balanced_ledgers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Looks into the books of every server a test has started: at rest, each forward has come to one of its ends."""
    servers: list[weakref.ref[SignalingServer]] = []  # One test is about a server that is forgotten.
    start = SignalingServer._start

    def remembered(self: SignalingServer, *arguments: Any) -> None:
        start(self, *arguments)
        servers.append(weakref.ref(self))

    monkeypatch.setattr(SignalingServer, "_start", remembered)
    yield
    for server in [server for remembered in servers if (server := remembered()) is not None]:
        if server.is_running:
            server.stop()
        stats = server.stats()
        assert stats.balances, stats


@pytest.fixture
def server() -> Iterator[SignalingServer]:
    """A server with default settings."""
    with SignalingServer() as server:
        yield server


@pytest.fixture
def peers(server: SignalingServer) -> Iterator[Peers]:
    """Peers of `server`."""
    with peers_of(server) as peers:
        yield peers
