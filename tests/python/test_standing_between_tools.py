"""Journal, faults, page and waits of a proxy (docs/standing-between.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from cuttlefish_signaling import SignalingServer

from peers import PATIENCE, wait_until

HERE = [("device", "client"), ("device",), ("client",)]
"""The peers that are connected through the proxy: both, or one of them."""


class Pair:
    """A device and a client."""

    def __init__(
        self, behind: SignalingServer, proxy: SignalingServer, device: ClientConnection, client: ClientConnection
    ):
        self.behind, self.proxy, self.device, self.client = behind, proxy, device, client

    def to_device(self, payload: Any) -> None:
        self.client.send(json.dumps({"message_type": "forward", "payload": payload}))

    def to_client(self, payload: Any) -> None:
        self.device.send(json.dumps({"message_type": "forward", "client_id": 3, "payload": payload}))

    def heard(self, peer: str) -> Any:
        return json.loads(getattr(self, peer).recv(PATIENCE))["payload"]


@contextmanager
def pair(here: tuple[str, ...]) -> Iterator[Pair]:
    """A pair whose client has the id 3 at the server: two clients before it have left."""
    with ExitStack() as stack:
        behind = stack.enter_context(SignalingServer())
        proxy = stack.enter_context(SignalingServer(upstream=behind.url, journal=True))
        entrance = {peer: proxy if peer in here else behind for peer in ("device", "client")}
        device = stack.enter_context(connect(entrance["device"].device_url))
        device.send('{"message_type":"register","device_id":"d","device_info":{"a":1}}')
        device.recv(PATIENCE)
        for _ in range(2):
            with connect(behind.client_url) as early:
                early.send('{"message_type":"connect","device_id":"d"}')
                early.recv(PATIENCE), early.recv(PATIENCE)
            device.recv(PATIENCE)
        client = stack.enter_context(connect(entrance["client"].client_url))
        client.send('{"message_type":"connect","device_id":"d"}')
        client.recv(PATIENCE), client.recv(PATIENCE)
        made = Pair(behind, proxy, device, client)
        made.to_device({"type": "request-offer"})
        assert made.heard("device") == {"type": "request-offer"}
        yield made
    for server in (behind, proxy):
        stats = server.stats()
        assert stats.balances and (stats.devices, stats.clients, stats.connections, stats.panics) == (0, 0, 0, 0)


@pytest.mark.parametrize("here", HERE)
def test_journal_has_each_forward_once_whichever_peers_are_here(here: tuple[str, ...]) -> None:
    with pair(here) as it:
        it.to_client({"type": "offer"})
        assert it.heard("client") == {"type": "offer"}
        it.to_device({"type": "answer"})
        assert it.heard("device") == {"type": "answer"}
        forwards = it.proxy.journal.messages(message_type="forward")
        assert [(e.direction, e.device, e.payload["type"]) for e in forwards] == [
            ("client->device", "d", "request-offer"),
            ("device->client", "d", "offer"),
            ("client->device", "d", "answer"),
        ]
        # The server tells the id to devices alone.
        assert {entry.client for entry in forwards} == {3 if "device" in here else 1}
        assert it.proxy.stats().accepted == 3
        wait_until(lambda: it.proxy.stats().delivered == 3)


@pytest.mark.parametrize("here", HERE)
def test_devices_and_clients_are_those_that_are_seen(here: tuple[str, ...]) -> None:
    with pair(here) as it:
        assert [device.device_id for device in it.proxy.devices()] == ["d"]
        clients = [(client.device_id, client.client_id) for client in it.proxy.clients()]
        assert clients == ([("d", 3 if "device" in here else 1)] if "client" in here else [])
        it.proxy.wait_for_device("d", timeout=PATIENCE)
        it.client.close()
        wait_until(lambda: it.proxy.clients() == [])
        it.device.close()
        wait_until(lambda: it.proxy.devices() == [])


@pytest.mark.parametrize("here", HERE)
@pytest.mark.parametrize("to", ["device", "client"])
def test_faults_apply_once_to_forwards_of_both_directions(here: tuple[str, ...], to: str) -> None:
    with pair(here) as it:
        send = it.to_device if to == "device" else it.to_client
        with it.proxy.faults.drop(to=to, times=1) as fault:  # type: ignore[arg-type]
            send("lost")
            send("after drop")
            assert it.heard(to) == "after drop"
            assert fault.hits == 1
        with it.proxy.faults.duplicate(to=to, type="x", check_type=False):  # type: ignore[arg-type]
            send({"type": "x"})
            assert [it.heard(to), it.heard(to)] == [{"type": "x"}] * 2
        with it.proxy.faults.delay(50, to=to):  # type: ignore[arg-type]
            send("late")
        assert it.heard(to) == "late"
        with it.proxy.faults.reorder(window=2, to=to):  # type: ignore[arg-type]
            send(1)
            send(2)
            assert [it.heard(to), it.heard(to)] == [2, 1]
        with it.proxy.faults.stall(to=to):  # type: ignore[arg-type]
            send("held")
        assert it.heard(to) == "held"
        stats = it.proxy.stats()
        assert stats.dropped == 1


def test_truncated_message_arrives_at_a_peer_cut_and_at_the_server_as_a_whole_frame() -> None:
    with pair(("device", "client")) as it, it.proxy.faults.truncate(0.5, to="client"):
        it.to_client("a long payload")
        assert it.client.recv(PATIENCE) == '{"message_type":"device_msg"'
    with pair(("client",)) as it, it.proxy.faults.truncate(0.5, to="device"):
        it.to_device("a long payload")
        assert json.loads(it.client.recv(PATIENCE)) == {"error": "Received Invalid JSON"}


@pytest.mark.parametrize("here", [("device", "client"), ("client",)])
def test_disconnect_ends_the_receiver_and_the_server_hears_of_it(here: tuple[str, ...]) -> None:
    with pair(here) as it:
        with it.proxy.faults.disconnect(code=4321, to="client"):
            it.to_client("the last")
            assert it.heard("client") == "the last"
            with pytest.raises(ConnectionClosed) as closed:
                it.client.recv(PATIENCE)
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4321, "fault")
        assert json.loads(it.device.recv(PATIENCE)) == {"message_type": "client_disconnected", "client_id": 3}


def test_reset_drops_both_sides() -> None:
    with pair(("device", "client")) as it:
        with it.proxy.faults.reset(to="client"):
            it.to_client("the last")
            with pytest.raises(ConnectionClosed) as closed:
                it.client.recv(PATIENCE)
                it.client.recv(PATIENCE)
            assert closed.value.rcvd is None
        assert json.loads(it.device.recv(PATIENCE)) == {"message_type": "client_disconnected", "client_id": 3}


def test_ends_of_connections_are_recorded_with_the_side_that_ended_them() -> None:
    with SignalingServer() as behind, SignalingServer(upstream=behind.url, journal=True) as proxy:
        with connect(proxy.client_url) as client:
            client.send('{"message_type":"connect","device_id":"none"}')
            client.recv(PATIENCE), client.recv(PATIENCE)
            with pytest.raises(ConnectionClosed):
                client.recv(PATIENCE)
        with connect(proxy.device_url) as device:
            device.send('{"message_type":"register","device_id":"d"}')
            device.recv(PATIENCE)
        wait_until(lambda: proxy.stats().connections == 0)
        seen = [(entry.direction, entry.message_type, entry.text) for entry in proxy.journal.entries()]
        assert seen == [
            ("client->server", "connect", '{"message_type":"connect","device_id":"none"}'),
            ("server->client", "config", '{"message_type":"config","ice_servers":[]}'),
            ("server->client", "error", '{"error":"Connection failed: Device not found: \'none\'"}'),
            ("server->client", "", "1008 Connection failed: Device not found: 'none'"),
            ("device->server", "register", '{"message_type":"register","device_id":"d"}'),
            ("server->device", "config", '{"message_type":"config","ice_servers":[]}'),
            ("device->server", "", "left"),
        ]


def test_payloads_that_a_server_writes_in_another_way_still_tell_the_id() -> None:
    """The reference server parses payloads and writes them again."""
    with SignalingServer() as behind, SignalingServer(upstream=behind.url, journal=True) as proxy:
        with connect(proxy.device_url) as device, connect(behind.client_url) as other:
            device.send('{"message_type":"register","device_id":"d"}')
            device.recv(PATIENCE)
            other.send('{"message_type":"connect","device_id":"d"}')
            other.recv(PATIENCE), other.recv(PATIENCE)
            with connect(proxy.client_url) as client:
                client.send('{"message_type":"connect","device_id":"d"}')
                client.recv(PATIENCE), client.recv(PATIENCE)
                assert [it.client_id for it in proxy.clients()] == [1]
                other.send('{"message_type":"forward","payload":{"a":1}}')
                device.recv(PATIENCE)
                client.send('{ "message_type" : "forward", "payload" : {"b": 0.10, "a": 2} }')
                device.recv(PATIENCE)
                wait_until(lambda: [it.client_id for it in proxy.clients()] == [2])
                device.send('{"message_type":"forward","client_id":1,"payload":1}')
                assert json.loads(other.recv(PATIENCE))["payload"] == 1
                device.send('{"message_type":"forward","client_id":2,"payload":2}')
                assert json.loads(client.recv(PATIENCE))["payload"] == 2
                found = [(entry.client, entry.payload) for entry in proxy.journal.messages(message_type="forward")]
                assert found == [(1, {"a": 1}), (2, {"b": 0.1, "a": 2}), (1, 1), (2, 2)]


def test_disconnect_of_a_person_ends_both_sides() -> None:
    with pair(("device", "client")) as it:
        it.proxy.disconnect_client("d", 3)
        with pytest.raises(ConnectionClosed):
            it.client.recv(PATIENCE)
        assert json.loads(it.device.recv(PATIENCE)) == {"message_type": "client_disconnected", "client_id": 3}
