"""The event thread: log records and changes reach the program, whatever its logging does."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cuttlefish_signaling import SignalingServer, _native
from cuttlefish_signaling._events import EventThread
from cuttlefish_signaling._log import lowest_level
from cuttlefish_signaling._pause import wait_event

from peers import PATIENCE, peers_of, wait_until

LOGGER = logging.getLogger("cuttlefish_signaling")


class Raises(logging.Handler):
    """A filter and a handler that raise for each record."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def filter(self, record: logging.LogRecord) -> bool:
        raise self.error

    def emit(self, record: logging.LogRecord) -> None:
        raise self.error


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The exceptions that are reported as those that end a thread."""
    caught: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: caught.append(arguments.exc_value))
    level = LOGGER.level
    LOGGER.setLevel(logging.INFO)
    yield caught
    LOGGER.setLevel(level)
    LOGGER.filters.clear()
    for handler in [handler for handler in LOGGER.handlers if isinstance(handler, Raises)]:
        LOGGER.removeHandler(handler)


@pytest.mark.parametrize("error", [KeyError("mine"), SystemExit(3)], ids=["exception", "SystemExit"])
@pytest.mark.parametrize("place", ["filter", "handler"])
def test_raising_log_filter_or_handler_does_not_end_event_thread(
    place: str, error: BaseException, reported: list[Any]
) -> None:
    async def main() -> None:
        with SignalingServer() as server, peers_of(server) as peers:
            await asyncio.to_thread(peers.device, "first")
            await asyncio.to_thread(wait_until, lambda: reported)
            waiting = asyncio.create_task(server.wait_for_device_async("second", timeout=None))
            await asyncio.sleep(0)
            await asyncio.to_thread(peers.device, "second")
            assert (await asyncio.wait_for(waiting, PATIENCE)).device_id == "second"

    LOGGER.addFilter(Raises(error)) if place == "filter" else LOGGER.addHandler(Raises(error))
    asyncio.run(main())
    assert set(reported) == {error}


def test_raising_log_filter_does_not_end_hook_threads(reported: list[Any]) -> None:
    LOGGER.addFilter(Raises(KeyError("mine")))
    with SignalingServer(ice_servers=lambda ctx: 1 / 0) as server, peers_of(server) as peers:
        for number in range(5):
            assert peers.pending_device(f"cvd-{number}").receive() == {"error": "Internal error"}
        assert server.stats().hook_failures == 5


def test_each_record_is_filtered_by_the_level_of_its_moment(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    handled: list[str] = []
    handle = EventThread._handle

    def noted(thread: EventThread, records: _native.LogRecords, *rest: Any) -> None:
        handle(thread, records, *rest)
        handled.extend(message for _level, message, _fields in records.at_least(0))

    monkeypatch.setattr(EventThread, "_handle", noted)
    with SignalingServer() as server, peers_of(server) as peers:
        with caplog.at_level(logging.WARNING, "cuttlefish_signaling"):
            peers.device("unseen")
            wait_until(lambda: any('"unseen"' in message for message in handled))
        with caplog.at_level(logging.INFO, "cuttlefish_signaling"):
            peers.device("noticed")
            wait_until(lambda: "noticed" in caplog.text)
    assert "unseen" not in caplog.text


def test_records_that_are_filtered_out_seldom_wake_python(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    handle = EventThread._handle

    def counted(thread: EventThread, records: _native.LogRecords, *rest: Any) -> None:
        batches.append(len(records.at_least(0)))
        handle(thread, records, *rest)

    monkeypatch.setattr(EventThread, "_handle", counted)
    begin = time.monotonic()
    with caplog.at_level(logging.WARNING, "cuttlefish_signaling"):
        with SignalingServer() as server, peers_of(server) as peers:
            for number in range(40):
                peers.device(f"cvd-{number}").close()
    assert sum(batches) >= 80, "each device is logged when it comes and when it leaves"
    assert len(batches) <= 2 + (time.monotonic() - begin) / 0.25


def test_lowest_level_is_that_of_the_logger(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    for level in (logging.DEBUG, logging.WARNING, logging.ERROR):
        with caplog.at_level(level, "cuttlefish_signaling"):
            assert lowest_level() == level
    with caplog.at_level(logging.DEBUG, "cuttlefish_signaling"):
        monkeypatch.setattr(logging.root.manager, "disable", logging.INFO)
        assert lowest_level() == logging.INFO + 1
        monkeypatch.undo()
    with caplog.at_level(1_000, "cuttlefish_signaling"):
        assert lowest_level() == logging.CRITICAL


@pytest.mark.parametrize("turns", range(6))
def test_cancel_in_turn_of_event_is_not_lost(turns: int) -> None:
    """`asyncio.wait_for` of Python 3.10 and 3.11 loses it: its coroutine goes on."""

    async def main() -> None:
        event = asyncio.Event()
        waiting = asyncio.create_task(wait_event(event, PATIENCE))
        await asyncio.sleep(0)
        event.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        was_running = waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled() == was_running

    asyncio.run(main())


def test_records_of_the_stop_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "cuttlefish_signaling"):
        with SignalingServer() as server, peers_of(server) as peers:
            device = peers.device()
            server.stop()
            assert device.wait_closed() == 1001
            assert 'device "cvd-1" left' in caplog.text


def test_event_thread_has_a_name_and_leaves_no_trace() -> None:
    before = set(threading.enumerate())
    with SignalingServer() as server, peers_of(server) as peers:
        peers.device()
        wait_until(lambda: "cuttlefish-events" in {thread.name for thread in threading.enumerate()})
    assert {thread for thread in threading.enumerate() if "cuttlefish" in thread.name} <= before
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("Dummy")]


def test_records_that_are_filtered_out_start_no_event_thread_in_a_short_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are filtered at the stop. On a busy machine, a run may last for the 250 ms until they are delivered."""
    started: list[str] = []
    start = threading.Thread.start

    def record(thread: threading.Thread) -> None:
        started.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", record)
    monkeypatch.setattr(LOGGER, "level", logging.WARNING)
    rounds = 20
    for _ in range(rounds):
        with SignalingServer() as server, peers_of(server) as peers:
            peers.device()
    assert started.count("cuttlefish-events") < rounds / 2


def test_handler_may_stop_server() -> None:
    class Stops(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "registered" in record.getMessage():
                server.stop()

    handler, level = Stops(), LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        server = SignalingServer().start()
        with peers_of(server) as peers:
            assert peers.device().wait_closed() == 1001
        wait_until(lambda: not server.is_running)
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
