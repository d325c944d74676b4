"""Faults and the clock of the server, over sockets."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from cuttlefish_signaling import (
    ConfigError,
    ExpectationError,
    FaultError,
    FilterError,
    Keepalive,
    Limits,
    NotRunningError,
    SignalingServer,
    TurnRest,
    WaitTimeoutError,
)
from cuttlefish_signaling.testing import FakeClient, FakeDevice

import raw
from http_requests import request
from peers import assert_returns, wait_until

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
            assert payloads(device, 2) == [1, 2]
            with pytest.warns(RuntimeWarning, match=r"stall\(\) let 2 forwards pass.*held_by_faults"):
                fault.remove()
            assert payloads(device, 1) == [0]


# The clock ------------------------------------------------------------------------------------------------------------


def test_frozen_clock_moves_by_advance_only() -> None:
    with SignalingServer() as server:
        clock = server.clock
        before, now, after = time.time(), clock.now, time.time()
        assert before - 0.1 < now < after + 0.1
        with clock.frozen():
            assert clock.is_frozen
            then = clock.now
            clock.advance(3600)
            assert clock.now == pytest.approx(then + 3600, abs=1e-3)
            assert clock.now == clock.now
        assert not clock.is_frozen
        assert 3599 < clock.now - time.time() < 3700
        assert "<Clock" in repr(clock)
        with pytest.raises(ConfigError, match="seconds"):
            clock.advance(-1)
        with pytest.raises(ConfigError, match="seconds"):
            clock.advance("1")


def test_keepalive_follows_clock() -> None:
    """A silent peer is pinged after 10 s and closed 5 s later, by the clock of the server."""
    with SignalingServer(keepalive=Keepalive(interval=10, timeout=5)) as server:
        with FakeDevice(server, "cvd-1") as dead, FakeDevice(server, "cvd-2") as alive:
            with server.clock.frozen() as clock, FakeClient(server, "cvd-2") as client:
                dead.stall()
                clock.advance(9.9)
                clock.advance(0.1)  # Each peer is sent a ping.
                assert len(server.devices()) == 2
                # The reply comes after the pong on the same connection.
                client.send(1)
                alive.recv().reply(2)
                client.recv()
                clock.advance(4.9)
                assert len(server.devices()) == 2
                clock.advance(0.1)
                assert [device.device_id for device in server.devices()] == ["cvd-2"]
                assert client.is_open


def test_advance_returns_after_timers_have_fired() -> None:
    """200 peers that send no first message."""
    with SignalingServer() as server, ExitStack() as stack:
        clock = stack.enter_context(server.clock.frozen())
        for _ in range(200):
            stack.enter_context(raw.Raw(server.port, "/connect_client"))
        wait_until(lambda: server.stats().connections == 200)  # They count a moment after the 101.
        clock.advance(10)  # Each is sent an error and a close frame, and has 5 s for the closing handshake.
        clock.advance(5)
        assert server.stats().connections == 0


def test_device_wait_timeout_follows_clock() -> None:
    with SignalingServer(device_wait_timeout=3600, journal=True) as server, server.clock.frozen() as clock:
        with FakeDevice(server, "other") as device:
            assert device.is_open
            waiting = FakeClient(server, "cvd-1", timeout=20)
            failed: list[BaseException] = []

            def wait() -> None:
                try:
                    waiting.start()
                except Exception as error:
                    failed.append(error)

            thread = threading.Thread(target=wait)
            thread.start()
            server.journal.expect(message_type="config", device="cvd-1")
            clock.advance(3599)
            assert thread.is_alive()
            clock.advance(1)
            thread.join(20)
            assert "Device not found: 'cvd-1'" in str(failed[0])


def test_first_message_timeout_follows_clock(server: SignalingServer) -> None:
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    with connect(server.device_url) as socket, server.clock.frozen() as clock:
        clock.advance(10.1)
        assert json.loads(socket.recv(timeout=20)) == {"error": "Timed out waiting for the first message"}
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=20)


def test_turn_renewal_follows_clock() -> None:
    with SignalingServer(ice_servers=TurnRest("turn:turn.lab", secret="s", ttl=600)) as server:
        with server.clock.frozen() as clock, FakeDevice(server) as device:

            def expiry() -> int:
                assert device.config is not None
                return int(device.config["ice_servers"][0]["username"].split(":")[0])

            first = expiry()
            assert first == pytest.approx(clock.now + 600, abs=2)
            clock.advance(301)
            device.recv(message_type="config")
            assert expiry() == first + 301


def test_hook_timeout_follows_clock() -> None:
    asked, release = threading.Event(), threading.Event()

    def ice(ctx: Any) -> list[Any]:
        asked.set()
        release.wait(20)
        return []

    with SignalingServer(ice_servers=ice, hook_timeout=1000) as server, server.clock.frozen() as clock:
        failed: list[BaseException] = []

        def register() -> None:
            try:
                FakeDevice(server, timeout=20).start()
            except Exception as error:
                failed.append(error)

        thread = threading.Thread(target=register)
        thread.start()
        assert asked.wait(20)
        # The one worker answers when it has set the timer of the hook.
        assert request(server, "GET", "/healthz").status == 200
        clock.advance(1000)
        thread.join(20)
        release.set()
        assert "Internal error" in str(failed[0])


def test_frozen_clock_does_not_block_stop() -> None:
    with SignalingServer() as server, FakeDevice(server) as device:
        device.stall()
        server.clock.freeze()
        assert_returns(lambda: server.stop(timeout=1))


def test_launch_cvd_flags() -> None:
    from cuttlefish_signaling import Tls

    with SignalingServer() as server:
        flags = server.launch_cvd_flags("cvd-1")
        assert flags == [
            "--start_webrtc=true",
            "--start_webrtc_sig_server=false",
            "--webrtc_sig_server_addr=127.0.0.1",
            f"--webrtc_sig_server_port={server.port}",
            "--webrtc_sig_server_path=/register_device",
            "--webrtc_sig_server_secure=false",
            "--verify_sig_server_certificate=false",
            "--webrtc_device_id=cvd-1",
        ]
        assert "--webrtc_device_id=cvd-{num}" in server.launch_cvd_flags()
        with pytest.raises(ConfigError, match="device_id"):
            server.launch_cvd_flags("")
    with SignalingServer(tls=Tls.self_signed()) as server:
        flags = server.launch_cvd_flags(host="10.0.0.2")
        assert "--webrtc_sig_server_secure=true" in flags
        assert "--webrtc_sig_server_addr=10.0.0.2" in flags
