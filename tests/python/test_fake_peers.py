"""Fake peers: sessions, errors, scripts, and cassettes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import inspect
import json
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
    AsyncReplayDevice,
    Cassette,
    FakeClient,
    FakeDevice,
    ReplayDevice,
    device_info,
)
from cuttlefish_signaling.testing._cassette import Line
from cuttlefish_signaling.testing._device import Profile

PATIENCE = 20.0


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
        with pytest.raises(PeerClosedError, match="not started"):
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


def test_peers_leave_no_thread(server: SignalingServer) -> None:
    for _ in range(3):
        with FakeDevice(server), FakeClient(server):
            assert any(thread.name == "cuttlefish-fake-peers" for thread in threading.enumerate())
        assert not any(thread.name == "cuttlefish-fake-peers" for thread in threading.enumerate())


def test_sync_peers_work_in_running_event_loop(server: SignalingServer) -> None:
    """Synchronous peers have an event loop of their own."""

    async def main() -> None:
        with FakeDevice(server) as device, FakeClient(server) as client:
            client.send(1)
            assert device.recv().payload == 1

    asyncio.run(main())


def test_close_during_start(server: SignalingServer) -> None:
    async def main() -> None:
        device = AsyncFakeDevice(server)
        starting = asyncio.create_task(device.start())
        await asyncio.sleep(0)
        await device.close()
        with pytest.raises(PeerClosedError, match="was closed while it connected"):
            await starting
        assert not device.is_open
        async with device:
            assert [known.device_id for known in server.devices()] == ["cvd-1"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("synchronous", "asynchronous"),
    [(FakeDevice, AsyncFakeDevice), (FakeClient, AsyncFakeClient), (ReplayDevice, AsyncReplayDevice)],
)
def test_synchronous_peers_have_the_methods_and_docs_of_their_twins(synchronous: type, asynchronous: type) -> None:
    def of(peer: type, name: str) -> tuple[str, list[inspect.Parameter]]:
        member = getattr(peer, name)
        doc = (inspect.getdoc(member) or "").replace("async with ", "with ").replace("Async", "")
        return doc, list(inspect.signature(member).parameters.values()) if callable(member) else []

    assert (inspect.getdoc(synchronous) or "").startswith(
        "A device" if "Device" in synchronous.__name__ else "A client"
    )
    assert "sync" not in str(inspect.getdoc(synchronous)).lower()
    names = {name for name in dir(asynchronous) if not name.startswith("_")}
    assert names >= {"start", "close", "recv", "send", "on"}
    for name in names:
        own, twin = of(synchronous, name), of(asynchronous, name)
        assert own[1] == twin[1], name
        if name != "on":  # Its function runs on another thread here.
            assert own[0] == twin[0] != "", name


# Cassettes ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def recorded(server: SignalingServer) -> Cassette:
    """A device with two clients, recorded."""
    with FakeDevice(server, info={"displays": ["real"]}) as device:
        with FakeClient(server) as one, FakeClient(server) as two:
            one.send({"type": "request-offer"})
            device.recv().reply({"type": "offer", "sdp": "for one"})
            two.send({"type": "request-offer"})
            device.recv().reply({"type": "offer", "sdp": "for two"})
            one.send({"type": "answer"})
            device.recv()
            one.send({"type": "ice-candidate", "n": 1})
            device.recv().reply({"type": "ice-candidate", "n": 1})
            one.send({"type": "ice-candidate", "n": 2})
            device.recv().reply({"type": "ice-candidate", "n": 2})
            one.recv(type="ice-candidate"), one.recv(type="ice-candidate"), two.recv()
    return Cassette.record(server.journal, "cvd-1")


def test_cassette_is_saved_and_replayed(server: SignalingServer, recorded: Cassette, tmp_path: Any) -> None:
    file = tmp_path / "boot.jsonl"
    recorded.save(file)
    assert Cassette.load(file) == recorded
    head = json.loads(file.read_text().splitlines()[0])
    assert head == {"cassette": 1, "device_id": "cvd-1", "device_info": {"displays": ["real"]}}
    with ReplayDevice(server, file, "cvd-2") as device:
        with FakeClient(server, "cvd-2") as warm_up:
            warm_up.send({"type": "bugreport"})
            device.recv()
        assert device.unmatched == [{"type": "bugreport"}]
        with FakeClient(server, "cvd-2") as client:
            assert client.device_info == {"displays": ["real"]}
            client.send({"type": "request-offer"})
            # The first client was matched to the first of the cassette. This is the second, with another id.
            assert client.recv().payload == {"type": "offer", "sdp": "for two"}
        with FakeClient(server, "cvd-2") as third:
            third.send({"type": "request-offer"})
            assert third.recv().payload == {"type": "offer", "sdp": "for two"}


def test_cassette_keeps_unusual_characters(tmp_path: Any) -> None:
    odd = "\u2028 \x85 \n \ud800 \u00fc"
    cassette = Cassette("cvd-1", {"name": odd}, (Line("client", 1, odd), Line("device", 1, [odd])))
    cassette.save(tmp_path / "odd.jsonl")
    assert Cassette.load(tmp_path / "odd.jsonl") == cassette
    by_hand = '{"cassette": 1, "device_id": "x"}\n{"from": "client", "client": 1, "payload": "\u2028"}\n'
    (tmp_path / "by_hand.jsonl").write_text(by_hand, encoding="utf-8")
    assert Cassette.load(tmp_path / "by_hand.jsonl").lines[0].payload == "\u2028"


def test_refused_forwards_are_not_recorded(server: SignalingServer) -> None:
    with FakeDevice(server) as device, FakeClient(server) as client:
        device.send({"type": "offer"}, 7)
        device.recv(message_type="error")
        device.send({"type": "offer"}, 1)
        client.recv()
    assert [line.client for line in Cassette.record(server.journal, "cvd-1").lines] == [1]


def test_replay_matches_by_type_and_order(server: SignalingServer, recorded: Cassette) -> None:
    async def main() -> None:
        async with AsyncReplayDevice(server, recorded) as device, AsyncFakeClient(server) as client:
            await client.send({"type": "ice-candidate"})
            assert (await client.recv()).payload == {"type": "ice-candidate", "n": 1}
            await client.send({"type": "request-offer"})
            assert (await client.recv()).payload == {"type": "offer", "sdp": "for one"}
            await client.send({"type": "ice-candidate"})
            assert (await client.recv()).payload == {"type": "ice-candidate", "n": 2}
            assert device.unmatched == []

    asyncio.run(main())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"boot.jsonl:1: the first line of a cassette must be"),
        ('{"device_id": "x"}', "the first line of a cassette must be"),
        ('{"cassette": 2, "device_id": "x"}', "boot.jsonl:1: version 2 is unknown; the known one is 1"),
        ('{"cassette": 1, "device_id": ""}', "device_id must be"),
        ('{"cassette": 1, "device_id": "x"}\n\n{"from": "client"', "boot.jsonl:3: invalid JSON"),
        ('{"cassette": 1, "device_id": "x"}\n[]', r"boot.jsonl:2: must be a JSON object, got \'\[\]\'"),
        ('{"cassette": 1, "device_id": "x"}\n{"from": "server"}', '"from" must be "device" or "client"'),
        ('{"cassette": 1, "device_id": "x"}\n{"from": "client", "client": "1"}', '"client" must be a whole number'),
        ('{"cassette": 1, "device_id": "x"}\n{"from": "client", "client": 1}', '"payload" is missing'),
    ],
)
def test_invalid_cassette_file_is_error(text: str, words: str, tmp_path: Any) -> None:
    from cuttlefish_signaling import CassetteError

    file = tmp_path / "boot.jsonl"
    file.write_text(text)
    with pytest.raises(CassetteError, match=words):
        Cassette.load(file)
    with pytest.raises(CassetteError, match="cannot read the cassette"):
        Cassette.load(tmp_path / "none.jsonl")
    with pytest.raises(CassetteError, match="cannot write the cassette"):
        Cassette("x", None, ()).save(tmp_path)


def test_recording_unregistered_device_is_error(server: SignalingServer) -> None:
    from cuttlefish_signaling import CassetteError

    with pytest.raises(CassetteError, match="no registration of device 'cvd-1'"):
        Cassette.record(server.journal, "cvd-1")
