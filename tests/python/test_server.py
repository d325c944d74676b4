"""`SignalingServer`: start, queries, waits, disconnects, and stop."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import stat
import threading
import urllib.request

import pytest

from cuttlefish_signaling import (
    ConfigError,
    Device,
    IceServer,
    NotRunningError,
    SignalingError,
    SignalingServer,
    TurnRest,
    WaitTimeoutError,
)

from peers import PATIENCE, Peers, assert_relays, peers_of


def test_urls_have_listening_address(server: SignalingServer) -> None:
    port = server.port
    assert port > 0
    assert server.host == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{port}"
    assert server.device_url == f"ws://127.0.0.1:{port}/register_device"
    assert server.client_url == f"ws://127.0.0.1:{port}/connect_client"
    assert repr(server) == f"<SignalingServer http://127.0.0.1:{port}>"
    with urllib.request.urlopen(f"{server.url}/healthz", timeout=PATIENCE) as answer:
        assert answer.status == 200


def test_url_of_wildcard_host_is_loopback() -> None:
    with SignalingServer(host="0.0.0.0", allow_unauthenticated=True) as server:
        assert server.url == f"http://127.0.0.1:{server.port}"


def test_ipv6_host_is_bracketed() -> None:
    with SignalingServer(host="::1") as server:
        assert server.url == f"http://[::1]:{server.port}"


def test_host_may_be_name() -> None:
    with SignalingServer(host="localhost") as server:
        assert server.host in ("127.0.0.1", "::1")


def test_devices_and_clients_are_snapshots(server: SignalingServer, peers: Peers) -> None:
    device = peers.device("cvd-1", {"n": 0.10, "displays": [1]})
    client = peers.client("cvd-1")
    (seen,) = server.devices()
    assert (seen.device_id, seen.address, seen.clients) == ("cvd-1", "127.0.0.1", 1)
    assert seen.info == {"n": 0.1, "displays": [1]}
    assert seen.since > 1_700_000_000
    assert seen.port == device.socket.local_address[1]
    (connected,) = server.clients()
    assert server.clients("cvd-1") == [connected]
    assert server.clients("cvd-2") == []
    assert (connected.device_id, connected.client_id) == ("cvd-1", 1)
    assert connected.port == client.socket.local_address[1]
    with pytest.raises(AttributeError):
        seen.clients = 2  # type: ignore[misc]


def test_stats_count_each_forward(server: SignalingServer, peers: Peers) -> None:
    device, client = peers.device(), peers.client()
    assert_relays(client, device)
    device.send({"message_type": "forward", "client_id": 9, "payload": 1})
    assert device.receive() == {"error": "Forward failed: Unknown client 9"}
    client.close()
    assert device.receive() == {"message_type": "client_disconnected", "client_id": 1}
    device.send({"message_type": "forward", "client_id": 1, "payload": 1})
    assert device.receive() == {"message_type": "client_disconnected", "client_id": 1}
    stats = server.stats()
    assert (stats.accepted, stats.delivered, stats.refused, stats.gone) == (4, 2, 1, 1)
    assert (stats.devices, stats.clients) == (1, 0)


def test_waits_return_on_registration_and_connect(server: SignalingServer, peers: Peers) -> None:
    found: list[object] = []

    def wait() -> None:
        found.append(server.wait_for_device("cvd-1", timeout=PATIENCE))
        found.append(server.wait_for_client("cvd-1", timeout=PATIENCE))
        found.append(server.wait_for_client(timeout=None))

    waiter = threading.Thread(target=wait)
    waiter.start()
    peers.device("other")
    peers.device("cvd-1")
    peers.client("cvd-1")
    waiter.join(PATIENCE)
    device, client, any_client = found
    assert isinstance(device, Device)
    assert device.device_id == "cvd-1"
    assert client == any_client


def test_async_waits_return_on_registration_and_connect() -> None:
    async def main() -> None:
        async with SignalingServer() as server:
            device = asyncio.create_task(server.wait_for_device_async("cvd-1", timeout=PATIENCE))
            client = asyncio.create_task(server.wait_for_client_async("cvd-1", timeout=None))
            await asyncio.sleep(0)
            from websockets.asyncio.client import connect

            async with connect(server.device_url) as d, connect(server.client_url) as c:
                await d.send('{"message_type":"register","device_id":"cvd-1"}')
                assert (await device).device_id == "cvd-1"
                await c.send('{"message_type":"connect","device_id":"cvd-1"}')
                assert (await client).client_id == 1

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


@pytest.mark.parametrize("way", ["sync", "async"])
def test_wait_timeout_lists_registered_devices(server: SignalingServer, peers: Peers, way: str) -> None:
    peers.device("cvd-7")
    with pytest.raises(WaitTimeoutError, match=re.escape("waited 0.05 s for device 'cvd-1' to register")) as caught:
        if way == "sync":
            server.wait_for_device("cvd-1", timeout=0.05)
        else:
            asyncio.run(server.wait_for_device_async("cvd-1", timeout=0.05))
    assert "registered: 'cvd-7'" in str(caught.value)
    assert isinstance(caught.value, TimeoutError | SignalingError)
    with pytest.raises(WaitTimeoutError, match="a client to connect"):
        server.wait_for_client(timeout=0)


def test_wait_ends_on_stop() -> None:
    server = SignalingServer().start()
    outcome: list[BaseException] = []
    waiting = threading.Event()

    def wait() -> None:
        waiting.set()
        try:
            server.wait_for_device("cvd-1", timeout=None)
        except NotRunningError as error:
            outcome.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    waiting.wait(PATIENCE)
    server.stop()
    waiter.join(PATIENCE)
    assert len(outcome) == 1


def test_async_wait_ends_on_stop() -> None:
    async def main() -> None:
        server = SignalingServer()
        async with server:
            wait = asyncio.create_task(server.wait_for_device_async("cvd-1", timeout=None))
            await asyncio.sleep(0)
        with pytest.raises(NotRunningError):
            await wait

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_disconnect_device(server: SignalingServer, peers: Peers) -> None:
    device, client = peers.device(), peers.client()
    assert server.disconnect_device("cvd-1") is True
    assert device.receive() == {"error": "Disconnected by the server's operator"}
    assert device.wait_closed() == 1008
    assert client.receive() == {"error": "Device disconnected"}
    assert client.wait_closed() == 1000
    assert server.disconnect_device("unknown") is False


def test_disconnect_client(server: SignalingServer, peers: Peers) -> None:
    device, client = peers.device(), peers.client()
    assert server.disconnect_client("cvd-1", 2) is False
    assert server.disconnect_client("cvd-1", 1) is True
    assert client.receive() == {"error": "Disconnected by the server's operator"}
    assert client.wait_closed() == 1008
    assert device.receive() == {"message_type": "client_disconnected", "client_id": 1}


def test_set_ice_servers_updates_devices_and_new_peers(server: SignalingServer, peers: Peers) -> None:
    device, client = peers.device(), peers.client()
    server.set_ice_servers([IceServer("stun:new.lab")])
    config = {"message_type": "config", "ice_servers": [{"urls": ["stun:new.lab"]}]}
    assert device.receive() == config
    late = peers.pending_client()
    assert late.receive() == config
    assert_relays(client, device)  # The connected client is sent nothing.


def test_set_ice_servers_accepts_turn_rest_and_hook(server: SignalingServer, peers: Peers) -> None:
    device = peers.device()
    server.set_ice_servers(TurnRest("turn:turn.lab:3478", secret="s3cret", ttl=600, name="lab"))
    (turn,) = device.receive()["ice_servers"]
    assert turn["urls"] == ["turn:turn.lab:3478"]
    assert turn["username"].endswith(":lab")
    server.set_ice_servers(lambda ctx: [IceServer(f"stun:{ctx.role}-{ctx.device_id}.lab")])
    assert device.receive()["ice_servers"] == [{"urls": ["stun:device-cvd-1.lab"]}]
    assert peers.pending_client().receive()["ice_servers"] == [{"urls": ["stun:client-cvd-1.lab"]}]


def test_turn_credentials_are_renewed_on_connected_device() -> None:
    turn = TurnRest("turn:t.lab", secret="s", ttl=600)
    with SignalingServer(ice_servers=turn) as server, server.clock.frozen() as clock, peers_of(server) as peers:
        device = peers.device()
        client = peers.client()
        clock.advance(301)
        (renewed,) = device.receive()["ice_servers"]
        assert renewed["urls"] == ["turn:t.lab"]
        assert_relays(client, device)


def test_on_duplicate_replace_and_unbounded_device_wait() -> None:
    with (
        SignalingServer(on_duplicate="replace", device_wait_timeout=None) as server,
        peers_of(server) as peers,
    ):
        waiting = peers.pending_client("late")
        assert waiting.receive()["message_type"] == "config"
        first = peers.device("late", info=1)
        assert waiting.receive() == {"message_type": "device_info", "device_info": 1}
        peers.device("late", info=2)
        assert first.receive() == {"error": "Device replaced: late"}
        assert first.wait_closed() == 1008


def test_not_running_error() -> None:
    server = SignalingServer()
    assert not server.is_running
    assert repr(server) == "<SignalingServer not running>"
    for ask in (
        lambda: server.port,
        lambda: server.url,
        server.devices,
        lambda: server.wait_for_device("x"),
        lambda: server.set_ice_servers([]),
        server.stats,
    ):
        with pytest.raises(NotRunningError, match="not"):
            ask()
    assert server.stop() is True
    assert server.hook_errors == []


def test_start_twice_is_error_and_restart_is_not() -> None:
    server = SignalingServer().start()
    with pytest.raises(NotRunningError, match="already"):
        server.start()
    assert server.is_running
    server.stop()
    server.stop()
    with server:
        assert server.devices() == []
    assert not server.is_running


def test_stop_closes_with_1001(server: SignalingServer, peers: Peers) -> None:
    device, client = peers.device(), peers.client()
    assert server.stop() is True
    assert client.wait_closed() == 1001
    # The device may receive `client_disconnected` first.
    while True:
        try:
            assert device.receive()["message_type"] == "client_disconnected"
        except Exception:
            break
    assert device.wait_closed() == 1001


@pytest.mark.parametrize("timeout", [-1, float("nan"), "soon"])
def test_invalid_stop_timeout_keeps_server_running(server: SignalingServer, timeout: float) -> None:
    with pytest.raises(ConfigError, match="timeout: must be a number of seconds"):
        server.stop(timeout=timeout)
    assert server.is_running
    assert server.devices() == []


def test_ice_servers_iterable_is_read_once() -> None:
    server = SignalingServer(ice_servers=(IceServer(f"stun:{name}") for name in "ab"))
    for _ in range(2):
        with server, urllib.request.urlopen(f"{server.url}/infra_config", timeout=PATIENCE) as answer:
            assert b"stun:a" in answer.read()


def test_many_servers_in_one_process() -> None:
    servers = [SignalingServer().start() for _ in range(20)]
    try:
        assert len({server.port for server in servers}) == 20
        assert all(server.is_running for server in servers)
    finally:
        for server in servers:
            server.stop()


def test_relay_with_several_workers() -> None:
    with SignalingServer(workers=3) as server, peers_of(server) as peers:
        for number in range(5):
            device, client = peers.device(f"cvd-{number}"), peers.client(f"cvd-{number}")
            assert_relays(client, device)


def test_registrations_and_departures_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="cuttlefish_signaling")
    with SignalingServer() as server, peers_of(server) as peers:
        peers.device('cvd"\u202e')
        peers.client('cvd"\u202e')
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert re.search(r'device "cvd\\"\\u\{202e\}" registered from 127\.0\.0\.1:\d+', text), text
    assert re.search(r'client 1 of device "cvd\\"\\u\{202e\}" connected from 127\.0\.0\.1:\d+', text)
    assert 'client 1 of device "cvd\\"\\u{202e}" left' in text
    assert 'device "cvd\\"\\u{202e}" left' in text


def test_serve_forever_async_ends_on_stop_and_cancel() -> None:
    async def main() -> None:
        server = SignalingServer()
        serving = asyncio.create_task(server.serve_forever_async())
        while not server.is_running:
            await asyncio.sleep(0)
        # A device can still register, which takes several turns of the loop.
        from websockets.asyncio.client import connect

        async with connect(server.device_url) as device:
            await device.send('{"message_type":"register","device_id":"cvd-1"}')
            await device.recv()
        assert not serving.done()
        await server.stop_async()
        await serving
        again = asyncio.create_task(server.serve_forever_async())
        while not server.is_running:
            await asyncio.sleep(0)
        again.cancel()
        with pytest.raises(asyncio.CancelledError):
            await again
        assert not server.is_running

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_serve_forever_ends_on_stop() -> None:
    server = SignalingServer()
    serving = threading.Thread(target=server.serve_forever)
    server.start()
    serving.start()
    with urllib.request.urlopen(f"{server.url}/healthz", timeout=PATIENCE) as answer:
        assert answer.status == 200
    assert serving.is_alive()
    server.stop()
    serving.join(PATIENCE)
    assert not serving.is_alive()


def test_log_records_have_their_own_text(caplog: pytest.LogCaptureFixture) -> None:
    names = ["cvd-1", "émulateur", "装置", "x"]
    with caplog.at_level(logging.INFO, "cuttlefish_signaling"), SignalingServer() as server, peers_of(server) as peers:
        for name in names:
            peers.device(name)
    messages = [record.getMessage() for record in caplog.records if " registered from " in record.getMessage()]
    assert [text.split(" registered")[0] for text in messages] == [f'device "{name}"' for name in names]


def test_accepted_sockets_have_tcp_nodelay(server: SignalingServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            if is_accepted(descriptor, client.getsockname()):
                with socket.socket(fileno=os.dup(descriptor)) as accepted:
                    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                    return
    pytest.fail("the server's end of the connection was not found")


def is_accepted(descriptor: int, client: tuple[str, int]) -> bool:
    """Whether this is the server's end of the client's connection: the server is in this process."""
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return False
        with socket.socket(fileno=os.dup(descriptor)) as found:
            return bool(found.getpeername() == client)
    except OSError:
        return False  # Closed meanwhile, or not connected.
