"""The journal: messages, expectations, transcripts, and the errors of expectations that fail."""

from __future__ import annotations

import asyncio
import inspect
import json
import pydoc
import re
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cuttlefish_signaling import (
    Entry,
    ExpectationError,
    FilterError,
    Journal,
    JournalOffError,
    Limits,
    NotRunningError,
    SignalingServer,
)
from cuttlefish_signaling._query import Filters
from cuttlefish_signaling.testing import FakeClient, FakeDevice


@pytest.fixture
def server() -> Iterator[SignalingServer]:
    with SignalingServer(journal=True) as server:
        yield server


@pytest.fixture
def device(server: SignalingServer) -> Iterator[FakeDevice]:
    with FakeDevice(server) as device:
        yield device


@pytest.fixture
def client(server: SignalingServer, device: FakeDevice) -> Iterator[FakeClient]:
    with FakeClient(server) as client:
        yield client


def converse(device: FakeDevice, client: FakeClient) -> None:
    """A request, an offer, an answer, and two candidates."""
    client.send({"type": "request-offer"})
    device.recv().reply({"type": "offer", "sdp": "v=0"})
    client.recv().reply({"type": "answer", "sdp": "v=1"})
    device.recv().reply({"type": "ice-candidate", "candidate": "a"})
    client.recv().reply({"type": "ice-candidate", "candidate": {}})
    device.recv()


def test_entry_fields_describe_message(server: SignalingServer, device: FakeDevice, client: FakeClient) -> None:
    began = time.time()
    converse(device, client)
    offer = server.journal.expect("offer")
    assert (offer.direction, offer.device, offer.client) == ("device->client", "cvd-1", 1)
    assert (offer.type, offer.payload) == ("offer", {"type": "offer", "sdp": "v=0"})
    assert (offer.message_type, offer.outcome, offer.faults, offer.closed) == ("forward", "passed", (), False)
    assert offer.payload_json == '{"type": "offer", "sdp": "v=0"}'
    assert offer.text == '{"message_type":"device_msg","payload":{"type": "offer", "sdp": "v=0"}}'
    assert offer.size == len(offer.text)
    assert began - 1 < offer.at < time.time() + 1
    entries = server.journal.entries()
    assert [entry.number for entry in entries] == list(range(1, len(entries) + 1))
    assert server.journal.count == len(entries)
    register = server.journal.messages(message_type="register")[0]
    assert register.payload is None
    assert json.loads(register.text)["device_info"] == device.info


def test_messages_matches_each_filter(server: SignalingServer, device: FakeDevice, client: FakeClient) -> None:
    converse(device, client)
    with FakeClient(server) as other:
        other.send({"type": "request-offer"})
        device.recv()
        journal = server.journal

        def types(**filters: Any) -> list[str | None]:
            return [entry.type for entry in journal.messages(**filters)]

        assert types(type="request-offer") == ["request-offer"] * 2
        assert types(type="request-offer", client=2) == ["request-offer"]
        assert types(direction="device->client") == ["offer", "ice-candidate"]
        assert types(direction="client->device", where=lambda entry: "sdp" in entry.payload) == ["answer"]
        assert types(device="cvd-2") == []
        assert [entry.direction for entry in journal.messages(message_type="connect")] == ["client->server"] * 2
        answer = journal.messages("answer")[0]
        assert types(message_type="forward", after=answer)[:2] == ["ice-candidate"] * 2
        assert len(journal.messages()) == len(journal.entries())


@contextmanager
def when_searched(action: Callable[[], object]) -> Iterator[Callable[[Entry], bool]]:
    """A condition that holds for each entry. Another thread calls the action when the first one has been looked at."""
    looked = threading.Event()
    thread = threading.Thread(target=lambda: looked.wait(20) and action())
    thread.start()

    def searched(entry: Entry) -> bool:
        looked.set()
        return True

    yield searched
    thread.join()


def test_expect_waits_for_later_message(server: SignalingServer, device: FakeDevice, client: FakeClient) -> None:
    with when_searched(lambda: client.send({"type": "request-offer"})) as searched:
        entry = server.journal.expect(where=lambda entry: searched(entry) and entry.type == "request-offer")
    assert (entry.type, entry.device, entry.client) == ("request-offer", "cvd-1", 1)
    assert server.journal.expect("request-offer", device="cvd-1", client=1) == entry, "earlier messages count as well"
    with pytest.raises(ExpectationError):
        server.journal.expect("request-offer", after=entry, timeout=0.05)


def test_expect_sees_later_outcome(server: SignalingServer, device: FakeDevice, client: FakeClient) -> None:
    fault = server.faults.stall().arm()
    client.send({"type": "answer"})
    server.journal.expect("answer")

    def leave() -> None:
        client.close()
        fault.remove()

    with when_searched(leave) as searched:
        entry = server.journal.expect("answer", where=lambda entry: searched(entry) and entry.outcome == "gone")
    assert entry.faults == ("stall",)


def test_async_expect() -> None:
    async def main() -> None:
        async with SignalingServer(journal=True) as server:
            with FakeDevice(server) as device, FakeClient(server) as client:
                waiting = asyncio.create_task(server.journal.expect_async("request-offer"))
                sequence = asyncio.create_task(server.journal.expect_sequence_async("request-offer", "offer"))
                none = asyncio.create_task(server.journal.expect_none_async("answer", within=0.05))
                await asyncio.sleep(0)
                assert not waiting.done()
                client.send({"type": "request-offer"})
                device.recv().reply({"type": "offer"})
                assert (await waiting).type == "request-offer"
                assert [entry.type for entry in await sequence] == ["request-offer", "offer"]
                await none
                with pytest.raises(ExpectationError, match="expected no message with type='offer', but #"):
                    await server.journal.expect_none_async("offer")
                with pytest.raises(ExpectationError, match=r"within 0\.05 s; it did not come"):
                    await server.journal.expect_async("answer", timeout=0.05)
            late = asyncio.create_task(server.journal.expect_async("answer", timeout=None))
            await asyncio.sleep(0)
        with pytest.raises(ExpectationError, match="the server has stopped: nothing more can come"):
            await late

    asyncio.run(main())


def test_expect_sequence_allows_messages_between(
    server: SignalingServer, device: FakeDevice, client: FakeClient
) -> None:
    converse(device, client)
    journal = server.journal
    found = journal.expect_sequence(
        {"message_type": "register"}, "request-offer", {"type": "ice-candidate", "direction": "client->device"}
    )
    assert [entry.message_type for entry in found] == ["register", "forward", "forward"]
    assert found == sorted(found, key=lambda entry: entry.number)
    with pytest.raises(ExpectationError) as failed:
        journal.expect_sequence("request-offer", "answer", "offer", timeout=0.05)
    lines = str(failed.value).splitlines()
    assert lines[0] == ("expected 3 messages in order, within 0.05 s; number 3, with type='offer', did not come")
    assert lines[1].endswith("client->device cvd-1#1 request-offer")
    assert lines[2].endswith("client->device cvd-1#1 answer")
    with pytest.raises(FilterError, match="at least one payload type"):
        journal.expect_sequence()


def test_expect_none_waits_full_time(server: SignalingServer, device: FakeDevice, client: FakeClient) -> None:
    began = time.monotonic()
    server.journal.expect_none("offer", within=0.2)
    assert time.monotonic() - began >= 0.2
    with when_searched(lambda: client.send({"type": "answer"})) as searched:
        with pytest.raises(ExpectationError, match=r'payload: \{"type": "answer"\}'):
            server.journal.expect_none(where=lambda entry: searched(entry) and entry.type == "answer", within=20)


GOLDEN = """\
expected a message with type='offer', device='cvd-1', client=2, within 0.05 s; it did not come
nearest misses:
  #7 device->client cvd-1#1 offer: client is 1
  #6 client->device cvd-1#1 request-offer: type is 'request-offer', client is 1
  #8 client->device cvd-1#1 answer: type is 'answer', client is 1
what was said:
    seconds  device                           server                           client
      0.000  cvd-1   register ──────────────────▶│
      0.000  cvd-1   ◀────────────────── config ─│
      0.000                                      │◀─────────────────── connect  cvd-1#1
      0.000                                      │─ config ──────────────────▶  cvd-1#1
      0.000                                      │─ device_info ─────────────▶  cvd-1#1
      0.000  cvd-1   ◀───────────────────────────┼────────────── request-offer  cvd-1#1
      0.000  cvd-1   offer ──────────────────────┼────────────────────────────▶  cvd-1#1
      0.000  cvd-1   ◀───────────────────────────┼───────────────────── answer  cvd-1#1
      0.000  cvd-1   ice-candidate ──────────────┼────────────────────────────▶  cvd-1#1
      0.000  cvd-1   ◀───────────────────────────┼────────────── ice-candidate  cvd-1#1"""


def test_expect_failure_shows_nearest_misses(server: SignalingServer, device: FakeDevice, client: FakeClient) -> None:
    converse(device, client)
    with pytest.raises(ExpectationError) as failed:
        server.journal.expect("offer", device="cvd-1", client=2, timeout=0.05)
    assert re.sub(r"\b\d+\.\d{3}\b", "0.000", str(failed.value)) == GOLDEN


def test_transcript_shows_faults_refusals_errors_and_closes(
    server: SignalingServer, device: FakeDevice, client: FakeClient
) -> None:
    with server.faults.drop(type="offer"):
        device.send({"type": "offer"}, 1)
        device.send({"type": "offer"}, 7)
        device.recv(message_type="error")
    client.send_raw('{"message_type":"\\u001b[31mred"}')
    client.recv(message_type="error")
    client.send_raw("]")
    client.wait_closed()
    device.recv(message_type="client_disconnected")
    text = server.journal.transcript()
    lines = text.splitlines()[6:]
    assert [line.split("  ! ")[1] if "  ! " in line else "" for line in lines] == [
        "drop",
        "refused",
        "Forward failed: Unknown client 7",
        "",
        "Unknown message type: \\x1b[31mred",
        "",
        "",
        "Received Invalid JSON",
        "",
    ]
    assert "\\x1b[31mred" in lines[3]
    assert "\x1b" not in text
    assert "╳" in lines[0]
    assert "(not a message)" in lines[5]
    assert "[1007 Recei…valid JSON]" in lines[8]
    assert {len(line.split("│")[0]) for line in lines if "│" in line} == {47}, "lanes are aligned"


def test_transcript_as_mermaid(server: SignalingServer, device: FakeDevice, client: FakeClient) -> None:
    converse(device, client)
    assert server.journal.transcript("mermaid", client=1) == textwrap.dedent("""\
        sequenceDiagram
            participant p0 as client cvd-1#35;1
            participant p1 as server
            participant p2 as device cvd-1
            p0->>p1: connect
            p1->>p0: config
            p1->>p0: device_info
            p0->>p2: request-offer
            p2->>p0: offer
            p0->>p2: answer
            p2->>p0: ice-candidate
            p0->>p2: ice-candidate""")


def test_transcript_as_json_lines(server: SignalingServer, device: FakeDevice, client: FakeClient) -> None:
    client.send_raw('{"message_type":"forward","payload":{"type":"offer",\n "n":0.10,"n":18446744073709551616.0}}')
    client.send_raw('{"message_type":"forward","payload":{"type":"answer","n":0.10}}')
    device.recv(type="answer")
    lines = server.journal.transcript("jsonl").splitlines()
    entries = [json.loads(line) for line in lines]
    assert [entry["message_type"] for entry in entries] == [entry.message_type for entry in server.journal.entries()]
    assert entries[5]["payload"]["type"] == "offer"
    assert '"payload": {"type":"answer","n":0.10}}' in lines[6], "the payload is byte-identical"
    assert json.loads(entries[0]["text"])["device_id"] == "cvd-1"
    assert entries[0]["direction"] == "device->server"


def test_empty_transcript(server: SignalingServer) -> None:
    assert server.journal.transcript() == "(nothing was said)"
    assert server.journal.transcript("jsonl") == ""


def test_invalid_filter_error_lists_filters(server: SignalingServer, device: FakeDevice, client: FakeClient) -> None:
    journal = server.journal
    with pytest.raises(FilterError, match="unknown filter 'devise'; did you mean 'device'.*direction"):
        journal.messages(devise="cvd-1")  # type: ignore[call-arg]
    with pytest.raises(FilterError, match="'timout'; did you mean 'timeout'"):
        journal.expect("offer", timout=1)  # type: ignore[call-arg]
    with pytest.raises(FilterError, match="unknown filter 'timeout'.*within"):
        journal.expect_none("offer", timeout=1)  # type: ignore[call-arg]
    with pytest.raises(FilterError, match="'within'"):
        journal.messages("offer", within=1)  # type: ignore[call-arg]
    with pytest.raises(FilterError, match="'direction'. Known filters: after, check_type, client, device, timeout"):
        journal.expect_sequence("offer", direction="device->client")  # type: ignore[arg-type]
    with pytest.raises(FilterError, match="direction='up' is not one of 'device->server'"):
        journal.expect("offer", direction="up")
    with pytest.raises(
        FilterError, match="type='ofer' is not a known payload type; did you mean 'offer'.*check_type=False"
    ):
        journal.expect("ofer")
    with pytest.raises(FilterError, match="client='1' is not a client id"):
        journal.expect(client="1")  # type: ignore[arg-type]
    with pytest.raises(FilterError, match="device=1 is not a device id"):
        journal.expect_none(device=1)  # type: ignore[arg-type]
    with pytest.raises(FilterError, match="type=1 is not a payload type"):
        journal.expect(1)  # type: ignore[arg-type]
    with pytest.raises(FilterError, match="format='svg' is not one of 'text'"):
        journal.transcript("svg")  # type: ignore[arg-type]
    with pytest.raises(FilterError, match="unknown filter 'typ'"):
        journal.expect_sequence({"typ": "offer"})
    with pytest.raises(FilterError, match="where=1 is not a function"):
        journal.messages(where=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timeout: must be a number of seconds"):
        journal.expect("offer", timeout="5")  # type: ignore[arg-type]
    # A type unlike the known ones is allowed, and so is one that was seen, and any with check_type=False.
    assert journal.messages("bugreport") == []
    assert journal.messages("ofer", check_type=False) == []
    client.send({"type": "offers"})
    device.recv()
    assert len(journal.messages("offers")) == 1


@pytest.mark.parametrize("method", ["messages", "expect", "expect_none"])
def test_help_lists_filters(method: str) -> None:
    text = pydoc.plain(pydoc.render_doc(getattr(Journal, method)))
    names = Filters.__annotations__
    assert len(names) == 7
    assert [name for name in names if f"`{name}`" not in text] == []
    listed = (inspect.getdoc(Journal) or "").replace(", ", ": ")
    assert f"**filters: 'Unpack[{Filters.__name__}]'" in text
    assert [name for name in (*names, "type") if f"{name}:" not in listed] == []


def test_journal_off_is_error() -> None:
    with SignalingServer() as server, pytest.raises(JournalOffError, match=r"SignalingServer\(journal=True\)"):
        _ = server.journal
    with pytest.raises(NotRunningError, match="has not been started"):
        _ = SignalingServer(journal=True).journal


def test_journal_is_readable_after_stop(server: SignalingServer, device: FakeDevice, client: FakeClient) -> None:
    converse(device, client)
    server.stop()
    assert server.journal.expect("answer").type == "answer"
    began = time.monotonic()
    with pytest.raises(ExpectationError, match="the server has stopped: nothing more can come"):
        server.journal.expect("error", timeout=None)
    server.journal.expect_none("error", within=20)
    assert time.monotonic() - began < 10
    assert "[1001 server stopping]" in server.journal.transcript()
    first = server.journal.count
    server.start()
    assert server.journal.count == 0 < first, "each run has a journal of its own"


def test_expect_failure_counts_evicted_entries() -> None:
    with SignalingServer(journal=True, limits=Limits(journal_entries=3)) as server, FakeDevice(server) as device:
        with FakeClient(server) as client:
            converse(device, client)
            assert len(server.journal.entries()) == 3
            assert server.journal.forgotten == server.journal.count - 3
            with pytest.raises(ExpectationError, match=r"has forgotten its first \d+ entries"):
                server.journal.expect("request-offer", timeout=0.01)


def test_entry_str_and_repr(server: SignalingServer, device: FakeDevice, client: FakeClient) -> None:
    converse(device, client)
    assert str(server.journal.messages("offer")[0]) == "device->client cvd-1#1 offer"
    assert isinstance(server.journal.entries()[0], Entry)
    assert re.fullmatch(r"<Journal of \d+ entries>", repr(server.journal))
