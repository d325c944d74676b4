"""Log events: their fields, the lines of JSON, the access log; and the table, compared with each place that logs."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from cuttlefish_signaling import Limits, Refused, SignalingServer, StaticTokens, __version__
from cuttlefish_signaling._log_events import EVENTS, FIELDS, LEVELS
from cuttlefish_signaling.cli.log import JsonFormatter

from http_requests import open_response, request
from peers import assert_relays, peers_of, wait_until
from polled import polled_client
from test_cli import register, serve

ROOT = Path(__file__).parents[2]
RUST = ROOT / "src"
PYTHON = ROOT / "python" / "cuttlefish_signaling"


class Keeper(logging.Handler):
    """A handler of a user."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(autouse=True)
def records(caplog: pytest.LogCaptureFixture) -> Iterator[list[logging.LogRecord]]:
    caplog.set_level("DEBUG", logger="cuttlefish_signaling")
    keeper, logger = Keeper(), logging.getLogger("cuttlefish_signaling")
    logger.addHandler(keeper)
    yield keeper.records
    logger.removeHandler(keeper)
    # Whatever a test did, each record is one of the table, with its level and its fields.
    for record in keeper.records:
        assert_is_known(record)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    return {name: record.__dict__[name] for name in FIELDS if name in record.__dict__}


def assert_is_known(record: logging.LogRecord) -> None:
    fields = fields_of(record)
    assert "event" in fields, (record.name, record.getMessage())
    name = fields.pop("event")
    (event,) = [event for event in EVENTS if event.name == name]
    assert record.levelname.lower() == event.level, event.name
    assert set(fields) <= set(event.fields.split()), event.name
    assert all(type(value) in (str, int, float) for value in fields.values())


def events(records: list[logging.LogRecord], name: str) -> list[dict[str, Any]]:
    """The fields of the records of an event."""
    return [fields_of(record) for record in list(records) if getattr(record, "event", None) == name]


def one(records: list[logging.LogRecord], name: str) -> dict[str, Any]:
    """The fields of the one record of an event, once it is there."""
    wait_until(lambda: events(records, name))
    (fields,) = events(records, name)
    return fields


# The table ------------------------------------------------------------------------------------------------------------


def test_table_has_the_events_of_the_code_and_no_others() -> None:
    named: set[str] = set()
    for source in RUST.rglob("*.rs"):
        text = source.read_text()
        named |= set(re.findall(r'\bevent = "(\w+)"', text)) | set(
            re.findall(r'(?:RefusalRecord::new|refused)\(\s*"(\w+)"', text)
        )
    for source in PYTHON.rglob("*.py"):
        named |= set(re.findall(r'\bevent="(\w+)"', source.read_text()))
    assert named == set(LEVELS)
    assert len(EVENTS) == len(LEVELS), "an event is there twice"
    assert {field for event in EVENTS for field in event.fields.split()} == set(FIELDS) - {"event"}
    assert not set(FIELDS) & set(logging.makeLogRecord({}).__dict__), "logging has an attribute of this name"


def test_each_call_names_its_event() -> None:
    calls = 0
    for source in RUST.rglob("*.rs"):
        text = source.read_text()
        for found in re.finditer(r"tracing::(debug|info|warn|error)!\(", text):
            calls += 1
            body = text[found.end() : found.end() + 400]
            begun = re.match(r'\s*(?:event = "(\w+)"|event,)', body)
            assert begun, f"{source}: {body[:80]}"
            if begun[1]:
                assert LEVELS[begun[1]] == found[1].replace("warn", "warning"), begun[1]
    assert calls > 25
    for source in PYTHON.rglob("*.py"):
        text = source.read_text()
        assert not re.search(r"\blogger\.(debug|info|warning|error|exception)\(", text), source
        for found in re.finditer(r"(?<![\w.])(?<!def )log\(", text):
            assert "event=" in text[found.end() : found.end() + 300], f"{source}: {text[found.start() :][:80]}"


# Fields ---------------------------------------------------------------------------------------------------------------


def test_peers_that_come_and_go_have_fields(records: list[logging.LogRecord]) -> None:
    with SignalingServer(device_wait_timeout=None) as server, peers_of(server) as peers:
        waiting = peers.pending_client("late")
        wait_until(lambda: events(records, "client_waiting"))
        device, client = peers.device("cvd-1"), peers.client("cvd-1")
        assert_relays(client, device)
        client.close()
        wait_until(lambda: events(records, "client_left"))
        device.close()
        wait_until(lambda: events(records, "device_left"))
        waiting.close()
    (device_left,) = events(records, "device_left")
    assert re.fullmatch(r"127\.0\.0\.1:\d+", device_left["peer"])
    assert device_left["device_id"] == "cvd-1" and 0 <= device_left["duration"] < 600
    (client_left,) = events(records, "client_left")
    assert (client_left["device_id"], client_left["client_id"]) == ("cvd-1", 1)
    (connected,) = events(records, "client_connected")
    assert connected["peer"] == client_left["peer"] != device_left["peer"]
    assert one(records, "client_waiting")["device_id"] == "late"


def test_refusals_have_code_and_reason(records: list[logging.LogRecord]) -> None:
    def authorize(ctx: Any) -> None:
        if ctx.query.get("who") == "mallory":
            raise Refused("not you", status=401)

    with SignalingServer(authorize=authorize) as server, peers_of(server) as peers:
        assert request(server, "GET", "/devices?who=mallory").status == 401
        assert request(server, "GET", "/", Host="evil.example").status == 403
        peers.connect(server.client_url).send({"message_type": "forward"})
        unauthorized = one(records, "request_unauthorized")
        foreign, closed = one(records, "request_foreign"), one(records, "peer_closed")
    assert (unauthorized["code"], unauthorized["role"]) == (401, "http") and "not you" in unauthorized["reason"]
    assert foreign["code"] == 403 and "evil.example" in foreign["reason"]
    assert closed["role"] == "client" and 1000 < closed["code"] < 1020 and closed["reason"]


def test_left_out_refusals_are_a_number(records: list[logging.LogRecord]) -> None:
    with SignalingServer(limits=Limits(refusals_logged_per_second=1)) as server:
        for _ in range(9):
            request(server, "GET", "/", Host="evil.example")
    told = events(records, "request_foreign") + events(records, "refusals_left_out")
    assert len(events(records, "request_foreign")) + sum(fields.get("left_out", 0) for fields in told) == 9


def test_long_words_of_a_peer_are_cut_in_fields(records: list[logging.LogRecord]) -> None:
    with SignalingServer() as server, peers_of(server) as peers:
        client = peers.connect(server.client_url)
        client.send({"message_type": "\u2028" * 5000})
        client.receive()
        request(server, "GET", "/", Host="x" * 9000)
        one(records, "request_foreign")
    texts = [value for record in records for value in fields_of(record).values() if isinstance(value, str)]
    assert 1000 < max(len(text.encode()) for text in texts) <= 1024 + 3


def test_failed_hook_has_fields(records: list[logging.LogRecord]) -> None:
    def authorize(_: Any) -> None:
        raise ValueError("no")

    with SignalingServer(authorize=authorize) as server:
        request(server, "GET", "/devices")
        fields = one(records, "hook_failed")
    assert fields["hook"] == "authorize" and fields["reason"] == "no" and fields["peer"].startswith("127.0.0.1:")
    assert "device_id" not in fields


def test_handler_of_the_user_sees_fields_of_wanted_levels_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", logger="cuttlefish_signaling")
    with SignalingServer() as server, peers_of(server) as peers:
        peers.device("cvd-1")
        caplog.set_level("INFO", logger="cuttlefish_signaling")
        peers.device("cvd-2")
        wait_until(lambda: events(caplog.records, "device_registered"))
    assert "cvd-2" in [fields["device_id"] for fields in events(caplog.records, "device_registered")]


# JSON -----------------------------------------------------------------------------------------------------------------


def lines_of(*flags: str) -> tuple[str, list[dict[str, Any]]]:
    """Runs `serve`, lets a device come and go. Returns the URL of devices and the lines of JSON."""
    with serve("--no-tls", "--log-format", "json", *flags) as served:
        register(served.devices)
        status, log = served.ends()
    assert status == 0
    return served.devices, [json.loads(line) for line in log.splitlines()]


def test_lines_of_json_have_time_and_fields() -> None:
    url, lines = lines_of("--metrics", "http://127.0.0.1:0")
    for line in lines:
        assert list(line)[:4] == ["time", "level", "message", "event"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert line["level"] == LEVELS[line["event"]]
    first, second, *_ = lines
    assert (first["event"], first["version"]) == ("starting", __version__)
    assert first["listeners"].split() == ["http://127.0.0.1:0", "http://127.0.0.1:0"]
    assert re.fullmatch("[0-9a-f]{16}", first["settings_digest"])
    assert second["event"] == "listening" and url.split("/")[2] in second["listeners"]
    (registered,) = [line for line in lines if line["event"] == "device_registered"]
    assert registered["device_id"] == "cvd-1" and registered["message"].startswith('device "cvd-1" registered')
    assert lines[-1]["event"] in ("stopping", "device_left")


def test_digest_tells_settings_apart_and_has_no_secret() -> None:
    def digest(*flags: str) -> str:
        return str(lines_of(*flags)[1][0]["settings_digest"])

    turn = ("--turn", "turn:turn.lab:3478", "--turn-secret")
    assert digest() == digest() != digest("--max-devices", "7")
    assert digest(*turn, "one") == digest(*turn, "two") != digest()


def test_time_is_utc() -> None:
    record = logging.LogRecord("x", logging.INFO, "x.py", 1, "said", (), None)
    record.created = 0.25
    assert json.loads(JsonFormatter().format(record))["time"] == "1970-01-01T00:00:00.250Z"


# The access log -------------------------------------------------------------------------------------------------------


def test_access_log_has_each_response_and_no_secret(records: list[logging.LogRecord]) -> None:
    with SignalingServer(access_log=True, authorize=StaticTokens(["s3cret"]), dashboard=True) as server:
        answer = request(server, "GET", "/dashboard/main.js?token=s3cret", User_Agent='curl"/8')
        request(server, "HEAD", "/devices?token=s3cret")
        request(server, "POST", "/nowhere/%41?token=s3cret")
        wait_until(lambda: len(events(records, "http_request")) == 3)
    page, head, post = events(records, "http_request")
    assert (page["method"], page["path"], page["status"]) == ("GET", "/dashboard/main.js", 200)
    assert page["bytes"] == len(answer.body) > 100 and 0 <= page["duration"] < 600
    assert page["peer"].startswith("127.0.0.1:") and page["user_agent"] == 'curl"/8'
    assert (head["method"], head["bytes"], "user_agent" in head) == ("HEAD", 0, False)
    assert (post["method"], post["path"]) == ("POST", "/nowhere/A")
    shown = [record.getMessage() for record in records] + [str(fields_of(record)) for record in records]
    assert not [text for text in shown if "s3cret" in text]
    (line,) = [text for text in shown if text.startswith('GET "/dashboard/main.js" 200')]
    assert r'"curl\"/8"' in line


def test_access_log_hides_the_ids_of_polled_connections(records: list[logging.LogRecord]) -> None:
    with polled_client(access_log=True) as (server, _, client):
        connection = client.id
        request(server, "HEAD", f"{client.path}/messages?start=0")
        request(server, "GET", f"{client.path}/other")
        wait_until(lambda: len(events(records, "http_request")) >= 4)
    paths = [fields["path"] for fields in events(records, "http_request")]
    assert "/polled_connections/{id}/messages" in paths
    assert not [
        record for record in records if connection in record.getMessage() or connection in str(fields_of(record))
    ]


def test_access_log_counts_bytes_that_the_client_took(records: list[logging.LogRecord]) -> None:
    """A stream that the client leaves is logged at its end."""
    with SignalingServer(access_log=True, dashboard=True) as server:
        with open_response(server, "GET", "/dashboard/events") as stream:
            stream.read(1)
            assert not events(records, "http_request")
        with peers_of(server) as peers:
            # The server notices that the client has left when it writes the next events.
            numbers = count()

            def is_logged() -> bool:
                peers.device(f"cvd-{next(numbers)}").close()
                return "/dashboard/events" in [fields["path"] for fields in events(records, "http_request")]

            wait_until(is_logged)
        (fields,) = [fields for fields in events(records, "http_request") if fields["path"] == "/dashboard/events"]
    assert fields["status"] == 200 and fields["bytes"] > 0


def test_access_log_has_a_rate_and_tells_what_it_leaves_out(records: list[logging.LogRecord]) -> None:
    with SignalingServer(access_log=True, limits=Limits(requests_logged_per_second=2)) as server:
        for _ in range(20):
            request(server, "GET", "/healthz")
    told = events(records, "http_request") + events(records, "requests_left_out")
    logged = len(events(records, "http_request"))
    assert logged < 20 and logged + sum(fields.get("left_out", 0) for fields in told) == 20


def test_there_is_no_access_log_by_default(records: list[logging.LogRecord]) -> None:
    with SignalingServer() as server:
        request(server, "GET", "/healthz")
    assert not events(records, "http_request")
