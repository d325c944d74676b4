"""Log lines: the words of a peer are escaped and cut, refusals have a rate, and no line is forged."""

from __future__ import annotations

import json
import logging
import re
import sys
from typing import Any

import pytest

from cuttlefish_signaling import Limits, SignalingServer
from cuttlefish_signaling.cli.log import MAX_LINE, JsonFormatter, TextFormatter

from http_requests import request
from peers import peers_of, wait_until

LONG = "\u2028" * 5000
FORGED = "2026-01-01 00:00:00,000 INFO    forged"


@pytest.fixture(autouse=True)
def info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="cuttlefish_signaling")


def formatted(formatter: logging.Formatter, message: str, error: Exception | None = None) -> str:
    found: Any = None
    if error is not None:
        try:
            raise error
        except Exception:
            found = sys.exc_info()
    return formatter.format(logging.LogRecord("x", logging.ERROR, "x.py", 1, "%s", (message,), found))


def test_words_of_a_peer_are_cut(server: SignalingServer, caplog: pytest.LogCaptureFixture) -> None:
    """Each place that logs a text of a peer: a request, a message, an id."""
    assert request(server, "GET", "/", Host="x" * 9000).status == 403
    with peers_of(server) as peers:
        peers.device("y" * 256)
        client = peers.connect(server.client_url)
        client.send({"message_type": "connect", "device_id": LONG})
        wait_until(lambda: "closing client" in caplog.text)
        local = peers.connect(server.device_url, subprotocols=["webrtc-operator"])
        local.send({"message_type": "register", "device_id": "cvd-1"})
        local.receive()
        local.send({"message_type": LONG})
        wait_until(lambda: "no error is sent" in caplog.text)
    messages = [record.getMessage() for record in caplog.records]
    assert max(map(len, messages)) < 600
    for words in ("Host not allowed: xxx", "yyy", "Unknown message type"):
        (line, *_) = [message for message in messages if words in message]
        assert re.search(r"\(the first 12[0-8] of \d+ bytes\)", line), line


def test_refusals_have_a_rate_and_none_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    with SignalingServer(limits=Limits(refusals_logged_per_second=3)) as server:
        for _ in range(40):
            assert request(server, "GET", "/", Host="evil.example").status == 403
        # Without a further refusal, a line of its own tells about the rest.
        wait_until(lambda: told(caplog) == 40)
        assert server.stats().foreign == 40
    lines = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert len(lines) < 40 and lines[0].startswith("refused a request of 127.0.0.1:")


def told(caplog: pytest.LogCaptureFixture) -> int:
    """The refusals that the log tells of: one in each line, and those that were left out."""
    lines = [record.getMessage() for record in caplog.records]
    more = [int(number) for line in lines for number in re.findall(r"and (\d+) more", line)]
    return sum(line.startswith("refused a request") for line in lines) + sum(more)


def test_rate_is_told_by_a_server_that_stops(caplog: pytest.LogCaptureFixture) -> None:
    with SignalingServer(limits=Limits(refusals_logged_per_second=1)) as server:
        for _ in range(20):
            request(server, "GET", "/", Host="evil.example")
    assert told(caplog) == 20


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\r", "\u2028", "\x0b", "\x85"])
def test_no_text_begins_a_line(separator: str) -> None:
    """Neither a message nor the words of an exception: lines of a traceback are indented."""
    text = f"device said{separator}{FORGED}"
    for error in (None, ValueError(text), ValueError("other")):
        first, *rest = formatted(TextFormatter("%(message)s"), text, error).split("\n")
        assert first.startswith("device said\\") and FORGED in first
        assert bool(rest) == (error is not None)
        assert all(line.startswith("    ") and line.isprintable() for line in rest)


def test_lines_are_cut() -> None:
    error = ValueError("x" * 50_000)
    for line in formatted(TextFormatter("%(message)s"), "y" * 50_000, error).split("\n"):
        assert len(line) < MAX_LINE + 50
    record = json.loads(formatted(JsonFormatter(), "y" * 50_000, error))
    assert len(record["message"]) < MAX_LINE + 50
    assert max(map(len, record["traceback"].split("\n"))) < MAX_LINE + 50
