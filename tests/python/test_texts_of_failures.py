"""Transcripts, and the texts of errors: bounded, one name for each client, and the acts of the server."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
import trio

from cuttlefish_signaling import ExpectationError, SignalingServer, UnsupportedError, WaitTimeoutError
from cuttlefish_signaling._transcript import HEAD, TAIL
from cuttlefish_signaling.testing import AsyncFakeClient, AsyncFakeDevice, AttachedServer, FakeClient, FakeDevice


@pytest.fixture
def server() -> Iterator[SignalingServer]:
    with SignalingServer(journal=True, device_wait_timeout=None) as server:
        yield server


# Transcripts ----------------------------------------------------------------------------------------------------------


def test_long_transcript_in_error_has_head_and_tail(server: SignalingServer) -> None:
    with FakeDevice(server) as device, FakeClient(server) as client:
        for number in range(HEAD + TAIL):
            client.send({"type": f"n{number}"})
        device.recv(type=f"n{HEAD + TAIL - 1}", check_type=False)
        with pytest.raises(ExpectationError) as failed:
            server.journal.expect("offer", timeout=0.01, check_type=False)
        lines = str(failed.value).partition("what was said:\n")[2].splitlines()
        assert len(lines) == 1 + HEAD + 1 + TAIL
        assert "register" in lines[1]
        assert lines[1 + HEAD].strip() == "... 5 more ..."
        assert f"n{HEAD - 6} " in lines[HEAD]
        assert f" n{HEAD} " in lines[HEAD + 2]
        assert f"n{HEAD + TAIL - 1} " in lines[-1]
        assert len(server.journal.transcript().splitlines()) == 1 + 5 + HEAD + TAIL, "that of the journal has all"


def test_transcript_within_bounds_is_whole(server: SignalingServer) -> None:
    with FakeDevice(server), FakeClient(server) as client:
        for number in range(HEAD + TAIL - 5):
            client.send({"type": f"n{number}"})
        server.journal.expect(f"n{HEAD + TAIL - 6}", check_type=False)
        with pytest.raises(ExpectationError) as failed:
            server.journal.expect("offer", timeout=0.01, check_type=False)
        assert "more" not in str(failed.value)


def test_names_are_cut_in_the_middle(server: SignalingServer) -> None:
    ids = [f"a-device-with-a-long-name-{number}" for number in (1, 2)]
    with FakeDevice(server, ids[0]), FakeDevice(server, ids[1]):
        text = server.journal.transcript()
        assert "a-device-w…ng-name-1 " in text
        assert "a-device-w…ng-name-2 " in text
        names = [line.split(" as ")[1] for line in server.journal.transcript("mermaid").splitlines() if " as " in line]
        assert names == ["device a-device-w…ng-name-1", "server", "device a-device-w…ng-name-2"]


def test_devices_with_the_same_cut_name_are_two_participants(server: SignalingServer) -> None:
    with FakeDevice(server, "a-device-w-one-long-name-1"), FakeDevice(server, "a-device-w-other-long-name-1"):
        lines = server.journal.transcript("mermaid").splitlines()
        assert sum("participant" in line for line in lines) == 3, lines


def test_client_is_one_participant_before_and_after_its_id(server: SignalingServer) -> None:
    with FakeDevice(server), FakeClient(server) as client, FakeClient(server) as other:
        client.send(1)
        other.send(2)
        server.journal.expect(where=lambda entry: entry.payload == 2)
        diagram = server.journal.transcript("mermaid")
        assert [line.strip() for line in diagram.splitlines() if "participant" in line] == [
            "participant p0 as device cvd-1",
            "participant p1 as server",
            "participant p2 as client cvd-1#35;1",
            "participant p3 as client cvd-1#35;2",
        ]
        assert "p2->>p1: connect" in diagram
        assert "p3->>p1: connect" in diagram
        assert "#?" not in server.journal.transcript()
        assert "connect" in server.journal.transcript(client=2)
        assert "cvd-1#1" not in server.journal.transcript(client=2)


def test_clients_without_id_are_told_apart(server: SignalingServer) -> None:
    async def main() -> None:
        async def waits() -> None:
            async with AsyncFakeClient(server, "cvd-9", timeout=30):
                pass

        tasks = [asyncio.create_task(waits()) for _ in range(2)]
        while server.stats().waiting < 2:
            await server.wait_for_client_async("cvd-9", waiting=True)
            await asyncio.sleep(0)
        lines = server.journal.transcript().splitlines()
        assert [line.split()[-1] for line in lines if "connect" in line] == ["cvd-9#?", "cvd-9#?2"]
        assert "client cvd-9#35;?2" in server.journal.transcript("mermaid")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())


@pytest.mark.parametrize("to", ["client", "device"])
def test_dropped_message_ends_at_the_server(server: SignalingServer, to: Literal["client", "device"]) -> None:
    with FakeDevice(server) as device, FakeClient(server) as client:
        with server.faults.drop(to=to):
            device.send({"type": "offer"}, 1)
            client.send({"type": "answer"})
            server.journal.expect("offer")
            server.journal.expect("answer")
        kind = "offer" if to == "client" else "answer"
        diagram = server.journal.transcript("mermaid").splitlines()
        (line,) = [line.strip() for line in diagram if kind in line]
        assert line == {"client": "p0-xp1: offer  ! drop", "device": "p2-xp1: answer  ! drop"}[to]
        assert "    participant p1 as server" in diagram
        (drawn,) = [line for line in server.journal.transcript().splitlines() if kind in line]
        lanes = drawn[9 + 2 + 6 + 2 :][: 28 + 1 + 28]
        assert lanes[28] == "╳"
        assert (lanes[29:] if to == "client" else lanes[:28]).strip() == "", "nothing beyond the server"


# Silence --------------------------------------------------------------------------------------------------------------


def fall_silent(server: SignalingServer, device: FakeDevice) -> None:
    with server.clock.frozen() as clock:
        device.stall()
        clock.advance(10)
        clock.advance(5)
        assert server.devices() == []


def test_silence_is_an_act_of_the_server(server: SignalingServer) -> None:
    with FakeDevice(server) as device:
        fall_silent(server, device)
        (end,) = [entry for entry in server.journal.entries() if entry.closed]
        assert (end.direction, end.text, end.silence) == ("server->device", "silent for 15 s, dropped", "15 s")
        assert server.stats().silent == 1
        assert "! silent for 15 s, dropped" in server.journal.transcript()
        assert "p1-xp0: #91;silent for 15 s, dropped#93;" in server.journal.transcript("mermaid")
    assert [entry.text for entry in server.journal.entries() if entry.closed] == ["silent for 15 s, dropped"]


def test_later_timeouts_tell_of_silence(server: SignalingServer) -> None:
    with FakeDevice(server) as device:
        fall_silent(server, device)
        told = "the server dropped device 'cvd-1', silent for 15 s"
        with pytest.raises(WaitTimeoutError, match=told):
            server.wait_for_device("cvd-1", timeout=0.01)
        with pytest.raises(WaitTimeoutError, match=f"{told}; it is stalled"):
            device.recv(timeout=0.01)
        with pytest.raises(ExpectationError, match=r"the server closed:\n +#\d+ server->device cvd-1 \[silent"):
            server.journal.expect("offer", timeout=0.01)
        device.resume()
        with pytest.raises(ConnectionError, match=f"without a close frame; {told}"):
            device.recv()


def test_timeout_tells_of_silence_without_a_journal() -> None:
    with SignalingServer() as server, FakeDevice(server) as device:
        fall_silent(server, device)
        with pytest.raises(WaitTimeoutError, match="; the server dropped 1 silent connection$"):
            server.wait_for_device("cvd-1", timeout=0.01)


def test_timeout_without_silence_says_nothing_of_it(server: SignalingServer) -> None:
    with FakeDevice(server, "other"), pytest.raises(WaitTimeoutError) as failed:
        server.wait_for_device("cvd-1", timeout=0.01)
    assert "silent" not in str(failed.value)


# Event loops ----------------------------------------------------------------------------------------------------------

STOOD = "the event loop of this thread stood still during the wait, and its tasks with it: "


def test_synchronous_wait_on_a_loop_names_the_asynchronous_one(server: SignalingServer) -> None:
    async def main() -> None:
        with FakeDevice(server) as device, FakeClient(server) as client:
            waits: list[tuple[Callable[[], Any], str]] = [
                (lambda: device.recv(timeout=0.01), "AsyncFakeDevice"),
                (lambda: client.recv(timeout=0.01), "AsyncFakeClient"),
                (lambda: client.wait_closed(timeout=0.01), "AsyncFakeClient"),
                (lambda: server.wait_for_device("no", timeout=0.01), "wait_for_device_async()"),
                (lambda: server.wait_for_client("no", timeout=0.01), "wait_for_client_async()"),
                (lambda: server.journal.expect("offer", timeout=0.01), "expect_async() or expect_sequence_async()"),
                (lambda: AttachedServer(server.url).wait_for_device("no", timeout=0.01), "wait_for_device_async()"),
            ]
            for wait, instead in waits:
                with pytest.raises((WaitTimeoutError, ExpectationError), match=re.escape(f"{STOOD}use {instead}")):
                    wait()

    asyncio.run(main())


def test_wait_without_a_loop_says_nothing_of_one(server: SignalingServer) -> None:
    async def waits() -> None:
        with pytest.raises(WaitTimeoutError) as failed:
            await server.wait_for_device_async("no", timeout=0.01)
        assert "stood still" not in str(failed.value)

    asyncio.run(waits())
    with FakeDevice(server) as device, pytest.raises(WaitTimeoutError) as failed:
        device.recv(timeout=0.01)
    assert "stood still" not in str(failed.value)


def test_on_trio_waits_for_asyncio_say_so(server: SignalingServer) -> None:
    async def main() -> None:
        with pytest.raises(UnsupportedError, match="AsyncFakeDevice works on asyncio only, and trio.*: use FakeDevice"):
            await AsyncFakeDevice(server).start()
        with pytest.raises(UnsupportedError, match=r"asyncio only, and trio runs .*trio\.to_thread\.run_sync"):
            await server.wait_for_device_async("no")
        with pytest.raises(UnsupportedError, match="asyncio only, and trio runs"):
            await server.journal.expect_async("offer")
        with pytest.raises(UnsupportedError, match="asyncio only, and trio runs"):
            await AttachedServer(server.url).wait_for_device_async("no")
        with pytest.raises(WaitTimeoutError, match=re.escape(f"{STOOD}wait in trio.to_thread.run_sync()")):
            server.wait_for_device("no", timeout=0.01)

    trio.run(main)


# Messages -------------------------------------------------------------------------------------------------------------


def test_repr_of_message_has_type_client_and_payload(server: SignalingServer) -> None:
    with FakeDevice(server) as device, FakeClient(server) as client:
        client.send({"type": "request-offer", "n": 1.5})
        message = device.recv()
        assert repr(message) == "<SyncMessage client_msg of client 1: {'type': 'request-offer', 'n': 1.5}>"
        message.reply("x" * 1000)
        answer = client.recv()
        assert repr(answer).startswith("<SyncMessage device_msg: 'xxx")
        assert len(repr(answer)) < 350
        assert "…" in repr(answer)
        client.send_raw("]")
        assert repr(client.recv(message_type="error")) == "<SyncMessage error: 'Received Invalid JSON'>"


def test_json_lines_have_the_connection(server: SignalingServer) -> None:
    with FakeDevice(server), FakeClient(server) as client:
        client.send(1)
        server.journal.expect(direction="client->device")
        entries = [json.loads(line) for line in server.journal.transcript("jsonl").splitlines()]
        assert [entry["connection"] for entry in entries] == [1, 1, 2, 2, 2, 0]
