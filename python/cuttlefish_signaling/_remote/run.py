"""One run of a server of another process."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, TypeVar
from urllib.parse import quote

from .._checks import check_seconds, check_text
from .._elsewhere import AGAIN
from .._loops import running_loop
from .._stats import Stats
from .._threads import in_thread
from .._view import View
from ..errors import NotRunningError
from .address import Address
from .answers import check_hello
from .connection import Connection
from .native import RemoteNative, found_or_none

T = TypeVar("T")

ASYNC_SLICE = 0.2
"""Seconds of one wait of a coroutine: the longest delay of a cancellation."""

_STATS = {field.name for field in fields(Stats)}

_NOW = ("connections", "devices", "clients", "waiting")
"""The counters that tell how many there are now. The others only grow."""


class RemoteRun(View):
    """A run of a server of another process, from its start to its end: another start is another run."""

    native: RemoteNative
    slice = 10.0  # A signal ends the wait for an answer at once.

    def __init__(self, address: Address, token: str | None, ssl_context: ssl.SSLContext | None, timeout: float) -> None:
        self.connection = Connection(address, token, ssl_context, timeout)
        try:
            self.facts: dict[str, Any] = check_hello(address, 200, self.connection.request("GET", ""))
        except BaseException:
            self.connection.close()
            raise
        self.native = RemoteNative(self.connection, has_journal=bool(self.facts["journal"]))
        if self.facts["cluster"]:
            # Clients of devices of other nodes are no changes of this server.
            self.slice = AGAIN
        self._stats: dict[str, int] = {}
        self._failures = (0, 0)

    def begin(self) -> None:
        """Counts from now on. Entries of the journal, counters and errors of before are those of other tests."""
        self.native.journal.begin = self.native.journal.count
        self._stats = {name: count for name, count in self._counters().items() if name not in _NOW}
        answer = self._errors()
        self._failures = (answer["hook_failures"], answer["error_count"])

    # Views ------------------------------------------------------------------------------------------------------------

    def stats(self) -> Stats:
        """Returns the counters, all of one moment."""
        return Stats(**{name: count - self._stats.get(name, 0) for name, count in self._counters().items()})

    def _counters(self) -> dict[str, int]:
        answer = self.connection.request("GET", "/stats")
        counts = {**answer.pop("incidents"), **answer}
        # A server of another version may count more.
        return {name: count for name, count in counts.items() if name in _STATS}

    def errors(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Returns the last of the failed hooks and of the logged errors, oldest first."""
        answer = self._errors()
        hooks, errors = answer["hook_errors"], answer["server_errors"]
        new_hooks, new_errors = answer["hook_failures"] - self._failures[0], answer["error_count"] - self._failures[1]
        return hooks[max(0, len(hooks) - new_hooks) :], errors[max(0, len(errors) - new_errors) :]

    def failure_counts(self) -> tuple[int, int]:
        """Returns the number of failed hooks and of logged errors so far."""
        answer = self._errors()
        return answer["hook_failures"] - self._failures[0], answer["error_count"] - self._failures[1]

    def _errors(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.connection.request("GET", "/errors")
        return answer

    def disconnect(self, device_id: str, client_id: int | None = None) -> bool:
        """Closes the connection of a device, or of one of its clients."""
        check_text("device_id", device_id)
        if not device_id:
            return False
        path = f"/devices/{quote(device_id, '')}" + ("" if client_id is None else f"/clients/{client_id}")
        return found_or_none(self.connection, "DELETE", path) is not None

    def lines(self, path: str, query: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields the lines of an answer as they come, each with its JSON object."""
        return self.connection.lines(path, query)

    def arm(self, effect: str, numbers: tuple[float | None, float | None], filters: dict[str, Any], away: bool) -> int:
        """Arms a fault, and returns its id. `away`: its device may be on another node of the cluster."""
        return self.native.faults.arm(effect, *numbers, **filters, absent_ok=away)

    # Waiting ----------------------------------------------------------------------------------------------------------

    async def until_async(
        self, look: Callable[[], T | None], timeout: float | None, failure: Callable[[], Exception]
    ) -> T:
        """`until()` for coroutines, on a thread of its own: the loop runs on while the server answers."""
        running_loop("this wait", "call the variant without _async in trio.to_thread.run_sync()")
        check_seconds("timeout", timeout, optional=True)
        cancelled = threading.Event()
        return await in_thread(lambda: self._until(look, timeout, failure, cancelled), cancelled.set)

    def _until(
        self,
        look: Callable[[], T | None],
        timeout: float | None,
        failure: Callable[[], Exception],
        cancelled: threading.Event,
    ) -> T:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            seen = self.native.changes()
            if (found := look()) is not None:
                return found
            now = seen
            looks_again = bool(self.facts["cluster"])
            while now == seen:
                left = ASYNC_SLICE if deadline is None else deadline - time.monotonic()
                if cancelled.is_set():
                    raise NotRunningError("the wait was cancelled")  # The coroutine raises the cancellation.
                if left <= 0:
                    raise failure()
                now = self.native.wait_change(seen, min(left, ASYNC_SLICE))
                if looks_again:
                    break

    # The end of a test ------------------------------------------------------------------------------------------------

    def release(self) -> None:
        """Disarms the faults that were armed here, and lets the clock run on if it was frozen here."""
        self.native.faults.release()
        self.native.clock.release()

    def close(self) -> None:
        """Closes the idle connections."""
        self.connection.close()
