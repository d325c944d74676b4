"""Fixtures: a server with default settings, and peers to talk to it."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cuttlefish_signaling import SignalingServer

from peers import Peers, peers_of
from plugin_suite import parametrize, where

__all__ = ["where"]

pytest_plugins = ["pytester"]

sys.path.append(str(Path(__file__).parents[1]))  # For `raw`.

STATE = tempfile.TemporaryDirectory(prefix="cuttlefish-signaling-")
"""The state directory of `serve` in the tests, which is not in the home of the user."""
os.environ["XDG_STATE_HOME"] = STATE.name
os.environ.pop("STATE_DIRECTORY", None)
for variable in ("URL", "CONTROL", "CONTROL_API", "CONTROL_TOKEN_FILE"):
    os.environ.pop(f"CUTTLEFISH_SIGNALING_{variable}", None)

# Its plugin takes a second of each run of pytest that tests start.
os.environ["PYTEST_ADDOPTS"] = f"{os.environ.get('PYTEST_ADDOPTS', '')} -p no:schemathesis".strip()

if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    # `nohup make test`: the programs that tests start would ignore SIGHUP too. A handler is not inherited.
    signal.signal(signal.SIGHUP, lambda _number, _frame: None)


@pytest.fixture(autouse=True)
def balanced_ledgers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Checks the ledger of each server that a test has started: at rest, each forward has one outcome."""
    servers: list[weakref.ref[SignalingServer]] = []  # Weak: one test needs a server to be collected.
    start = SignalingServer._start

    def recorded(self: SignalingServer, *arguments: Any) -> None:
        start(self, *arguments)
        servers.append(weakref.ref(self))

    monkeypatch.setattr(SignalingServer, "_start", recorded)
    yield
    for server in [server for reference in servers if (server := reference()) is not None]:
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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The tests of the pytest plugin run in this process, and attached to another one."""
    if "where" in metafunc.fixturenames:
        parametrize(metafunc)


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Readable ids for values that pytest would number: a short `repr`, unless it has an address in it.

    Sets are left out: their order differs between the workers of pytest-xdist.
    """
    if not isinstance(val, dict | list | tuple | Exception):
        return None
    text = repr(val)
    return None if " at 0x" in text or len(text) > 60 else text
