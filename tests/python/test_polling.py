"""Acknowledgement and errors of polled clients, in today's dialect and in the reference's (docs/protocol.md 5.3)."""

from __future__ import annotations

from typing import Any

import pytest

from cuttlefish_signaling import SignalingServer

from http_requests import request, request_json
from peers import wait_until
from polled import PolledClient, polled_client, send_forwards

UNKNOWN = {"error": "Error: Unknown connection ID", "type": "error"}


# Today's polling -----------------------------------------------------------------------------------------------------


def test_later_start_acknowledges_and_earlier_start_is_410() -> None:
    with polled_client() as (server, device, client):
        send_forwards(device, 0, 1, 2, 3, 4)
        client.wait_pending(0, 1, 2, 3, 4)
        assert client.get("start=0") == (200, [0, 1, 2, 3, 4])
        assert client.get("start=0&count=2") == (200, [0, 1]), "kept until it is acknowledged"
        assert client.get("start=2&count=1") == (200, [2])
        gone = "start=0: messages before 2 are gone, a later start has acknowledged them"
        assert client.get("start=0") == (410, gone)
        assert client.get("start=1&count=0") == (410, gone.replace("start=0", "start=1"))
        assert client.get("start=2") == (200, [2, 3, 4])
        assert client.get() == (200, [2, 3, 4]), "the default start is the first pending message"
        assert client.get("start=3&count=0") == (200, []), (
            "no message is asked for, and those before 3 are acknowledged"
        )
        assert client.get("start=2")[0] == 410
        assert client.get("start=5") == (200, [])
        assert client.get("start=4")[0] == 410
        stats = server.stats()
        assert (stats.accepted, stats.delivered, stats.gone) == (5, 5, 0)


def test_start_past_end_returns_and_acknowledges_nothing() -> None:
    with polled_client() as (_, device, client):
        send_forwards(device, 0, 1)
        client.wait_pending(0, 1)
        for start in (3, 10**18, 10**30):
            assert client.get(f"start={start}") == (200, [])
            assert client.get(f"start={start}&wait=5") == (200, [])
        assert client.get("start=0") == (200, [0, 1])
        send_forwards(device, 2)
        assert client.get("start=2&wait=10") == (200, [2])


def test_skipped_messages_count_as_gone() -> None:
    with polled_client() as (server, device, client):
        send_forwards(device, 0, 1, 2, 3, 4)
        client.wait_pending(0, 1, 2, 3, 4)
        assert client.get("start=0&count=2") == (200, [0, 1])
        assert client.get("start=4") == (200, [4])
        stats = server.stats()
        assert (stats.accepted, stats.delivered, stats.gone) == (5, 3, 2)


@pytest.mark.parametrize(
    "query", ["count=-1", "start=&count=", "start=&count=-1", "wait=", f"count={10**30}", "start=%30", "x=y"]
)
def test_default_query_values_return_all(query: str) -> None:
    with polled_client() as (_, device, client):
        send_forwards(device, 7, 8)
        client.wait_pending(7, 8)
        assert client.get(query) == (200, [7, 8])


NO_NUMBERS = {
    "start": ["-1", "x", "1.0", "%2B1", "%201"],
    "count": ["-2", "--1", "all", "1e3"],
    "wait": ["-1", "nan", "x", "inf"],
}


@pytest.mark.parametrize("query", [f"{key}={value}" for key, values in NO_NUMBERS.items() for value in values])
def test_non_numeric_query_is_400(query: str) -> None:
    with polled_client() as (_, device, client):
        send_forwards(device, 7)
        client.wait_pending(7)
        assert client.get(query) == (400, f"{query.split('=')[0]}: must be a number, 0 or more")
        assert client.get("wait=10") == (200, [7])


def test_head_neither_fetches_nor_acknowledges() -> None:
    with polled_client() as (server, device, client):
        send_forwards(device, 7, 8)
        client.wait_pending(7, 8)
        assert request(server, "HEAD", f"{client.path}/messages?start=1&wait=20")[2] == b""
        assert request(server, "HEAD", f"{client.path}/messages?start=2&wait=20")[0] == 200, "HEAD does not wait"
        assert server.stats().delivered == 0
        assert client.get("start=0") == (200, [7, 8])
        assert client.get("start=1") == (200, [8])
        assert request(server, "HEAD", f"{client.path}/messages?start=0")[0] == 410


def test_pending_messages_are_fetched_before_404_when_device_left() -> None:
    with polled_client() as (server, device, client):
        send_forwards(device, *range(5))
        device.close()
        found: list[Any] = []
        while len(found) < 5:
            status, payloads = client.get(f"start={len(found)}&count=2&wait=10")
            assert status == 200, payloads
            found += payloads
        assert found == [0, 1, 2, 3, 4]
        assert client.get("start=5&wait=10") == (404, "Device disconnected")
        assert client.get() == (404, "Device disconnected"), "all messages have been fetched"
        assert client.get("start=9") == (404, "Device disconnected")
        assert request_json(server, f"{client.path}/:forward", {"payload": 1}) == (
            404,
            {"error": "Device disconnected"},
        )
        stats = server.stats()
        assert (stats.accepted, stats.delivered) == (5, 5)


def wait_device_left(server: SignalingServer, client: PolledClient) -> None:
    """Returns when the connection has been closed because its device left."""
    left = (404, {"error": "Device disconnected"})
    wait_until(lambda: request_json(server, f"{client.path}/:forward", {"payload": 0}) == left)


def test_poll_without_start_is_404_once_all_is_fetched() -> None:
    with polled_client() as (server, device, client):
        send_forwards(device, 7)
        client.wait_pending(7)
        device.close()
        wait_device_left(server, client)
        assert client.get() == (200, [7])
        assert client.get() == (404, "Device disconnected")


def test_start_past_end_acknowledges_nothing_when_device_left() -> None:
    with polled_client() as (server, device, client):
        send_forwards(device, 0, 1)
        client.wait_pending(0, 1)
        device.close()
        wait_device_left(server, client)
        before = server.stats()
        for start in (2, 5):
            assert client.get(f"start={start}") == (404, "Device disconnected"), "nothing comes after the end"
        assert client.get("count=0") == (200, [])
        assert client.get("start=1") == (200, [1])
        assert client.get("start=2") == (404, "Device disconnected")
        stats = server.stats()
        assert (stats.delivered - before.delivered, stats.gone - before.gone) == (1, 1)


def test_last_messages_are_refetchable_until_polled_timeout() -> None:
    with polled_client() as (server, device, client):
        send_forwards(device, 0, 1)
        client.wait_pending(0, 1)
        device.close()
        wait_device_left(server, client)
        with server.clock.frozen() as clock:
            assert client.get("start=0") == (200, [0, 1])
            clock.advance(20)
            assert client.get("start=0") == (200, [0, 1])
            assert client.get("start=1") == (200, [1])
            assert client.get("start=0") == (404, "Device disconnected"), "acknowledged, and no more can follow"
            clock.advance(20)
            # Fetching again does not extend the timeout.
            wait_until(lambda: client.get("start=1") == (404, "Unknown connection"))


# The reference's polling ---------------------------------------------------------------------------------------------


def test_forward_returns_pending_messages() -> None:
    with polled_client() as (server, device, client):
        send_forwards(device, {"type": "offer"}, None, 1.5)
        client.wait_pending({"type": "offer"}, None, 1.5)
        body = {"connection_id": client.id, "payload": "up"}
        assert request_json(server, "/forward", body) == (200, [{"type": "offer"}, None, 1.5])
        assert device.receive() == {"message_type": "client_msg", "client_id": 1, "payload": "up"}
        assert request_json(server, "/forward", body) == (200, []), "acknowledged when they were sent"
        assert request_json(server, "/poll_messages", {"connection_id": client.id}) == (200, [])
        assert client.get("start=2") == (
            410,
            "start=2: messages before 3 are gone, a later start has acknowledged them",
        )
        assert client.get("start=3") == (200, [])
        send_forwards(device, "next")
        assert client.get("start=3&wait=10") == (200, ["next"])
        assert request_json(server, f"{client.path}/:forward", {"payload": "down"}) == (200, "ok"), (
            "today's dialect does not return them"
        )
        assert [device.receive()["payload"] for _ in range(2)] == ["up", "down"]
        stats = server.stats()
        assert (stats.accepted, stats.gone) == (4 + 3, 0)


def test_refused_forward_takes_no_messages() -> None:
    with polled_client() as (server, device, client):
        send_forwards(device, 7)
        client.wait_pending(7)
        for body, status in (
            ({"connection_id": client.id}, 400),
            ({"connection_id": client.id, "payload": "x" * 65_536}, 413),
            ({"connection_id": client.id, "payload": "x" * 300_000}, 413),
        ):
            assert request_json(server, "/forward", body)[0] == status
        assert request_json(server, "/poll_messages", {"connection_id": client.id}) == (200, [7])


def test_reference_error_text_has_close_reason() -> None:
    with polled_client() as (server, device, client):
        send_forwards(device, 7)
        client.wait_pending(7)
        device.close()
        wait_device_left(server, client)
        over = (401, {"error": "Error: Unknown connection ID: Device disconnected", "type": "error"})
        assert request_json(server, "/forward", {"connection_id": client.id, "payload": 1}) == over
        assert request_json(server, "/poll_messages", {"connection_id": client.id}) == (200, [7])
        assert request_json(server, "/poll_messages", {"connection_id": client.id}) == over


def test_timed_out_connection_is_unknown_in_both_dialects() -> None:
    with polled_client() as (server, device, client), server.clock.frozen() as clock:
        clock.advance(40)
        assert device.receive() == {"message_type": "client_disconnected", "client_id": 1}
        assert client.get() == (404, "Unknown connection")
        for path in ("/forward", "/poll_messages"):
            assert request_json(server, path, {"connection_id": client.id, "payload": 1}) == (401, UNKNOWN)


def test_reference_error_texts(server: SignalingServer) -> None:
    no_device = "No device associated to client"
    for path, body, status, text in (
        ("/connect", {"device_id": 'a"b'}, 404, "Connection failed: Device not found: 'a\"b'"),
        ("/connect", {}, 400, "Invalid connection request: Missing device id"),
        ("/forward", {"payload": 1}, 401, f"Forward failed: {no_device}"),
        ("/forward", {"connection_id": 7, "payload": 1}, 401, f"Forward failed: {no_device}"),
        ("/poll_messages", {}, 401, f"Poll failed: {no_device}"),
        ("/forward", {"connection_id": "x", "payload": 1}, 401, UNKNOWN["error"]),
        ("/poll_messages", {"connection_id": "x"}, 401, UNKNOWN["error"]),
        ("/forward", b"{", 400, "Received Invalid JSON"),
        ("/poll_messages", b"[]", 400, "Invalid message format"),
        ("/connect", b"x" * 300_000, 413, "Body too large: at most 262144 bytes"),
    ):
        assert request_json(server, path, body) == (status, {"error": text, "type": "error"}), (path, body)
