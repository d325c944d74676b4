"""`cuttlefish-signaling watch`: events as lines of JSON and of text, the end of the server, Ctrl-C, closed pipes."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_control import answer, scripted
from test_commands import flags_of, spawn, talk, words

from cuttlefish_signaling import SignalingServer
from cuttlefish_signaling.cli import main
from cuttlefish_signaling.cli.watch import described
from cuttlefish_signaling.testing import FakeDevice

from peers import PATIENCE


@pytest.fixture
def lab() -> Iterator[SignalingServer]:
    with SignalingServer(journal=True, control_api=["http://127.0.0.1:0"]) as server:
        yield server


@pytest.fixture
def flags(lab: SignalingServer, tmp_path: Path) -> list[str]:
    return flags_of(lab, tmp_path)


def test_watch_prints_json_lines_until_the_server_stops(lab: SignalingServer, flags: list[str]) -> None:
    watching = spawn("watch", *flags)
    assert watching.stdout is not None
    first = json.loads(watching.stdout.readline())
    assert (first["event"], first["devices"], first["clients"]) == ("start", 0, 0)
    talk(lab)
    events = []
    left = ["device_left", "offer"]  # Events and messages are told side by side.
    while left:
        events.append(json.loads(watching.stdout.readline()))
        text = str(events[-1])
        left = [one for one in left if f"'{one}'" not in text and f'"{one}"' not in text]
    lab.stop()
    output, log = watching.communicate(timeout=PATIENCE)
    events += map(json.loads, output.splitlines())
    kinds = [event["event"] for event in events]
    assert kinds[-1] == "stopping"
    assert set(kinds) >= {"device_registered", "client_connected", "client_left", "device_left"}
    forwards = [one["entry"] for one in events if one["event"] == "message" and one["entry"]["payload"] is not None]
    assert [json.loads(entry["payload"])["type"] for entry in forwards] == ["request-offer", "offer"]
    assert (watching.returncode, log) == (0, "")


def test_watch_on_a_terminal(lab: SignalingServer, flags: list[str]) -> None:
    main_end, terminal = pty.openpty()
    watching = spawn("watch", *flags, stdout=terminal)
    os.close(terminal)
    with os.fdopen(main_end, encoding="utf-8", newline="") as lines:
        first = lines.readline()
        assert first.rstrip() == f"watching {lab.control_url}: 0 devices, 0 clients"
        talk(lab)
        text = ""
        while not all(one in text for one in ("device cvd-1 left", " offer", "[left]", "client_disconnected")):
            text += lines.readline()
        lab.stop()
        try:
            while line := lines.readline():
                text += line
        except OSError:
            pass  # The terminal has no writer any more.
    assert watching.wait(PATIENCE) == 0
    watching.communicate()
    for pattern in (
        r"^\d\d:\d\d:\d\d\.\d{3}  device cvd-1 registered from 127\.0\.0\.1\s*$",
        r"^\S+  client cvd-1#1 connected from 127\.0\.0\.1\s*$",
        r"^\S+  client->device cvd-1#1 request-offer\s*$",
        r"^\S+  client cvd-1#1 left\s*$",
        r"^\S+  device cvd-1 left\s*$",
        rf"^{re.escape(str(flags[0].partition('=')[2]))} stops\s*$",
    ):
        assert re.search(pattern, text, re.MULTILINE), (pattern, text)


def test_ctrl_c_ends_watch(flags: list[str]) -> None:
    watching = spawn("watch", *flags)
    assert watching.stdout is not None
    assert json.loads(watching.stdout.readline())["event"] == "start"
    watching.send_signal(signal.SIGINT)
    _, log = watching.communicate(timeout=PATIENCE)
    assert (watching.returncode, log) == (130, "")


def test_closed_pipe_ends_watch(lab: SignalingServer, flags: list[str]) -> None:
    watching = spawn("watch", *flags)
    assert watching.stdout is not None and watching.stderr is not None
    watching.stdout.readline()
    watching.stdout.close()
    with FakeDevice(lab):
        assert watching.wait(PATIENCE) == 1
    assert watching.stderr.read() == "cuttlefish-signaling: error: cannot write to stdout: Broken pipe\n"
    watching.stderr.close()


def test_closed_pipe_ends_watch_of_a_quiet_server() -> None:
    alive = b'12\r\n{"event":"alive"}\n\r\n0\r\n\r\n'
    reader, writer = os.pipe()
    os.close(reader)
    with scripted() as script:
        script.answers["GET /watch"] = lambda: (200, {"Transfer-Encoding": "chunked"}, alive)
        watching = spawn("watch", f"--control-api={script.url}", stdout=writer)
        os.close(writer)
        _, log = watching.communicate(timeout=PATIENCE)
    assert (watching.returncode, log) == (1, "cuttlefish-signaling: error: cannot write to stdout: Broken pipe\n")


def test_unexpected_answer_of_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    """An event of a later version is left out on a terminal, and printed as JSON."""
    assert described({"event": "of-tomorrow", "at": 1.0}, "x") is None
    assert (
        described({"event": "lost", "events": 2, "entries": 3}, "x") == "too slow: 2 events and 3 messages are missing"
    )
    with scripted() as script:
        body = b'{"event":"of-tomorrow"}\n{"event":"stopping"}\n'
        script.answers["GET /watch"] = lambda: (200, {}, body)
        assert words(capsys, "watch", f"--control-api={script.url}") == body.decode()
        script.answers["GET /watch"] = lambda: (200, {}, b'{"event":"alive"}\n')
        assert main(["watch", f"--control-api={script.url}"]) == 1
        assert "the server has ended the stream" in capsys.readouterr().err
        script.answers["GET /watch"] = lambda: answer(401, {"code": "token_missing"})
        words(capsys, "watch", f"--control-api={script.url}", status=1)


def test_events_have_no_control_characters() -> None:
    device = {"device_id": "a\x1b[2J", "group": "g\n", "address": "127.0.0.1"}
    entry = {
        "number": 1,
        "at": 1.0,
        "closed": False,
        "direction": "client->device",
        "device": "a\x1b[2J",
        "client": 1,
        "connection": 0,
        "message_type": "forward",
        "text": "{}",
        "payload": '{"type": "\\u001b[2J"}',
        "outcome": "gone",
        "faults": ["delay"],
        "rewritten": 0,
    }
    events: list[dict[str, Any]] = [
        {"event": "device_registered", "at": 1.0, "device": device},
        {"event": "client_connected", "at": 1.0, "client": {**device, "client_id": 1}},
        {"event": "client_left", "at": 1.0, "device_id": "a\x1b[2J", "client_id": 1},
        {"event": "device_left", "at": 1.0, "device_id": "a\x1b[2J"},
        {"event": "node", "at": 1.0, "node": {"name": "n\x1b[2J", "state": "alive"}},
        {"event": "node_left", "at": 1.0, "name": "n\x1b[2J"},
        {"event": "message", "entry": entry},
    ]
    lines = [described(event, "x") for event in events]
    assert [line for line in lines if line is None or not line.isprintable()] == []
    on_node = described({**events[0], "device": {**device, "node": "b\n"}}, "x")
    assert on_node is not None and on_node.endswith(r"device a\x1b[2J registered on node b\n from 127.0.0.1, group g\n")
    assert str(lines[-1]).endswith(r"  client->device a\x1b[2J#1 \x1b[2J  ! delay, receiver gone")
