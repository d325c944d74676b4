"""The clock of the server: frozen, advanced, and followed by every timeout."""

from __future__ import annotations

import json
import threading
import time
from contextlib import ExitStack
from typing import Any

import pytest

from cuttlefish_signaling import (
    ConfigError,
    Keepalive,
    SignalingServer,
    TurnRest,
)
from cuttlefish_signaling.testing import FakeClient, FakeDevice

import raw
from http_requests import request
from peers import assert_returns, wait_until


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
