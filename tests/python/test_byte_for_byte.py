"""The kit keeps a payload as it was written: messages, replies, cassettes, faults and transcripts."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuttlefish_signaling import ConfigError, Entry, SignalingServer
from cuttlefish_signaling._raw_json import members, on_lines, on_one_line, parse, write
from cuttlefish_signaling._transcript import as_jsonl
from cuttlefish_signaling.testing import (
    AsyncFakeClient,
    AsyncFakeDevice,
    AsyncReplayDevice,
    Cassette,
    FakeClient,
    FakeDevice,
    RawJson,
    ReplayDevice,
)
from cuttlefish_signaling.testing._cassette import Line

from json_texts import TEXTS

ODD = [
    "1.10",
    '{"type":"offer","n":1.10}',
    '{"type":"offer","n":12345678901234567890.5}',
    '{"type":"offer","k":1,"k":2}',
    r'{"type":"offer","s":"\/"}',
    '{"type":"offer","n":1e400}',
    r'{"type":"offer","s":"\ud800"}',
    '{"z":1,"type":"offer",\n "a" : [1,\r\n2]\t}',
    '{"type":"offer","s":"\u2028\x85"}',
    '{"type":"x","type":"offer","n":' + "7" * 5000 + "}",
    "null",
    "[]",
]

texts = settings(max_examples=100, deadline=None)
live = settings(max_examples=15, deadline=None)


# The texts ------------------------------------------------------------------------------------------------------------


@texts
@given(TEXTS)
def test_text_is_kept_in_an_object(text: str) -> None:
    envelope = f' {{"a": 1 ,\n"payload":\t{text} , "payload" : {text}, "b":[]}} '
    assert members(envelope)["payload"] == text
    assert members(write({"payload": RawJson(text), "b": [text]}))["payload"] == text
    assert members(write([{"x": (RawJson(text), 1)}])[1:-1])["x"] == f"[{text}, 1]"


@texts
@given(TEXTS)
def test_text_is_kept_in_lines(text: str) -> None:
    line = on_one_line(write(on_lines("payload", RawJson(text))))
    assert len(line.splitlines()) == 1
    found = members(line)
    assert repr(parse(found["payload"])) == repr(parse(text)), "the same values"
    assert (found["payload_text"].value if "payload_text" in found else found["payload"]) == text


NOT_JSON = ["", "{", "NaN", "[Infinity]", "'a'", '"\ud800"', "1 2", "[" * 100_000, 1, None]


@pytest.mark.parametrize("text", NOT_JSON, ids=range(len(NOT_JSON)))
def test_raw_json_must_be_json(text: Any) -> None:
    with pytest.raises(ConfigError, match="RawJson: must be a JSON text"):
        RawJson(text)


def test_raw_json_can_be_copied() -> None:
    text = RawJson("1.10")
    for same in (pickle.loads(pickle.dumps(text)), copy.deepcopy(text)):
        assert same == text
        assert type(same) is RawJson
    assert RawJson("9" * 5000).value == RawJson("1e400").value == float("inf")


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], object(), {"a": {1}}, 10**5000], ids=range(5))
def test_value_that_is_not_json_is_error(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"payload: cannot be written as JSON: .*RawJson\(text\)"):
        write(value)
    with pytest.raises(ConfigError, match="payload: cannot be written"):
        write([RawJson("1"), value])


def test_values_are_written_as_by_json() -> None:
    values: list[Any] = [{"a": [1, 2.5, None, True], "ü": {}}, {1: 2, None: [], 1.5: "x", False: ()}, "text", [], 7]
    for value in values:
        assert write(value) == json.dumps(value, ensure_ascii=False)
        assert write([value, RawJson("1.10")]) == f"[{json.dumps(value, ensure_ascii=False)}, 1.10]"
    assert write("\ud800 \U0001f600") == '"\\ud800 \U0001f600"'


# Messages and replies -------------------------------------------------------------------------------------------------


@live
@given(st.lists(TEXTS, min_size=1, max_size=20))
def test_payloads_are_echoed_byte_for_byte(payloads: list[str]) -> None:
    with SignalingServer() as server, FakeDevice(server) as device, FakeClient(server) as client:
        for text in payloads:
            client.send(RawJson(text))
            message = device.recv()
            assert message.raw == text
            assert message.raw is not None
            assert repr(message.payload) == repr(message.raw.value)
            message.reply(message.raw)
            assert client.recv().raw == text
            client.send_raw(f'{{"message_type":"forward","payload": {text} }}')
            assert device.recv().raw == text


def test_replies_and_nested_texts_are_kept() -> None:
    async def main() -> None:
        async with SignalingServer() as server, AsyncFakeDevice(server) as device, AsyncFakeClient(server) as client:
            device.on("list", reply_with=[RawJson(text) for text in ODD])
            device.on("echo", reply_with=lambda message: message.raw)
            device.on("nested", reply_with={"n": [RawJson("1.10")], "s": "\ud800"})
            for type in ("list", "echo", "nested"):
                await client.send({"type": type})
            assert [(await client.recv()).raw for _ in ODD] == ODD
            assert (await client.recv()).raw == '{"type": "echo"}'
            assert (await client.recv()).raw == r'{"n": [1.10], "s": "\ud800"}'
            assert (await device.recv(type="nested")).raw == '{"type": "nested"}'

    asyncio.run(main())


def test_messages_without_payload_have_no_raw() -> None:
    with SignalingServer() as server, FakeDevice(server) as device, FakeClient(server) as client:
        client.send_raw("not JSON")
        assert client.recv(message_type="error").raw is None
        assert device.recv(message_type="client_disconnected").raw is None


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_device_info_is_kept(text: str) -> None:
    with SignalingServer() as server, FakeDevice(server, info=RawJson(text)) as device, FakeClient(server) as client:
        assert server.devices()[0].info_json == client.device_info_json == text
        assert repr(server.devices()[0].info) == repr(device.info) == repr(client.device_info)


def test_payload_that_is_not_json_is_error_of_the_call() -> None:
    with SignalingServer() as server, FakeDevice(server) as device, FakeClient(server) as client:
        with pytest.raises(ConfigError, match="payload"):
            client.send(float("nan"))
        with pytest.raises(ConfigError, match="payload"):
            device.send(object(), 1)
        client.send(1)
        with pytest.raises(ConfigError, match="payload"):
            device.recv().reply({1, 2})
        assert client.is_open
        with pytest.raises(ConfigError, match="info: cannot be written"):
            FakeDevice(server, "cvd-2", info={1, 2}).start()


# Cassettes ------------------------------------------------------------------------------------------------------------


def replayed(server: SignalingServer, file: Path, count: int) -> list[str | None]:
    """The payloads of a replay, for one request."""
    with ReplayDevice(server, file, "replayed") as device, FakeClient(server, "replayed") as client:
        assert device.cassette.device_info_json == client.device_info_json
        client.send({"type": "request-offer"})
        return [client.recv().raw for _ in range(count)]


def record(server: SignalingServer, payloads: list[str], info: str) -> Cassette:
    """A cassette of a device that answers one request with these payloads."""
    with FakeDevice(server, info=RawJson(info)) as device, FakeClient(server) as client:
        client.send({"type": "request-offer"})
        device.recv()
        for text in payloads:
            device.send(RawJson(text), 1)
            client.recv()
        return Cassette.record(server.journal, "cvd-1")


def test_cassette_is_replayed_byte_for_byte(tmp_path: Path) -> None:
    @live
    @given(st.lists(TEXTS, min_size=1, max_size=20), TEXTS)
    def check(payloads: list[str], info: str) -> None:
        with SignalingServer(journal=True) as server:
            cassette = record(server, payloads, info)
            assert [line.raw for line in cassette.lines[1:]] == payloads
            assert cassette.device_info_json == info
            cassette.save(tmp_path / "boot.jsonl")
            assert Cassette.load(tmp_path / "boot.jsonl") == cassette
            assert replayed(server, tmp_path / "boot.jsonl", len(payloads)) == payloads

    check()


def test_odd_payloads_are_replayed_byte_for_byte(tmp_path: Path) -> None:
    async def main(server: SignalingServer) -> list[str | None]:
        async with AsyncReplayDevice(server, tmp_path / "odd.jsonl") as device, AsyncFakeClient(server) as client:
            assert repr(device.info) == repr(client.device_info)
            await client.send({"type": "request-offer"})
            return [(await client.recv()).raw for _ in ODD]

    with SignalingServer(journal=True) as server:
        record(server, ODD, ODD[7]).save(tmp_path / "odd.jsonl")
        assert replayed(server, tmp_path / "odd.jsonl", len(ODD)) == ODD
        assert asyncio.run(main(server)) == ODD


def test_cassette_of_version_0_1_is_loaded(tmp_path: Path) -> None:
    """As 0.1.0 wrote it: escapes for all but ASCII, and words for numbers that `float` does not hold."""
    old = (
        '{"cassette": 1, "device_id": "cvd-1", "device_info": {"name": "\\u00fc"}}\n'
        '{"from": "client", "client": 1, "payload": {"type": "request-offer"}}\n'
        '{"from": "device", "client": 1, "payload": {"n": [Infinity, -Infinity], "s": "\\ud800"}}\n'
    )
    (tmp_path / "old.jsonl").write_text(old)
    cassette = Cassette.load(tmp_path / "old.jsonl")
    assert cassette.device_info == {"name": "ü"}
    assert [line.raw for line in cassette.lines] == [
        '{"type": "request-offer"}',
        r'{"n": [1e999, -1e999], "s": "\ud800"}',
    ]
    assert cassette == Cassette("cvd-1", RawJson(r'{"name": "\u00fc"}'), cassette.lines)
    with SignalingServer() as server:
        assert replayed(server, tmp_path / "old.jsonl", 1) == [cassette.lines[1].raw]


def test_cassette_with_two_different_texts_is_error(tmp_path: Path) -> None:
    from cuttlefish_signaling import CassetteError

    Cassette("cvd-1", None, [Line("device", 1, RawJson("[1,\n2]"))]).save(tmp_path / "a.jsonl")
    saved = (tmp_path / "a.jsonl").read_text()
    assert saved.splitlines()[1] == r'{"from": "device", "client": 1, "payload": [1, 2], "payload_text": "[1,\n2]"}'
    for change, words in [
        (("[1, 2]", "[1, 3]"), '"payload" and "payload_text" differ'),
        ((r'"[1,\n2]"', r'"[1,\n2"'), '"payload_text" must be a string with JSON'),
        ((r'"[1,\n2]"', "[1, 2]"), '"payload_text" must be a string with JSON'),
    ]:
        (tmp_path / "a.jsonl").write_text(saved.replace(*change))
        with pytest.raises(CassetteError, match=f"a.jsonl:2: {words}"):
            Cassette.load(tmp_path / "a.jsonl")


def test_payload_with_a_type_that_is_no_string_is_matched() -> None:
    """The types of the cassette and of messages are the same: of `{"type": 7}`, none."""
    cassette = Cassette("cvd-1", None, [Line("client", 1, {"type": 7}), Line("device", 1, "answer")])
    with SignalingServer() as server, ReplayDevice(server, cassette) as device, FakeClient(server) as client:
        client.send({"type": 7})
        assert client.recv().payload == "answer"
        assert device.unmatched == []


# Faults and transcripts -----------------------------------------------------------------------------------------------


@live
@given(st.lists(TEXTS, min_size=3, max_size=10))
def test_faults_keep_the_text(payloads: list[str]) -> None:
    with SignalingServer(journal=True) as server, FakeDevice(server) as device, FakeClient(server) as client:
        for fault, counts in [
            (server.faults.duplicate(to="device"), (2, 2)),
            (server.faults.delay(0, to="device"), (1, 1)),
            (server.faults.stall(to="device"), (1, 0)),
            (server.faults.reorder(3, hold=0.0, to="device"), (1, 1)),
        ]:
            total, inside = counts
            with fault:
                for text in payloads:
                    client.send(RawJson(text))
                received = [device.recv().raw for _ in range(inside * len(payloads))]
                server.journal.expect(where=lambda entry: len(server.journal.messages(message_type="forward")) > 0)
            received += [device.recv().raw for _ in range((total - inside) * len(payloads))]
            assert sorted(map(str, received)) == sorted(payloads * total)
        forwards = server.journal.messages(message_type="forward")
        assert [entry.raw for entry in forwards] == payloads * 4
        with server.faults.truncate(0.9, to="device"):
            client.send(RawJson(payloads[0]))
            whole = f'{{"message_type":"client_msg","client_id":1,"payload":{payloads[0]}}}'
            assert whole.startswith(device.recv(message_type="broken").text)


def test_faults_and_journal_go_by_the_last_type() -> None:
    with SignalingServer(journal=True) as server, FakeDevice(server) as device, FakeClient(server) as client:
        with server.faults.drop(type="answer") as fault:
            client.send(RawJson('{"type":"offer","type":"answer"}'))
            client.send(RawJson('{"type":"answer","type":"offer"}'))
            assert device.recv().type == "offer"
        fault.assert_struck(1)
        assert [entry.outcome for entry in server.journal.messages("answer")] == ["dropped"]


def entry(payload: str, type: str = "forward") -> Entry:
    text = f'{{"message_type":"device_msg","payload":{payload}}}'
    return Entry._of((1, 0.0, False, "device->client", "cvd-1", 1, 0, type, text, payload, "passed", ([], 0)))


@texts
@given(st.lists(TEXTS, max_size=5))
def test_transcript_of_lines_has_the_texts(payloads: list[str]) -> None:
    lines = as_jsonl([entry(text) for text in payloads]).splitlines()
    found = [members(line) for line in lines]
    assert [line["payload_text"].value if "payload_text" in line else line["payload"] for line in found] == payloads
    assert [line["payload"] for line in found] == list(map(on_one_line, payloads))


def test_transcripts_of_odd_payloads() -> None:
    with SignalingServer(journal=True) as server, FakeDevice(server) as device, FakeClient(server) as client:
        for text in ODD:
            client.send(RawJson(text))
            device.recv()
        journal = server.journal
        assert [entry.raw for entry in journal.messages(message_type="forward")] == ODD
        assert journal.transcript("text").count("offer") == journal.transcript("mermaid").count("offer") == 9
        lines = [line for line in journal.transcript("jsonl").splitlines() if '"payload": ' in line]
        assert len(lines) == len(ODD)
