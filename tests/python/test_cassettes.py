"""Cassettes: recording, files, and replay."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from cuttlefish_signaling import (
    SignalingServer,
)
from cuttlefish_signaling.testing import (
    AsyncFakeClient,
    AsyncReplayDevice,
    Cassette,
    FakeClient,
    FakeDevice,
    ReplayDevice,
)
from cuttlefish_signaling.testing._cassette import Line


@pytest.fixture
def server() -> Iterator[SignalingServer]:
    with SignalingServer(journal=True) as server:
        yield server
    assert server.stats().balances


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
