"""The journal, faults, clock, ICE servers and streams of the control API."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from control_requests import Control, controlled_server

from cuttlefish_signaling import Limits, SignalingServer

from peers import Peers, WebSocketPeer, peers_of, wait_until


def pair(peers: Peers) -> tuple[WebSocketPeer, WebSocketPeer]:
    """A device and a client of it."""
    device = peers.device("cvd-1")
    return device, peers.client("cvd-1")


def has_matched(control: Control, id: int, count: int) -> bool:
    """Whether this many forwards have matched a fault."""
    return bool(control("GET", f"/faults/{id}")["matched"] == count)


def forward(client: WebSocketPeer, payload: Any) -> None:
    """Sends a payload to the device."""
    client.send({"message_type": "forward", "payload": payload})


# Journal -------------------------------------------------------------------------------------------------------------


def test_entries_are_those_of_python() -> None:
    with controlled_server() as (server, control), peers_of(server) as peers:
        device, client = pair(peers)
        client.socket.send('{"message_type":"forward","payload":{"type": "offer",\n "sdp":"é"}}')
        device.receive()
        page = control("GET", "/journal")
        entries = server.journal.entries()
        assert (page["count"], page["forgotten"], page["more"]) == (server.journal.count, 0, False)
        assert page["next"] == page["entries"][-1]["number"] == server.journal.count
        for found, entry in zip(page["entries"], entries, strict=True):
            payload = found.pop("payload")
            assert payload == entry.payload_json
            assert found.pop("faults") == list(entry.faults)
            assert found == {name: getattr(entry, name) for name in found}
        assert page["entries"][-1]["text"].endswith('{"type": "offer",\n "sdp":"é"}}')


def test_filters_select_entries() -> None:
    with controlled_server() as (server, control), peers_of(server) as peers:
        device, client = pair(peers)
        for kind in ("offer", "ice-candidate", "offer"):
            forward(client, {"type": kind})
            device.receive()
        types = [
            json.loads(entry["payload"])["type"] for entry in control("GET", "/journal?message_type=forward")["entries"]
        ]
        assert types == ["offer", "ice-candidate", "offer"]
        found = control("GET", "/journal?type=offer&direction=client-%3Edevice&device=cvd-1&client=1&closed=false")
        first, second = found["entries"]
        assert control("GET", f"/journal?type=offer&after={first['number']}")["entries"] == [second]
        one = control("GET", "/journal?type=offer&limit=1")
        assert (one["entries"], one["more"], one["next"]) == ([first], True, first["number"])
        assert control("GET", "/journal?limit=0")["entries"] == []
        for nothing in ("type=answer", "device=cvd-2", "client=2", "closed=true", "after=1000000"):
            assert control("GET", f"/journal?{nothing}")["entries"] == [], nothing


def test_query_waits_for_the_first_match() -> None:
    with controlled_server() as (server, control), peers_of(server) as peers:
        device, client = pair(peers)
        after = server.journal.count
        assert control("GET", f"/journal?type=offer&after={after}&wait=0.01")["entries"] == []
        with control.begun("GET", f"/journal?type=offer&after={after}&wait=60") as connection:
            forward(client, {"type": "answer"})
            forward(client, {"type": "offer"})
            device.receive()
            [entry] = json.load(connection.getresponse())["entries"]
            assert entry["payload"] == '{"type": "offer"}'


def test_expectation_waits_for_all_steps() -> None:
    with controlled_server() as (server, control), peers_of(server) as peers:
        device, client = pair(peers)
        steps = [{"type": "offer", "device": "cvd-1"}, {"type": "answer", "direction": "device->client"}]
        forward(client, {"type": "offer"})
        device.receive()
        short = control("POST", "/journal/expect", {"steps": steps, "wait": 0.01})
        assert (short["complete"], len(short["entries"])) == (False, 1)
        with control.begun("POST", "/journal/expect", {"steps": steps, "wait": 60}) as connection:
            device.send({"message_type": "forward", "client_id": 1, "payload": {"type": "answer"}})
            answer = json.load(connection.getresponse())
        assert answer["complete"] is True
        assert [entry["direction"] for entry in answer["entries"]] == ["client->device", "device->client"]
        # In this order only.
        reverse = control("POST", "/journal/expect", {"steps": steps[::-1]})
        assert (reverse["complete"], len(reverse["entries"])) == (False, 1)
        behind = control("POST", "/journal/expect", {"steps": steps[:1], "after": answer["entries"][0]["number"]})
        assert behind == {"entries": [], "complete": False}


def test_export_and_transcript() -> None:
    with controlled_server() as (server, control), peers_of(server) as peers:
        device, client = pair(peers)
        forward(client, {"type": "offer"})
        device.receive()
        answer = control.answer("GET", "/journal/export")
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in answer.body.splitlines()]
        assert lines == control("GET", "/journal")["entries"]
        only = control.answer("GET", "/journal/export?message_type=forward&after=2").body.splitlines()
        assert [json.loads(line)["message_type"] for line in only] == ["forward"]
        for format in ("text", "mermaid", "jsonl"):
            answer = control.answer("GET", f"/journal/transcript?format={format}&device=cvd-1&client=1")
            assert answer.headers["content-type"] == "text/plain; charset=utf-8"
            assert answer.body.decode() == server.journal.transcript(format, device="cvd-1", client=1)


def test_export_tells_of_entries_that_were_dropped() -> None:
    limits = Limits(journal_entries=3)
    with controlled_server(limits=limits) as (server, control), peers_of(server) as peers:
        pair(peers)
        forgotten = server.journal.forgotten
        assert forgotten > 0
        lines = [json.loads(line) for line in control.answer("GET", "/journal/export").body.splitlines()]
        assert lines[-1] == {"forgotten": forgotten}
        assert [line["number"] for line in lines[:-1]] == [forgotten + 1, forgotten + 2, forgotten + 3]
        assert b"forgotten" not in control.answer("GET", f"/journal/export?after={forgotten}").body


@pytest.mark.parametrize(
    "path", ["/journal", "/journal?limit=0", "/journal/export", "/journal/transcript", "/watch?messages=true"]
)
def test_server_without_journal_says_so(path: str) -> None:
    with controlled_server(journal=False) as (_, control):
        answer = control.answer("GET", path)
        assert (answer.status, answer.json["code"]) == (404, "journal_off")
        assert "--journal" in answer.json["error"]
        assert control.refusal("POST", "/journal/expect", {"steps": [{}]})[:2] == (404, "journal_off")


# Faults and clock ----------------------------------------------------------------------------------------------------

FAULTS: list[dict[str, Any]] = [
    {"fault": "drop", "to": "device", "type": "offer", "nth": 2, "times": 1, "probability": 0.5, "client": 1},
    {"fault": "duplicate", "device": "cvd-1"},
    {"fault": "truncate", "keep": 0.25},
    {"fault": "delay", "by": 0.5, "jitter": 0.125},
    {"fault": "reorder", "window": 3, "hold": 0.5},
    {"fault": "stall"},
    {"fault": "stall", "by": 1.5},
    {"fault": "bandwidth", "bytes_per_s": 1000.0},
    {"fault": "disconnect", "code": 4000},
    {"fault": "reset", "to": "client"},
]


def test_whole_number_may_have_a_fraction_of_zero() -> None:
    """As JSON Schema has it, and as some languages write it."""
    with controlled_server() as (_, control):
        id = control("POST", "/faults", {"fault": "drop", "nth": 2.0, "client": 1.0})["id"]
        fault = control("GET", f"/faults/{id}")["fault"]
        assert (fault["nth"], fault["client"]) == (2, 1)
        assert control("PUT", "/faults/seed", {"seed": 7.0}) == {}


def test_faults_are_listed_as_they_were_armed() -> None:
    with controlled_server() as (_, control):
        ids = [control("POST", "/faults", fault)["id"] for fault in FAULTS]
        listed = control("GET", "/faults")["faults"]
        assert [one["id"] for one in listed] == ids
        for one, fault in zip(listed, FAULTS, strict=True):
            assert {**one["fault"], **fault} == one["fault"]
            assert (one["origin"], one["matched"], one["hits"], one["overran"]) == ("api", 0, 0, 0)
            assert control("GET", f"/faults/{one['id']}") == one


def test_fault_strikes_until_it_is_disarmed() -> None:
    with controlled_server() as (server, control), peers_of(server) as peers:
        device, client = pair(peers)
        answer = control.answer("POST", "/faults", {"fault": "drop", "type": "offer", "device": "cvd-1"})
        assert (answer.status, answer.headers["location"]) == (201, f"/control/v1/faults/{answer.json['id']}")
        id = answer.json["id"]
        for kind in ("offer", "answer"):
            forward(client, {"type": kind})
        assert device.receive()["payload"]["type"] == "answer"
        assert control("GET", f"/faults/{id}")["hits"] == 1
        assert control("DELETE", f"/faults/{id}") == {"matched": 1, "hits": 1, "overran": 0}
        for method in ("GET", "DELETE"):
            assert control.refusal(method, f"/faults/{id}")[:2] == (404, "not_found")
        forward(client, {"type": "offer"})
        assert device.receive()["payload"]["type"] == "offer"


def test_reset_leaves_the_faults_of_the_process() -> None:
    with controlled_server() as (server, control), server.faults.drop():
        ids = [control("POST", "/faults", {"fault": "drop"})["id"] for _ in range(2)]
        assert [one["origin"] for one in control("GET", "/faults")["faults"]] == ["process", "api", "api"]
        server.clock.freeze()
        answer = control("POST", "/reset")
        assert sorted(one["id"] for one in answer["disarmed"]) == ids
        assert answer["resumed"] is True
        assert not server.clock.is_frozen
        assert [one["origin"] for one in control("GET", "/faults")["faults"]] == ["process"]
        assert control("POST", "/reset") == {"disarmed": [], "resumed": False}
        control("POST", "/faults", {"fault": "stall"})
        assert len(control("DELETE", "/faults")["disarmed"]) == 1


def test_seed_makes_choices_the_same() -> None:
    with controlled_server() as (server, control), peers_of(server) as peers:
        _, client = pair(peers)
        outcomes = []
        for seed in (7, 7, 2**64 - 1):
            assert control("PUT", "/faults/seed", {"seed": seed}) == {}
            id = control("POST", "/faults", {"fault": "drop", "probability": 0.5})["id"]
            after = server.journal.count
            for number in range(32):
                forward(client, {"type": "n", "number": number})
            wait_until(partial(has_matched, control, id, 32))
            control("DELETE", f"/faults/{id}")
            outcomes.append([entry["outcome"] for entry in control("GET", f"/journal?after={after}&type=n")["entries"]])
        assert outcomes[0] == outcomes[1] != outcomes[2]


def test_clock_is_frozen_and_moved() -> None:
    with controlled_server() as (server, control), peers_of(server) as peers:
        _, client = pair(peers)
        frozen = control("POST", "/clock/freeze")
        assert frozen["frozen"] is True
        assert control("GET", "/clock") == frozen
        id = control("POST", "/faults", {"fault": "delay", "by": 10})["id"]
        forward(client, {"type": "offer"})
        wait_until(lambda: control("GET", f"/faults/{id}")["hits"] == 1)
        moved = control("POST", "/clock/advance", {"seconds": 10.5})
        assert moved["now"] == pytest.approx(frozen["now"] + 10.5)
        server.journal.expect("offer")
        assert control("POST", "/clock/resume")["frozen"] is False


# ICE servers, reload, errors -----------------------------------------------------------------------------------------


def test_ice_servers_are_replaced() -> None:
    with (
        controlled_server(ice_servers=[{"urls": "stun:one"}]) as (server, control),
        peers_of(server) as peers,
    ):
        device = peers.device("cvd-1")
        before = control("GET", "/ice_servers")
        assert before["source"] == "fixed"
        assert before["ice_servers"][0]["urls"] in ("stun:one", ["stun:one"])
        assert control("PUT", "/ice_servers", {"ice_servers": [{"urls": "stun:two"}]}) == {}
        assert "stun:two" in json.dumps(device.receive())
        assert "stun:two" in json.dumps(control("GET", "/ice_servers"))
        assert control("PUT", "/ice_servers", {"ice_servers": before["ice_servers"]}) == {}
        assert control("GET", "/ice_servers") == before


def test_ice_servers_of_a_hook() -> None:
    with controlled_server(ice_servers=lambda ctx: []) as (server, control), peers_of(server) as peers:
        assert control("GET", "/ice_servers") == {"source": "hook", "ice_servers": None}
        control("PUT", "/ice_servers", {"ice_servers": [{"urls": "stun:two"}]})
        assert control("GET", "/ice_servers")["source"] == "fixed"
        peers.device("cvd-1")


def test_reload_of_a_server_without_files() -> None:
    with controlled_server() as (_, control):
        answer = control("POST", "/reload")
        assert answer == {"changed": [], "restart_required": [], "text": "nothing has changed"}


def test_errors_of_hooks_are_told() -> None:
    def fails(ctx: Any) -> None:
        raise ValueError("böse")

    with controlled_server(ice_servers=fails) as (server, control), peers_of(server) as peers:
        assert control("GET", "/errors") == {
            "hook_failures": 0,
            "hook_errors": [],
            "error_count": 0,
            "server_errors": [],
        }
        assert peers.pending_device("cvd-1").receive()["error"] == "Internal error"
        wait_until(lambda: server.hook_errors)
        answer = control("GET", "/errors")
        assert answer["hook_failures"] == 1
        [failure] = answer["hook_errors"]
        assert (failure["hook"], failure["error"]) == ("ice_servers", "ValueError: böse")
        assert control("GET", "/stats")["hook_failures"] == 1


# Watch ---------------------------------------------------------------------------------------------------------------


def lines_until(stream: Any, event: str) -> list[Any]:
    """The lines of a stream up to the first one of this event."""
    lines: list[Any] = []
    while not lines or lines[-1]["event"] != event:
        text = stream.readline()
        assert text, lines
        lines.append(json.loads(text))
    return lines


def test_watch_tells_what_comes() -> None:
    with controlled_server() as (server, control), peers_of(server) as peers:
        peers.device("cvd-0")
        with control.opened("GET", "/watch") as stream:
            assert stream.headers["content-type"] == "application/x-ndjson"
            assert lines_until(stream, "start") == [
                {"event": "start", "devices": 1, "clients": 0, "instance": control("GET", "")["instance"]}
            ]
            device, client = pair(peers)
            forward(client, {"type": "offer"})
            device.receive()
            client.socket.close()
            seen = lines_until(stream, "client_left")
            device.socket.close()
            seen += lines_until(stream, "device_left")
        of_peers = [line for line in seen if line["event"] != "message"]
        assert [line["event"] for line in of_peers] == [
            "device_registered",
            "client_connected",
            "client_left",
            "device_left",
        ]
        assert of_peers[0]["device"]["device_id"] == "cvd-1"
        assert (of_peers[1]["client"]["client_id"], of_peers[2]["client_id"], of_peers[3]["device_id"]) == (
            1,
            1,
            "cvd-1",
        )
        numbers = [line["entry"]["number"] for line in seen if line["event"] == "message"]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert any(line["event"] == "message" and line["entry"]["payload"] == '{"type": "offer"}' for line in seen)


def test_watch_of_one_device_as_server_sent_events() -> None:
    with controlled_server() as (server, control), peers_of(server) as peers:
        peers.device("cvd-0")
        path = "/watch?device=cvd-1&after=0"
        with control.opened("GET", path, headers={"Accept": "text/event-stream"}) as stream:
            assert stream.headers["content-type"] == "text/event-stream"
            peers.device("cvd-1")
            found: list[Any] = []
            while not found or found[-1]["event"] != "device_registered":
                line = stream.readline()
                assert line.startswith(b"data: ")
                assert stream.readline() == b"\n"
                found.append(json.loads(line.removeprefix(b"data: ")))
        assert {line["entry"]["device"] for line in found if line["event"] == "message"} <= {"cvd-1"}
        assert "cvd-0" not in json.dumps(found)


def test_watch_says_how_many_entries_it_has_lost() -> None:
    limits = Limits(journal_entries=3)
    with controlled_server(limits=limits) as (server, control), peers_of(server) as peers:
        pair(peers)
        with control.opened("GET", "/watch?after=0") as stream:
            lines = lines_until(stream, "message")
            assert lines[1] == {"event": "lost", "events": 0, "entries": server.journal.forgotten}
            assert lines[2]["entry"]["number"] == server.journal.forgotten + 1


def test_clients_that_wait_are_watched() -> None:
    with controlled_server(device_wait_timeout=None) as (server, control), peers_of(server) as peers:
        with control.opened("GET", "/watch?messages=false") as stream:
            lines_until(stream, "start")
            waiting = peers.pending_client("cvd-1")
            assert lines_until(stream, "client_waiting")[-1]["device_id"] == "cvd-1"
            peers.device("cvd-1")
            assert waiting.receive()["message_type"] == "config"
            events = [line["event"] for line in lines_until(stream, "client_connected")]
            assert sorted(events) == ["client_connected", "client_stopped_waiting", "device_registered"]


def test_servers_do_not_share_a_control_api() -> None:
    with controlled_server() as (first, control), SignalingServer() as second, peers_of(second) as peers:
        peers.device("cvd-1")
        assert control("GET", "/devices")["devices"] == []
        assert Control(control.url, first.control_token)("GET", "/stats")["devices"] == 0


def test_watch_writes_what_came_before_the_stop() -> None:
    with controlled_server() as (server, control), peers_of(server) as peers:
        with control.opened("GET", "/watch") as stream:
            lines_until(stream, "start")
            peers.device("cvd-1")
            server.stop()
            events = [line["event"] for line in lines_until(stream, "stopping")]
        assert "device_registered" in events
        assert events.count("message") >= 2
