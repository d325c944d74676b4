"""Many messages at once, by peers of every kind: all arrive in order, and no peer is closed.

`FLOOD_SCALE=1` sends the full counts, 20,000 messages of 20 bytes and 5,000 of 4,000 bytes. Without it a tenth is sent.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from floods import LARGE, SMALL, Flood, ServerProcess, pair, relay

MAX_GROWTH = 64 * 1024
"""KiB by which the memory of the server may grow in one flood."""

TO_DEVICE = [
    ("raw", "loop", "raw"),
    ("raw", "write", "raw"),
    ("raw", "loop", "local"),
    ("raw", "write", "local"),
    ("bare", "write", "raw"),
    ("sync", "loop", "sync"),
    ("raw", "write", "sync"),
    ("async", "loop", "async"),
    ("async", "write", "async"),
    ("polled", "loop", "raw"),
    ("polled", "write", "raw"),
    ("polled", "write", "local"),
]
"""The kind of the client that sends, how it sends, and the kind of the device."""

TO_CLIENT = [
    ("raw", "loop", "raw"),
    ("raw", "write", "raw"),
    ("raw", "write", "bare"),
    ("local", "loop", "raw"),
    ("local", "loop", "polled"),
    ("raw", "write", "polled"),
    ("sync", "loop", "sync"),
    ("raw", "write", "sync"),
    ("async", "loop", "async"),
    ("async", "write", "async"),
]
"""The kind of the device that sends, how it sends, and the kind of the client."""

ids = itertools.count()


@pytest.fixture(scope="module", params=[1, 2], ids=["1 worker", "2 workers"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(request.param, tmp_path_factory.mktemp("sockets"))
    yield server
    stats = server.stop()
    assert stats["balances"], stats
    assert (stats["slow_consumers"], stats["panics"]) == (0, 0), stats


def assert_both_stay(device: Any, client: Any) -> None:
    relay(client, device, ["still there?"], "loop")
    relay(device, client, ["yes"], "loop")


@pytest.mark.parametrize("flood", [SMALL, LARGE], ids=["20 bytes", "4,000 bytes"])
@pytest.mark.parametrize(("sender", "how", "receiver"), TO_DEVICE)
def test_flood_of_client_arrives_at_device(
    server: ServerProcess, sender: str, how: str, receiver: str, flood: Flood
) -> None:
    with pair(server, receiver, sender, f"cvd-{next(ids)}") as (device, client):
        with server.growth_at_most(MAX_GROWTH):
            relay(client, device, flood.payloads(), how)
        assert_both_stay(device, client)


@pytest.mark.parametrize("flood", [SMALL, LARGE], ids=["20 bytes", "4,000 bytes"])
@pytest.mark.parametrize(("sender", "how", "receiver"), TO_CLIENT)
def test_flood_of_device_arrives_at_reading_client(
    server: ServerProcess, sender: str, how: str, receiver: str, flood: Flood
) -> None:
    with pair(server, sender, receiver, f"cvd-{next(ids)}") as (device, client):
        with server.growth_at_most(MAX_GROWTH):
            relay(device, client, flood.payloads(), how)
        assert_both_stay(device, client)
