"""Clients that wait for their device: in Python, in errors, in `GET /metrics`, on the dashboard and in the log."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from typing import Any

import pytest
from test_dashboard_events import events, next_event
from test_metrics import scrape

from cuttlefish_signaling import Grant, SignalingServer, WaitTimeoutError

from peers import PATIENCE, Peers, peers_of, wait_until


def waits(server: SignalingServer) -> list[str]:
    return [client.device_id for client in server.waiting()]


def waiting_client(peers: Peers, device_id: str, **options: Any) -> Any:
    """A client that has received its config, and waits."""
    client = peers.pending_client(device_id, **options)
    assert client.receive()["message_type"] == "config"
    peers.server.wait_for_client(device_id, waiting=True, timeout=PATIENCE)
    return client


def test_waiting_clients_are_listed() -> None:
    begun = time.time()
    with SignalingServer(device_wait_timeout=None) as server, peers_of(server) as peers:
        assert (server.waiting(), server.stats().waiting) == ([], 0)
        clients = [waiting_client(peers, device_id) for device_id in ("b", "a", "b")]
        wait_until(lambda: server.stats().waiting == 3)
        assert waits(server) == ["a", "b", "b"]
        assert server.waiting("c") == []
        first, second = server.waiting("b")
        assert (first.device_id, first.address, first.identity) == ("b", "127.0.0.1", None)
        assert first.port == clients[0].socket.local_address[1]
        assert begun <= first.since <= second.since <= time.time()
        assert server.wait_for_client("b", waiting=True) == first
        assert server.wait_for_client(waiting=True) == first
        # Each of them waits no more: one disconnects, the device of the others registers.
        clients[1].close()
        wait_until(lambda: waits(server) == ["b", "b"])
        peers.device("b")
        assert [clients[at].receive()["message_type"] for at in (0, 2)] == ["device_info"] * 2
        assert (server.waiting(), server.stats().waiting, server.stats().clients) == ([], 0, 2)


def test_refused_clients_do_not_wait(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "cuttlefish_signaling"), SignalingServer() as server, peers_of(server) as peers:
        client = peers.pending_client("late")
        assert [client.receive(), client.receive()][1] == {"error": "Connection failed: Device not found: 'late'"}
    assert "waits for device" not in caplog.text


def test_waiting_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "cuttlefish_signaling"):
        with SignalingServer(device_wait_timeout=None) as server, peers_of(server) as peers:
            waiting_client(peers, 'la"te')
    assert re.search(r'a client from 127\.0\.0\.1:\d+ waits for device "la\\"te"', caplog.text)


def test_client_waits_for_device_that_is_not_granted() -> None:
    """A registered device that the client may not use is one that it waits for."""

    def first_only(ctx: Any) -> Grant:
        return Grant("x", devices=["a"] if ctx.role == "client" else None)

    with SignalingServer(authorize=first_only, device_wait_timeout=None) as server, peers_of(server) as peers:
        peers.device("b")
        waiting_client(peers, "b")
        assert [client.identity for client in server.waiting()] == ["x"]
        peers.device("a")
        peers.client("a")
        assert waits(server) == ["b"]


def test_wait_for_waiting_client_is_awaitable() -> None:
    async def main(server: SignalingServer, peers: Peers) -> None:
        wait = asyncio.create_task(server.wait_for_client_async("late", waiting=True, timeout=PATIENCE))
        await asyncio.to_thread(peers.pending_client, "late")
        assert (await wait).device_id == "late"
        with pytest.raises(WaitTimeoutError, match=r"a client to wait for device 'other'; .*: 'late' \(1\)$"):
            await server.wait_for_client_async("other", waiting=True, timeout=0)

    with SignalingServer(device_wait_timeout=None) as server, peers_of(server) as peers:
        asyncio.run(main(server, peers))


def test_errors_of_waits_name_waiting_clients() -> None:
    with SignalingServer(device_wait_timeout=None) as server, peers_of(server) as peers:
        for device_id in ("late", "late", "other"):
            waiting_client(peers, device_id)
        wait_until(lambda: server.stats().waiting == 3)
        told = "no device is registered; clients connected: 0; clients waiting for: 'late' (2), 'other' (1)"
        for wait, what in (
            (lambda: server.wait_for_device("cvd-1", timeout=0), "device 'cvd-1' to register"),
            (lambda: server.wait_for_client(timeout=0), "a client to connect"),
            (lambda: server.wait_for_client("x", timeout=0), "a client to connect to device 'x'"),
            (lambda: server.wait_for_client("x", timeout=0, waiting=True), "a client to wait for device 'x'"),
        ):
            with pytest.raises(WaitTimeoutError, match=f"^waited 0 s for {what}; {re.escape(told)}$"):
                wait()
        for number in range(25):
            waiting_client(peers, f"n{number:02}")
        with pytest.raises(WaitTimeoutError, match=r"'n18' \(1\) and 7 more$"):
            server.wait_for_client(timeout=0)


def test_metrics_count_waiting_clients() -> None:
    with SignalingServer(device_wait_timeout=None) as server, peers_of(server) as peers:
        waiting_client(peers, "late")
        assert scrape(server)["waiting_clients"] == 1


def test_dashboard_shows_what_viewer_may_see() -> None:
    def by_team(ctx: Any) -> Grant | None:
        team = ctx.query.get("team")
        return Grant(team, devices=[f"{team}-*"]) if team else None

    with SignalingServer(authorize=by_team, dashboard=True, device_wait_timeout=None) as server:
        with peers_of(server) as peers:
            for device_id in ("red-1", "red-1", "blue-1"):
                waiting_client(peers, device_id)
            wait_until(lambda: server.stats().waiting == 3)
            for query, shown, count in (
                ("", [("blue-1", 1), ("red-1", 2)], 3),
                ("?team=red", [("red-1", 2)], 2),
                ("?team=green", [], 0),
            ):
                with events(server, query) as answer:
                    _, overview = next_event(answer)
                assert [(row["device_id"], row["clients"]) for row in overview["waiting"]] == shown
                assert overview["server"]["waiting"] == count
            for number in range(60):
                waiting_client(peers, f"n{number:02}")
            with events(server) as answer:
                _, overview = next_event(answer)
            assert (len(overview["waiting"]), overview["server"]["waiting"]) == (50, 63)
