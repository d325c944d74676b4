"""Polled clients: long polls, acknowledgement, timeouts, limits and errors (docs/protocol.md 5.3)."""

from __future__ import annotations

import http.client
import json
import threading
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest

from cuttlefish_signaling import AuthorizeContext, Keepalive, Limits, SignalingServer

from client_kinds import DEVICE_ID, INFO, LongPollClient, both_sockets, register_local_device
from http_requests import request_json
from peers import PATIENCE, assert_returns, peers_of, wait_until
from polled import polled_client, send_forwards


def test_messages_are_kept_until_acknowledged(tmp_path: Path) -> None:
    with both_sockets(tmp_path) as (server, peers, path):
        device, client = register_local_device(path), LongPollClient(peers, DEVICE_ID)
        for number in range(5):
            device.send({"message_type": "forward", "client_id": 1, "payload": number})
        wait_until(lambda: len(request_json(server, f"{client.path}/messages")[1]) == 5)

        def numbers(query: str) -> Any:
            return [message["payload"] for message in request_json(server, f"{client.path}/messages?{query}")[1]]

        assert numbers("start=0") == [0, 1, 2, 3, 4]
        assert numbers("start=0&count=2") == [0, 1]
        assert numbers("start=2&count=1") == [2]
        assert numbers("start=2&count=0") == []
        assert numbers("start=9") == []
        assert numbers(f"start={10**18}&wait=5") == []
        assert request_json(server, f"{client.path}/messages?start=0")[0] == 410, "acknowledged messages are gone"
        assert numbers("start=2") == [2, 3, 4]
        assert numbers("start=5") == []
        assert server.stats().delivered == 5


@pytest.mark.parametrize("query", ["start=-1", "start=x", "count=-2", "wait=-1", "wait=nan"])
def test_invalid_poll_query_is_400(tmp_path: Path, query: str) -> None:
    with both_sockets(tmp_path) as (server, peers, path):
        _device = register_local_device(path)
        client = LongPollClient(peers, DEVICE_ID)
        status, answer = request_json(server, f"{client.path}/messages?{query}")
        assert (status, answer) == (400, {"error": f"{query.split('=')[0]}: must be a number, 0 or more"})


def test_long_poll_returns_when_message_arrives(tmp_path: Path) -> None:
    with both_sockets(tmp_path) as (_server, peers, path):
        device, client = register_local_device(path), LongPollClient(peers, DEVICE_ID)
        heard: list[Any] = []
        waiting = threading.Thread(target=lambda: heard.append(client.receive()))
        waiting.start()
        device.send({"message_type": "forward", "client_id": 1, "payload": "now"})
        waiting.join(PATIENCE)
        assert heard == ["now"]


def test_long_poll_does_not_delay_stop(tmp_path: Path) -> None:
    polled = threading.Event()

    def note(ctx: Any) -> None:
        if ctx.path.endswith("/messages"):
            polled.set()

    with both_sockets(tmp_path, authorize=note, stop_timeout=60) as (server, peers, path):
        device, client = register_local_device(path), LongPollClient(peers, DEVICE_ID)
        answers: list[Any] = []
        waiting = threading.Thread(
            target=lambda: answers.append(request_json(server, f"{client.path}/messages?start=0&wait=25"))
        )
        waiting.start()
        assert polled.wait(PATIENCE)
        assert_returns(server.stop)
        waiting.join(PATIENCE)
        # By where the stop meets it: while it is held, before that, or when the connection is gone already.
        ended = [(503, {"error": "Server stopping"}), (404, {"error": "Unknown connection"})]
        assert answers[0] in [(200, []), *ended], "the poll is answered"
        device.close()


def test_idle_polled_client_times_out(tmp_path: Path) -> None:
    with both_sockets(tmp_path) as (server, peers, path):
        device = register_local_device(path)
        away, there = LongPollClient(peers, DEVICE_ID), LongPollClient(peers, DEVICE_ID)
        with server.clock.frozen() as clock:
            clock.advance(20)
            assert request_json(server, f"{there.path}/messages") == (200, [])
            clock.advance(20)
            assert device.receive() == {"message_type": "client_disconnected", "client_id": 1}
            assert request_json(server, f"{away.path}/messages") == (404, {"error": "Unknown connection"})
            assert request_json(server, f"{away.path}/:forward", {"payload": 1}) == (
                404,
                {"error": "Unknown connection"},
            )
            there.send("present")
            assert device.receive()["payload"] == "present"


def test_outbox_overflow_of_polled_client_is_slow_consumer(tmp_path: Path) -> None:
    limits = Limits(max_message_size=1000, outbox_bytes=1000, outbox_budget=3000)
    with both_sockets(tmp_path, limits=limits) as (server, peers, path):
        device, client = register_local_device(path), LongPollClient(peers, DEVICE_ID)
        for number in range(60):
            device.send({"message_type": "forward", "client_id": 1, "payload": number})
        assert device.receive() == {"message_type": "client_disconnected", "client_id": 1}
        start, status = 0, 200
        found: Any = []
        while status == 200:
            status, found = request_json(server, f"{client.path}/messages?start={start}")
            start += len(found) if status == 200 else 0
        assert (status, found) == (404, {"error": "Slow consumer"})
        assert start < 60
        assert server.stats().slow_consumers == 1


BODIES = [b"", b"[]", b"5", b"{", b"\xff", b"[" * 5000, b'{"device_id":1,"device_id":2}']


@pytest.mark.parametrize("path", ["/polled_connections", "/connect", "/forward", "/poll_messages"])
@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body)[:20])
def test_invalid_bodies_are_400(server: SignalingServer, path: str, body: bytes) -> None:
    status, answer = request_json(server, path, body)
    assert (status, set(answer)) == (400, {"error"} if path == "/polled_connections" else {"error", "type"})


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/polled_connections", {}, 400, "Invalid connection request: Missing device id"),
        ("/polled_connections", {"device_id": 7}, 400, "Invalid connection request: Missing device id"),
        ("/polled_connections", {"device_id": "unknown"}, 404, "Device not found"),
        ("/polled_connections/x/:forward", {"payload": 1}, 404, "Unknown connection"),
        ("/polled_connections/x/messages", None, 404, "Unknown connection"),
        ("/devices/unknown", None, 404, "Device not found"),
        ("/polled_connections/x/messages", {}, 405, "Method not allowed"),
        ("/devices/x/connect", None, 426, "This is a WebSocket endpoint"),
    ],
)
def test_unknown_devices_and_connections_are_refused(
    server: SignalingServer, path: str, body: Any, status: int, said: str
) -> None:
    assert request_json(server, path, body) == (status, {"error": said})


def test_oversized_polled_forwards_are_413(tmp_path: Path) -> None:
    with both_sockets(tmp_path) as (server, peers, path):
        device, client = register_local_device(path), LongPollClient(peers, DEVICE_ID)
        assert request_json(server, f"{client.path}/:forward", {}) == (
            400,
            {"error": "Forward failed: No payload present in message"},
        )
        status, answer = request_json(server, f"{client.path}/:forward", {"payload": "x" * 250_000})
        assert status == 413
        assert answer["error"].startswith("Forward failed: Message too large: 250056 bytes for the device")
        status, answer = request_json(server, f"{client.path}/:forward", {"payload": "x" * 300_000})
        assert (status, answer) == (413, {"error": "Body too large: at most 262144 bytes"})
        client.send("x" * 200_000)
        assert len(device.receive()["payload"]) == 200_000


def test_polled_forward_is_judged_before_its_answer() -> None:
    with polled_client(journal=True) as (server, device, client):
        for payload in (1, "x" * 65_536, 2):
            status, _ = request_json(server, f"{client.path}/:forward", {"payload": payload})
            stats = server.stats()
            assert (status, stats.accepted, stats.refused) in [(200, 1, 0), (413, 2, 1), (200, 3, 1)], payload
        assert [device.receive()["payload"] for _ in range(2)] == [1, 2]
        forwards = server.journal.messages(direction="client->device")
        assert [entry.outcome for entry in forwards] == ["passed", "refused", "passed"]
        (told,) = server.journal.messages(direction="server->client", message_type="error")
        assert told.error is not None
        assert told.error.startswith("Forward failed: Message too large: 65592 bytes for the device")


def test_refused_polled_forwards_count_as_errors() -> None:
    with polled_client(limits=Limits(error_burst=3, error_per_second=1)) as (server, device, client):
        with server.clock.frozen():
            for _ in range(4):
                status, _ = request_json(server, f"{client.path}/:forward", {"payload": "x" * 65_536})
                assert status == 413
            assert device.receive() == {"message_type": "client_disconnected", "client_id": 1}
            assert client.get() == (404, "Too many errors: at most 1 a second")
        assert server.stats().too_fast == 1


KEPT, WAITING = ["x" * 10_000] * 7, ["y" * 10_000] * 2
"""The messages that a polled connection keeps with `outbox_bytes=65_536`, and some that wait in the outbox."""


def keeping_little() -> AbstractContextManager[tuple[SignalingServer, Any, Any]]:
    """A server that keeps few messages, without keepalive: the turned clock would end the device."""
    limits = Limits(max_message_size=65_536, outbox_bytes=65_536)
    return polled_client(limits=limits, keepalive=Keepalive(interval=None))


def send_more_than_is_kept(server: SignalingServer, device: Any, client: Any) -> None:
    send_forwards(device, *KEPT[:3])
    client.wait_pending(*KEPT[:3])
    send_forwards(device, *KEPT[3:])
    client.wait_pending(*KEPT)
    send_forwards(device, *WAITING)
    wait_until(lambda: server.stats().accepted == len(KEPT) + len(WAITING))


def test_polled_client_without_higher_start_is_slow_after_polled_timeout() -> None:
    with keeping_little() as (server, device, client):
        with server.clock.frozen() as clock:
            send_more_than_is_kept(server, device, client)
            for seconds in (20, 9):
                clock.advance(seconds)
                assert client.get("start=0") == (200, KEPT), "a request is not progress, and keeps the client"
            clock.advance(1)
            assert device.receive() == {"message_type": "client_disconnected", "client_id": 1}
            assert client.get("start=0") == (200, KEPT), "messages that were kept can be fetched"
            assert client.get(f"start={len(KEPT)}") == (404, "Slow consumer")
        stats = server.stats()
        assert (stats.slow_consumers, stats.silent) == (1, 0)


def test_higher_start_is_progress_of_polled_client() -> None:
    with keeping_little() as (server, device, client):
        with server.clock.frozen() as clock:
            send_more_than_is_kept(server, device, client)
            for start in (0, 1):
                assert client.get(f"start={start}&count=1")[0] == 200
                clock.advance(20)
            assert client.get("start=2") == (200, KEPT[2:] + WAITING)
        assert server.stats().slow_consumers == 0


def test_polled_forward_to_websocket_device_may_fill_one_frame(tmp_path: Path) -> None:
    """The bytes around the payload depend on the client id (docs/protocol.md 2.8)."""
    with both_sockets(tmp_path) as (server, peers, _path):
        device = peers.device("remote", INFO)
        client = LongPollClient(peers, "remote")
        around = len('{"message_type":"client_msg","client_id":1,"payload":""}')
        status, answer = request_json(server, f"{client.path}/:forward", {"payload": "x" * (65_537 - around)})
        error = "Forward failed: Message too large: 65537 bytes for the device, which takes at most 65536"
        assert (status, answer) == (413, {"error": error})
        client.send("x" * (65_536 - around))
        assert len(device.receive()["payload"]) == 65_536 - around


def test_polled_connections_are_limited_by_max_polled(tmp_path: Path) -> None:
    with both_sockets(tmp_path, limits=Limits(max_polled=1)) as (server, peers, path):
        _device = register_local_device(path)
        LongPollClient(peers, DEVICE_ID)
        full = {"error": "Too many polled connections"}
        assert request_json(server, "/polled_connections", {"device_id": DEVICE_ID}) == (503, full)
        assert request_json(server, "/connect", {"device_id": DEVICE_ID}) == (503, {**full, "type": "error"})
        assert server.stats().turned_away == 2


def connect_over(connection: http.client.HTTPConnection, path: str = "/polled_connections") -> tuple[int, str]:
    """Status, and the error if there is one."""
    connection.request("POST", path, json.dumps({"device_id": "cvd-1"}))
    response = connection.getresponse()
    answer = json.loads(response.read())
    return response.status, answer.get("error", "")


def by_query(ctx: AuthorizeContext) -> str | None:
    return ctx.query.get("as")


@pytest.mark.parametrize(
    ("limits", "what"),
    [
        (Limits(max_polled=4), "Too many polled connections"),
        (Limits(max_clients_per_device=4), "Connection failed: Too many clients of device 'cvd-1'"),
    ],
    ids=["polled connections", "clients of a device"],
)
def test_one_party_holds_half_of_the_places(limits: Limits, what: str) -> None:
    with SignalingServer(limits=limits, authorize=by_query) as server, peers_of(server) as peers:
        peers.device()
        one, two, three = (http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE) for _ in range(3))
        with closing(one), closing(two), closing(three):
            for _ in range(2):
                assert connect_over(one, "/polled_connections?as=alice") == (200, "")
            assert connect_over(one) == (503, f"{what} over one HTTP connection")
            assert connect_over(two, "/polled_connections?as=alice") == (503, f"{what} with one identity")
            assert connect_over(two, "/polled_connections?as=bob") == (200, "")
            assert connect_over(two) == (200, ""), "without identity"
            assert connect_over(three) == (503, what), "all places are taken"
        assert server.stats().turned_away == 3


def test_one_identity_holds_half_of_the_places_over_websockets() -> None:
    limits = Limits(max_clients_per_device=4)
    with SignalingServer(limits=limits, authorize=by_query) as server, peers_of(server) as peers:
        peers.device()
        held = [peers.pending_client("cvd-1", "?as=alice") for _ in range(2)]
        assert [client.receive()["message_type"] for client in held for _ in range(2)] == ["config", "device_info"] * 2
        refused = peers.pending_client("cvd-1", "?as=alice")
        assert refused.receive()["message_type"] == "config"
        error = "Connection failed: Too many clients of device 'cvd-1' with one identity"
        assert refused.receive() == {"error": error}
        assert refused.wait_close_frame() == (1013, error)
        for _ in range(2):
            peers.client()


def test_polled_connect_waits_for_device(tmp_path: Path) -> None:
    with both_sockets(tmp_path, device_wait_timeout=None) as (server, _peers, path):
        answers: list[Any] = []
        waiting = threading.Thread(
            target=lambda: answers.append(request_json(server, "/connect", {"device_id": "late"}))
        )
        waiting.start()
        wait_until(lambda: server.stats().connections == 1)
        device = register_local_device(path, "late")
        waiting.join(PATIENCE)
        assert answers[0][1].get("device_info") == INFO
        device.close()


def test_polled_connect_wait_is_bounded() -> None:
    with SignalingServer(device_wait_timeout=None, limits=Limits(polled_timeout=0.2)) as server:
        assert request_json(server, "/polled_connections", {"device_id": "late"}) == (
            404,
            {"error": "Device not found"},
        )


@pytest.mark.parametrize("path", ["/polled_connections", "/connect"])
def test_connection_ids_are_128_random_bits(tmp_path: Path, path: str) -> None:
    with both_sockets(tmp_path) as (server, _peers, socket_path):
        _device = register_local_device(socket_path)
        ids = [int(request_json(server, path, {"device_id": DEVICE_ID})[1]["connection_id"], 16) for _ in range(64)]
    # Each of the 128 bits is set in some ids and clear in others. A constant bit passes once in 2**63 runs.
    assert [sum(number >> bit & 1 for number in ids) in range(1, 64) for bit in range(128)] == [True] * 128
    assert all(number < 1 << 128 for number in ids)


def test_refused_polled_connect_takes_no_slot(tmp_path: Path) -> None:
    with both_sockets(tmp_path, limits=Limits(max_polled=2)) as (server, peers, path):
        device = register_local_device(path)
        for _ in range(10):
            assert request_json(server, "/connect", {"device_id": "unknown"})[0] == 404
        LongPollClient(peers, DEVICE_ID)
        device.close()


@pytest.mark.parametrize("path", ["/devices/%FF", "/polled_connections/%FF/messages"])
def test_id_in_path_must_be_utf_8(server: SignalingServer, path: str) -> None:
    assert request_json(server, path) == (400, {"error": "The id in the path is no UTF-8"})
