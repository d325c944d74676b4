"""Fake peers: sessions, errors, and scripts."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from cuttlefish_signaling import (
    AuthorizeContext,
    ConfigError,
    FilterError,
    PeerClosedError,
    PeerRefusedError,
    Refused,
    SignalingServer,
    Tls,
    UnreachableError,
    WaitTimeoutError,
)
from cuttlefish_signaling.testing import (
    AsyncFakeClient,
    AsyncFakeDevice,
    FakeClient,
    FakeDevice,
    device_info,
)
from cuttlefish_signaling.testing._device import Profile

from peers import PATIENCE


@pytest.fixture
def server() -> Iterator[SignalingServer]:
    with SignalingServer(journal=True) as server:
        yield server
    assert server.stats().balances


def test_session(server: SignalingServer) -> None:
    with FakeDevice(server, info={"displays": []}) as device, FakeClient(server) as client:
        assert client.device_info == {"displays": []} == device.info
        assert (client.ice_servers, client.is_open, device.is_open) == ([], True, True)
        client.send({"type": "request-offer"})
        request = device.recv(type="request-offer")
        assert (request.client_id, request.message_type, request.type) == (1, "client_msg", "request-offer")
        request.reply({"type": "offer"})
        offer = client.recv()
        assert (offer.payload, offer.client_id, offer.message_type) == ({"type": "offer"}, None, "device_msg")
        offer.reply({"type": "answer"})
        assert device.recv().payload == {"type": "answer"}
        assert device.clients == [1]
        device.send("to the only one")
        assert client.recv().payload == "to the only one"
        client.close()
        assert device.recv(message_type="client_disconnected").client_id == 1
        assert device.clients == []
    assert repr(device) == "<FakeDevice device 'cvd-1' closed>"


def test_async_session(server: SignalingServer) -> None:
    async def main() -> None:
        async with AsyncFakeDevice(server) as device, AsyncFakeClient(server) as client:
            device.on("request-offer", reply_with=lambda message: {"type": "offer", "to": message.client_id})
            await client.send({"type": "request-offer"})
            offer = await client.recv(type="offer")
            assert offer.payload == {"type": "offer", "to": 1}
            await offer.reply({"type": "answer"})
            await (await device.recv(type="answer")).reply({"type": "done"})
            assert (await client.recv()).type == "done"
            await client.send(1)
            await client.close()
            heard = [message.payload async for message in client]
            assert heard == []
        assert not device.is_open

    asyncio.run(main())


@pytest.mark.parametrize("profile", [None, "legacy", "current"])
def test_fake_device_sends_headers_of_real_device(profile: Profile) -> None:
    seen: dict[str, AuthorizeContext] = {}

    def authorize(ctx: AuthorizeContext) -> None:
        seen[ctx.role] = ctx

    with SignalingServer(authorize=authorize) as server:
        with FakeDevice(server, profile=profile, headers={"X-Mine": "1"}), FakeClient(server):
            pass
    device, client = seen["device"].headers, seen["client"].headers
    assert device.get("sec-websocket-protocol") == (None if profile is None else "webrtc-operator")
    assert device["origin"] == f"http://{device['host']}"
    assert device["x-mine"] == "1"
    assert "sec-websocket-extensions" not in device
    assert "origin" not in client
    assert "sec-websocket-protocol" not in client
    info = device_info("cvd-7", displays=2, adb_port=6520)
    assert set(info) >= {"displays", "audio_streams", "hardware", "custom_control_panel_buttons", "adb_port"}
    assert len(info["displays"]) == 2


def test_peers_without_replies_have_one_task_each(server: SignalingServer) -> None:
    """It reads. Each further task, and each turn of the event loop, costs a test of a suite more than a message."""
    tasks: list[str] = []

    def record(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        tasks.append(work.__qualname__)
        return asyncio.Task(work, loop=loop, **options)

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(record)
        async with AsyncFakeDevice(server) as device, AsyncFakeClient(server) as client:
            await client.send({"type": "offer"})
            await (await device.recv()).reply({"type": "answer"})
            assert (await client.recv()).type == "answer"
            device.on("offer", reply_with={"type": "answer", "n": 1})
            own = [task for task in tasks if "Peer." in task]
            assert own == ["AsyncPeer._read"] * 2
            for _ in range(2):  # The task of the replies ends, and another one begins.
                await client.send({"type": "offer"})
                assert (await client.recv()).payload["n"] == 1
        assert [task for task in tasks if "Peer." in task] == own + ["ScriptedPeer._make_replies"] * 2

    asyncio.run(main())


def test_device_disconnects_from_silent_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device pings every 3 s and disconnects after 10 s; here both are shorter. A client sends no pings."""
    assert (AsyncFakeDevice._ping_interval, AsyncFakeDevice._ping_timeout) == (3.0, 10.0)
    assert AsyncFakeClient._ping_interval is None
    monkeypatch.setattr(AsyncFakeDevice, "_ping_interval", 0.01)
    monkeypatch.setattr(AsyncFakeDevice, "_ping_timeout", 0.05)

    def upgrade_and_fall_silent() -> None:
        with listener.accept()[0] as accepted:
            key = re.search(rb"Sec-WebSocket-Key: (\S+)", accepted.recv(4096))
            assert key is not None
            digest = hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
            config = b'{"message_type":"config","ice_servers":[]}'
            accepted.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
                b"\x81" + bytes([len(config)]) + config
            )
            done.wait(PATIENCE)

    done = threading.Event()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=upgrade_and_fall_silent)
        thread.start()
        with FakeDevice(f"ws://127.0.0.1:{listener.getsockname()[1]}") as device:
            assert device.wait_closed(PATIENCE) is None
        done.set()
        thread.join()


def test_device_receives_pong(server: SignalingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AsyncFakeDevice, "_ping_interval", 0.01)
    with FakeDevice(server) as device:
        socket = device._peer._socket
        assert socket is not None
        # `websockets` measures the latency from a pong.
        deadline = threading.Event()
        for _ in range(2000):
            if socket.latency > 0:
                break
            deadline.wait(0.01)
        assert socket.latency > 0


def test_peers_over_tls() -> None:
    with SignalingServer(tls=Tls.self_signed()) as server:
        with FakeDevice(server) as device, FakeClient(server) as client:
            client.send(1)
            assert device.recv().payload == 1
        with pytest.raises(UnreachableError, match="certificate"):
            FakeDevice(server.device_url).start()


@pytest.mark.parametrize("scheme", ["http", "ws"])
def test_server_may_be_url(server: SignalingServer, scheme: str) -> None:
    base = f"{scheme}://127.0.0.1:{server.port}"
    with FakeDevice(base), FakeClient(base + "/"), FakeClient(server.client_url + "?token=1"):
        assert len(server.clients("cvd-1")) == 2


def test_invalid_url_is_config_error() -> None:
    with pytest.raises(ConfigError, match="must be a server or a URL with http"):
        FakeDevice("127.0.0.1:80")
    with pytest.raises(ConfigError, match="profile"):
        FakeDevice("ws://x", profile="ancient")  # type: ignore[arg-type]


def test_refused_connection_is_unreachable_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(UnreachableError, match=f"no signaling server at {url}/register_device"):
            FakeDevice(url).start()


def test_silent_server_is_wait_timeout_error() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        with pytest.raises(WaitTimeoutError, match=r"waited 0\.1 s for the opening handshake of ws://"):
            FakeClient(f"ws://127.0.0.1:{mute.getsockname()[1]}", timeout=0.1).start()


def test_refusal_has_reason(server: SignalingServer) -> None:
    with FakeDevice(server):
        with pytest.raises(PeerRefusedError, match="Device already registered: cvd-1") as refused:
            FakeDevice(server).start()
        assert refused.value.error == "Device already registered: cvd-1"
    with pytest.raises(PeerRefusedError, match="Device not found: 'cvd-9'") as refused:
        FakeClient(server, "cvd-9").start()

    def authorize(ctx: AuthorizeContext) -> None:
        raise Refused("wrong token")

    with SignalingServer(authorize=authorize) as closed, pytest.raises(PeerRefusedError, match="403 wrong token"):
        FakeDevice(closed).start()


def test_recv_takes_matching_message_and_keeps_others(server: SignalingServer) -> None:
    with FakeDevice(server) as device, FakeClient(server) as client:
        for name in ("offer", "ice-candidate", "answer"):
            client.send({"type": name})
        assert device.recv(type="answer").type == "answer"
        with pytest.raises(WaitTimeoutError) as waited:
            device.recv(0.05, type="error")
        assert str(waited.value) == (
            "device 'cvd-1' waited 0.05 s for a message of type 'error'; the inbox contains: "
            "client_msg of client 1 (offer), client_msg of client 1 (ice-candidate)"
        )
        assert [device.recv().type, device.recv().type] == ["offer", "ice-candidate"]
        with pytest.raises(WaitTimeoutError, match="waited 0.05 s for a message; the inbox is empty"):
            device.recv(0.05)
        with pytest.raises(FilterError, match="did you mean 'answer'"):
            device.recv(type="anser")


def test_iteration_ends_with_connection(server: SignalingServer) -> None:
    with FakeDevice(server) as device, FakeClient(server) as client:
        client.send(1)
        device.recv()
        for number in range(3):
            device.send(number)
        device.close()
        assert [message.payload for message in client] == [0, 1, 2]
        assert client.wait_closed() == 1000
        with pytest.raises(PeerClosedError, match="'Device disconnected'") as closed:
            client.recv()
        assert (closed.value.code, closed.value.error) == (1000, "Device disconnected")
        with pytest.raises(PeerClosedError):
            client.send(1)
        assert client.errors == ["Device disconnected"]


def test_drop_sends_no_close_frame(server: SignalingServer) -> None:
    with FakeDevice(server) as device, FakeClient(server) as client:
        client.drop()
        assert device.recv(message_type="client_disconnected").client_id == 1
        with pytest.raises(PeerClosedError, match="ended without a close frame"):
            client.recv()


def test_stalled_peer_sends_no_pings(server: SignalingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    pings, pinged = [], threading.Event()
    ping = ClientConnection.ping

    async def counted(connection: ClientConnection, *arguments: Any) -> Any:
        pings.append(1)
        pinged.set()
        return await ping(connection, *arguments)

    monkeypatch.setattr(ClientConnection, "ping", counted)
    monkeypatch.setattr(AsyncFakeDevice, "_ping_interval", 0.1)
    with FakeDevice(server) as device:
        device.stall()
        pings.clear()
        with pytest.raises(WaitTimeoutError):
            device.wait_closed(0.3)
        assert pings == []
        pinged.clear()
        device.resume()
        assert pinged.wait(PATIENCE)


def test_stalled_holder_fails_liveness_probe(server: SignalingServer) -> None:
    with FakeDevice(server) as device:
        device.stall()
        with FakeDevice(server) as second:
            assert second.is_open, "the holder did not answer the probe"
        device.resume()
        assert device.wait_closed() == 1008
        assert device.errors == ["Device replaced: cvd-1"]


def test_send_raw_sends_binary_message(server: SignalingServer) -> None:
    with FakeDevice(server) as device:
        device.send_raw(b"\x00")
        assert device.wait_closed() == 1003
        assert device.errors == ["Received a binary message"]


def test_scripted_replies(server: SignalingServer) -> None:
    async def later(message: Any) -> Any:
        await asyncio.sleep(0)
        return [{"type": "answer", "n": message.payload["n"]}, {"type": "done"}]

    with FakeDevice(server) as device, FakeClient(server) as client:
        device.on("a", reply_with={"type": "b"}).on("c", reply_with=[1, 2]).on("d", reply_with=later)
        device.on("e", reply_with=lambda message: None)
        for name in "acde":
            client.send({"type": name, "n": 5})
        assert [client.recv().payload for _ in range(5)] == [
            {"type": "b"},
            1,
            2,
            {"type": "answer", "n": 5},
            {"type": "done"},
        ]
        assert [device.recv().type for _ in range(4)] == ["a", "c", "d", "e"], "the messages are in the inbox as well"


def test_script_exception_is_raised_in_test(server: SignalingServer) -> None:
    def wrong(message: Any) -> Any:
        raise KeyError("mine")

    def deadlock(message: Any) -> Any:
        message.reply(1)

    with FakeDevice(server) as device, FakeClient(server) as client:
        device.on("offer", reply_with=wrong).on("answer", reply_with=deadlock)
        client.send({"type": "offer"})
        with pytest.raises(KeyError, match="mine"):
            device.recv(type="error")
        client.send({"type": "answer"})
        with pytest.raises(ConfigError, match=r"cannot be called in a function given to on\(\)"):
            device.recv(type="error")
    with pytest.raises(KeyError, match="mine"):
        with FakeDevice(server) as device, FakeClient(server) as client:
            device.on("offer", reply_with=wrong).on("answer", reply_with={"type": "done"})
            client.send({"type": "offer"})
            client.send({"type": "answer"})
            client.recv(type="done")


def test_send_without_client_id_needs_single_client(server: SignalingServer) -> None:
    with FakeDevice(server) as device, FakeClient(server) as one, FakeClient(server) as two:
        with pytest.raises(ConfigError, match="no client has sent a payload yet"):
            device.send(1)
        one.send(1)
        two.send(2)
        device.recv(), device.recv()
        with pytest.raises(ConfigError, match=r"clients: \[1, 2\]"):
            device.send(1)
