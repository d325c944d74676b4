"""Fixtures: a server with default settings, and peers to talk to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cuttlefish_signaling import SignalingServer

from peers import Peers, peers_of

pytest_plugins = ["pytester"]


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
