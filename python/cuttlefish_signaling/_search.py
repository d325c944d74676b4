"""`Search`: waits until the journal has the messages that a test expects, and describes a failure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import _transcript
from ._checks import check_seconds
from ._entry import Entry, printable
from ._loops import stood_still
from ._query import Query
from .errors import ExpectationError, FilterError, NodeUnreachableError, NotRunningError

if TYPE_CHECKING:
    from ._view import View

MAX_MISSES = 3


class Search:
    """A search for messages, one query after the other, while the journal grows."""

    def __init__(self, run: View, steps: Sequence[Query], after: int) -> None:
        self._run = run
        self._native = run.native.journal
        self._steps = steps
        self._begin = self._seen = after
        self._found: list[Entry] = []

    def wait(self, timeout: float | None) -> list[Entry]:
        """Waits for one entry for each query, in order, and returns them. Raises ExpectationError."""
        check_seconds("timeout", timeout, optional=True)
        try:
            return self._run.until(self._look, timeout, lambda: self._failure(f"within {timeout:g} s", is_sync=True))
        except NotRunningError:
            return self._after_the_end()

    async def wait_async(self, timeout: float | None) -> list[Entry]:
        """`wait()` for coroutines."""
        check_seconds("timeout", timeout, optional=True)
        try:
            return await self._run.until_async(self._look, timeout, lambda: self._failure(f"within {timeout:g} s"))
        except NotRunningError:
            return self._after_the_end()

    def find_none(self, within: float) -> None:
        """Waits for `within` seconds. Raises ExpectationError as soon as an entry matches."""
        check_seconds("within", within)
        try:
            found = self._run.until(self._look, within, TimeoutError)
        except (NotRunningError, TimeoutError):
            found = self._look() or []
        self._unwanted(found)
        check_recorded_here(self._run, self._steps[0])

    async def find_none_async(self, within: float) -> None:
        """`find_none()` for coroutines."""
        check_seconds("within", within)
        try:
            found = await self._run.until_async(self._look, within, TimeoutError)
        except (NotRunningError, TimeoutError):
            found = self._look() or []
        self._unwanted(found)
        check_recorded_here(self._run, self._steps[0])

    def _look(self) -> list[Entry] | None:
        """Looks at the entries that are new. Returns all that are wanted, or None if one is missing."""
        while len(self._found) < len(self._steps):
            step = self._steps[len(self._found)]
            # Read before the search: an entry that is recorded meanwhile is looked at the next time.
            count = self._native.count
            found = next(iter(step.find(self._native, self._seen)), None)
            if found is None:
                # An entry that does not match now cannot match later. `where` is the exception: it may depend on the
                # outcome, which changes.
                if step.where is None:
                    self._seen = max(self._seen, count)
                return None
            self._found.append(found)
            self._seen = found.number
        return self._found

    def _after_the_end(self) -> list[Entry]:
        """The last look, at the journal of a server that has stopped."""
        found = self._look()
        if found is None:
            raise self._failure("and the server has stopped: nothing more can come") from None
        return found

    def _unwanted(self, found: list[Entry]) -> None:
        if found:
            raise self._error(
                f"expected no message with {self._steps[0]}, but #{found[0].number} came:\n  {found[0]}\n"
                f"  payload: {_short(found[0])}"
            )

    def _failure(self, when: str, *, is_sync: bool = False) -> ExpectationError:
        """An error that names the missing message, the nearest misses, and the transcript."""
        hint = stood_still("expect_async() or expect_sequence_async()") if is_sync else ""
        missing = self._steps[len(self._found)]
        if len(self._steps) == 1:
            lines = [f"expected a message with {missing}, {when}; it did not come{hint}"]
        else:
            which = f"number {len(self._found) + 1}, with {missing}"
            lines = [f"expected {len(self._steps)} messages in order, {when}; {which}, did not come{hint}"]
            lines += [f"  found: #{entry.number} {entry}" for entry in self._found]
        if (node := recorded_on(self._run, missing)) is not None:
            lines.append(_elsewhere(missing, node))
        lines += self._nearest(missing) + self._ends()
        if forgotten := self._native.forgotten:
            lines.append(f"the journal has forgotten its first {forgotten} entries (Limits.journal_entries)")
        return self._error("\n".join(lines))

    def _nearest(self, missing: Query) -> list[str]:
        """The entries that differ least from the missing one, each with its differences."""
        begin = self._found[-1].number if self._found else self._begin
        misses = []
        for entry in Query().find(self._native, begin):
            reasons = missing.misses(entry)
            # An entry without a payload does not help a reader who looks for a payload type.
            alike = entry.type is not None if missing.type else len(reasons) < len(missing.given())
            if alike:
                misses.append((len(reasons), entry, reasons))
        misses.sort(key=lambda miss: (miss[0], miss[1].number))
        if not misses:
            return []
        return [
            "nearest misses:",
            *(f"  #{entry.number} {entry}: {', '.join(reasons)}" for _, entry, reasons in misses[:MAX_MISSES]),
        ]

    def _ends(self) -> list[str]:
        """The connections that the server ended for another reason than that their peers or itself left, newest last.

        Such a close often explains a missing message.
        """
        ends = [entry for entry in Query().find(self._native, self._begin, closed=True) if _is_unusual(entry)]
        if not ends:
            return []
        return ["the server closed:", *(f"  #{entry.number} {entry}" for entry in ends[-MAX_MISSES:])]

    def _error(self, text: str) -> ExpectationError:
        """An error with this text and the transcript."""
        lines = _transcript.of(self._native, "text", self._run.shown_after, bounded=True).splitlines()
        error = ExpectationError("\n".join([text, "what was said:", *(f"  {line}" for line in lines)]))
        error._transcript_of = self._run  # The report of the test does not show it again.
        return error


def recorded_on(run: View, query: Query) -> str | None:
    """Returns the name of another node, if that one records the forwards that a query looks for."""
    if query.device is None or not query.may_be_forward():
        return None
    if run.native.journal.find(0, 1, device=query.device, message_type="forward"):
        return None  # The device was here before.
    try:
        return run.elsewhere(query.device)
    except NotRunningError:
        return None
    except NodeUnreachableError as error:
        return error.node


def check_recorded_here(run: View, query: Query) -> None:
    """Raises FilterError for a query that finds nothing here, since another node records the forwards."""
    if (node := recorded_on(run, query)) is not None:
        raise FilterError(_elsewhere(query, node))


def _elsewhere(query: Query, node: str) -> str:
    return (
        f"device {query.device!r} is on node {node!r}, and the journal of that node has its forwards: ask the server "
        f"that is node {node!r}"
    )


def _short(entry: Entry, length: int = 200) -> str:
    text = entry.payload_json or entry.text
    return printable(text if len(text) <= length else f"{text[:length]}…")


def _is_unusual(end: Entry) -> bool:
    """Whether the server ended the connection, with another code than 1000 and 1001."""
    return end.direction.startswith("server") and not end.text.startswith(("1000", "1001"))
