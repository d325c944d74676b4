"""Faults, over sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cuttlefish_signaling import (
    ConfigError,
    ExpectationError,
    FaultError,
    FilterError,
    Limits,
    NotRunningError,
    SignalingServer,
    WaitTimeoutError,
)
from cuttlefish_signaling.testing import FakeClient, FakeDevice

from peers import wait_until

OFFER = {"type": "offer"}


@pytest.fixture
def server() -> Iterator[SignalingServer]:
    with SignalingServer(journal=True) as server:
        yield server
    assert server.stats().balances, server.stats()


@pytest.fixture
def device(server: SignalingServer) -> Iterator[FakeDevice]:
    with FakeDevice(server, profile="current", backoff=0.01) as device:
        yield device


@pytest.fixture
def client(server: SignalingServer, device: FakeDevice) -> Iterator[FakeClient]:
    with FakeClient(server) as client:
        yield client


def payloads(peer: FakeDevice | FakeClient, count: int) -> list[Any]:
    return [peer.recv().payload for _ in range(count)]


def test_drop(server: SignalingServer, device: FakeDevice, client: FakeClient) -> None:
    with server.faults.drop(to="client", type="ice-candidate", nth=2) as fault:
        for number in range(4):
            device.send({"type": "ice-candidate", "n": number}, 1)
            device.send({"type": "other", "n": number}, 1)
        assert [client.recv().payload["n"] for _ in range(7)] == [0, 0, 1, 2, 2, 3, 3]
    assert (fault.matched, fault.hits, fault.armed) == (4, 1, False)
    fault.assert_struck()
    fault.assert_struck(1)
    assert server.stats().dropped == 1
    assert [entry.payload["n"] for entry in server.journal.messages(where=lambda entry: entry.faults)] == [1]


def test_duplicate_and_truncate(server: SignalingServer, device: FakeDevice, client: FakeClient) -> None:
    with server.faults.duplicate(direction="device->client"):
        device.send(1, 1)
        device.send(2, 1)
        assert payloads(client, 4) == [1, 1, 2, 2]
    with server.faults.truncate(0.5, to="client", times=1):
        device.send(OFFER, 1)
        broken = client.recv(message_type="broken").text
        with pytest.raises(ValueError, match="delimiter|Unterminated|Expecting"):
            json.loads(broken)
        device.send(3, 1)
        assert payloads(client, 1) == [3]


def test_device_reconnects_after_truncated_message(
    server: SignalingServer, device: FakeDevice, client: FakeClient
) -> None:
    with server.faults.truncate(to="device"):
        client.send(OFFER)
        device.wait_reconnected()
    assert client.wait_closed() == 1000
    assert client.errors == ["Device disconnected"]
    assert server.wait_for_device("cvd-1").device_id == "cvd-1"


def test_delayed_forwards_are_overtaken_by_others(
    server: SignalingServer, device: FakeDevice, client: FakeClient
) -> None:
    with server.clock.frozen() as clock, server.faults.delay(200, jitter=50, type="offer"):
        for number in range(5):
            device.send({**OFFER, "n": number}, 1)
        device.send({"type": "answer"}, 1)
        assert client.recv().type == "answer"
        clock.advance(0.14)
        with pytest.raises(WaitTimeoutError, match="the inbox is empty"):
            client.recv(0.05)
        clock.advance(0.11)
        assert [client.recv().payload["n"] for _ in range(5)] == list(range(5))


def test_stalled_forwards_are_released_when_fault_ends(
    server: SignalingServer, device: FakeDevice, client: FakeClient
) -> None:
    with server.faults.stall() as fault:
        for number in range(3):
            client.send(number)
        server.journal.expect(where=lambda entry: entry.payload == 2)
        with pytest.raises(WaitTimeoutError, match="the inbox is empty"):
            device.recv(0.05)
    assert payloads(device, 3) == [0, 1, 2]
    assert fault.hits == 3


def test_reorder_and_bandwidth(server: SignalingServer, device: FakeDevice, client: FakeClient) -> None:
    with server.faults.reorder(window=3):
        for number in range(3):
            client.send(number)
        heard = payloads(device, 3)
        assert sorted(heard) == [0, 1, 2] != heard
    with server.clock.frozen() as clock, server.faults.bandwidth(1000, to="client"):
        device.send("x" * 1000, 1)
        server.journal.expect(direction="device->client")
        clock.advance(1.0)
        with pytest.raises(WaitTimeoutError):
            client.recv(0.05)
        clock.advance(0.1)
        assert client.recv().payload == "x" * 1000


def test_disconnect_closes_after_message(server: SignalingServer, device: FakeDevice, client: FakeClient) -> None:
    with server.faults.disconnect(after=3, code=4000, to="client"):
        for number in range(3):
            device.send(number, 1)
        assert payloads(client, 3) == [0, 1, 2]
        assert client.wait_closed() == 4000
    assert device.recv(message_type="client_disconnected").client_id == 1


def test_reset_sends_no_close_frame(server: SignalingServer, device: FakeDevice, client: FakeClient) -> None:
    with server.faults.reset(to="client"):
        device.send(1, 1)
        assert client.recv().payload == 1
        assert client.wait_closed() is None
        assert client.close_code is None
    assert device.recv(message_type="client_disconnected").client_id == 1


def test_reset_over_tls() -> None:
    from cuttlefish_signaling import Tls

    with SignalingServer(tls=Tls.self_signed()) as server, FakeDevice(server) as device, FakeClient(server) as client:
        with server.faults.reset(to="client"):
            device.send(1, 1)
            assert client.wait_closed() is None


def test_probability_follows_seed() -> None:
    def relayed_numbers(seed: int) -> list[int]:
        with SignalingServer() as server, FakeDevice(server) as device, FakeClient(server) as client:
            server.faults.seed(seed)
            with server.faults.drop(probability=0.5, check_type=False) as fault:
                for number in range(50):
                    client.send(number)
                # The error answers the last message of the client: all before it have been relayed.
                client.send_raw('{"message_type":"?"}')
                client.recv(message_type="error")
            client.send({"type": "end"})
            heard = []
            while (message := device.recv()).type != "end":
                heard.append(message.payload)
            assert len(heard) == 50 - fault.hits
            return heard

    assert 10 < len(relayed_numbers(1)) < 40
    assert relayed_numbers(1) == relayed_numbers(1) != relayed_numbers(2)


def test_fault_is_armed_and_removed_by_hand(server: SignalingServer, device: FakeDevice, client: FakeClient) -> None:
    fault = server.faults.drop().arm()
    assert fault.armed
    with pytest.raises(FaultError, match=r"drop\(\) is armed already"):
        fault.arm()
    client.send(1)
    server.journal.expect(where=lambda entry: entry.outcome == "dropped")
    fault.remove()
    fault.remove()
    assert fault.hits == 1
    with fault:
        assert fault.hits == 0, "the counters start at 0 again"


def test_assert_struck_fails_when_fault_never_struck(
    server: SignalingServer, device: FakeDevice, client: FakeClient
) -> None:
    with server.faults.drop(type="offer", nth=3) as fault:
        device.send(OFFER, 1)
        client.recv()
    with pytest.raises(ExpectationError) as failed:
        fault.assert_struck()
    lines = str(failed.value).splitlines()
    assert lines[0] == "drop(type='offer', nth=3) never struck; forwards that matched: 1"
    assert "offer ─" in lines[-1]
    with pytest.raises(ExpectationError, match="struck 0 times, expected 2"):
        fault.assert_struck(2)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda f: f.drop(typ="offer"), FilterError, "unknown filter 'typ'; did you mean 'type'"),
        (lambda f: f.drop(type="ice-candidat"), FilterError, "did you mean 'ice-candidate'"),
        (lambda f: f.drop(to="server"), FilterError, "to='server' is neither"),
        (lambda f: f.drop(direction="device->server"), FilterError, "not one of 'client->device'"),
        (lambda f: f.drop(to="device", direction="device->client"), FilterError, "contradict each other"),
        (lambda f: f.drop(client="1"), FilterError, "not a client id"),
        (lambda f: f.drop(client=0), FilterError, "client ids are whole numbers from 1"),
        (lambda f: f.drop(check_type="no"), FilterError, "check_type='no' is neither True nor False"),
        (lambda f: f.drop(absent_ok=1), FilterError, "absent_ok=1 is neither True nor False"),
        (lambda f: f.drop(nth=0), FaultError, "nth=0 is not a whole number from 1"),
        (lambda f: f.drop(times=1.5), FaultError, "times=1.5 is not a whole number"),
        (lambda f: f.drop(probability=2), FaultError, "probability=2 is not a number from 0 to 1"),
        (lambda f: f.delay(-1), ConfigError, "ms: must be a number of milliseconds, 0 or more, got -1"),
        (lambda f: f.truncate(1.5), FaultError, "keep=1.5 is not a number from 0 to 1"),
        (lambda f: f.reorder(1), FaultError, "window=1 is not a whole number from 2"),
        (lambda f: f.bandwidth(0), FaultError, "bytes_per_s=0 is not a number from 1"),
        (lambda f: f.disconnect(code=1006), FaultError, "code=1006 cannot be sent"),
        (lambda f: f.disconnect(after=0), FaultError, "after=0 is not a whole number"),
        (lambda f: f.disconnect(nth=2), FilterError, "pass after only"),
        (lambda f: f.seed(-1), ConfigError, "seed: must be a whole number"),
        (lambda f: f.drop(device="cvd-9").arm(), FaultError, r"'cvd-9' is not registered \(registered: 'cvd-1'\)"),
    ],
)
def test_invalid_fault_arguments_are_errors(
    make: Any, error: type[Exception], words: str, server: SignalingServer, device: FakeDevice
) -> None:
    with pytest.raises(error, match=words):
        make(server.faults)


def test_absent_ok_allows_unregistered_device(server: SignalingServer) -> None:
    with server.faults.drop(device="cvd-1", absent_ok=True) as fault:
        with FakeDevice(server), FakeClient(server) as client:
            client.send(1)
            server.journal.expect(where=lambda entry: entry.outcome == "dropped")
    assert fault.hits == 1


def test_fault_exit_after_stop_raises_nothing(server: SignalingServer, device: FakeDevice, client: FakeClient) -> None:
    with server.faults.stall() as fault:
        client.send(1)
        server.journal.expect(direction="client->device")
        server.stop()
        assert fault.hits == 1
    assert fault.hits == 1
    assert server.stats().gone == 1
    with pytest.raises(NotRunningError):
        fault.arm()
    with pytest.raises(NotRunningError):
        _ = server.faults


def test_held_forwards_over_limit_are_warned_of() -> None:
    with SignalingServer(limits=Limits(held_by_faults=1)) as server, FakeDevice(server) as device:
        with FakeClient(server) as client:
            fault = server.faults.stall().arm()
            for number in range(3):
                client.send(number)
            wait_until(lambda: server.stats().accepted == 3)
            with pytest.warns(RuntimeWarning, match=r"stall\(\) dropped 2 forwards.*held_by_faults"):
                fault.remove()
            assert payloads(device, 1) == [0]
