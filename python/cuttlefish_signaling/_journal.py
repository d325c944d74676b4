"""`server.journal`: what was said, to look at, to wait for and to draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from . import _transcript
from ._checks import check_seconds
from ._entry import Entry
from ._filters import check_direction, check_ids, check_names, check_type
from ._run import Run
from .errors import ExpectationError, FilterError, NotRunningError

if TYPE_CHECKING:
    from typing_extensions import Never

__all__ = ["Entry", "Journal"]

Where: TypeAlias = Callable[[Entry], Any]

NAMES = ("after", "check_type", "client", "device", "direction", "message_type", "type", "where")
MAX_MISSES = 3
MAX_LINES = 40
"""Lines of the transcript in the text of an error; the pytest report has all of it."""


@dataclass(frozen=True)
class _Filter:
    """What is looked for; None is anything."""

    type: str | None = None
    device: str | None = None
    client: int | None = None
    direction: str | None = None
    message_type: str | None = None
    where: Where | None = None

    def native(self) -> dict[str, Any]:
        return {
            "payload_type": self.type,
            "device": self.device,
            "client": self.client,
            "direction": self.direction,
            "message_type": self.message_type,
        }

    def given(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value is not None}

    def misses(self, entry: Entry) -> list[str]:
        """Why an entry is not what is looked for, wanted by wanted."""
        reasons = []
        for name, wanted in self.given().items():
            if name == "where":
                if not wanted(entry):
                    reasons.append("where() says no")
            elif (value := getattr(entry, name)) != wanted:
                reasons.append(f"{name} is {value!r}")
        return reasons

    def __str__(self) -> str:
        words = [f"{name}={value!r}" for name, value in self.given().items() if name != "where"]
        return ", ".join([*words, *(["where=..."] if self.where else [])]) or "anything"


class Journal:
    """What was said on a server: a bounded ring, the oldest forgotten first. Get it as `server.journal`.

    Filters, the same everywhere:
        type: The payload's `"type"`, of forwards: `"offer"`, `"ice-candidate"`, …
        device, client: The ids concerned.
        direction: `"device->client"`, `"client->device"` (forwards); `"device->server"`, `"server->device"`,
            `"client->server"`, `"server->client"` (everything else).
        message_type: `"register"`, `"connect"`, `"config"`, `"device_info"`, `"client_disconnected"`, `"error"`,
            `"forward"`.
        where: A function of an `Entry`.
        after: An `Entry`: only what came after it.
        check_type: False, to look for a type that looks like a typo of another.

    What was said before counts as well: an expectation is met by a message that has long passed.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._native = run.native.journal

    # Looking ----------------------------------------------------------------------------------------------------------

    def messages(
        self,
        type: str | None = None,
        *,
        device: str | None = None,
        client: int | None = None,
        direction: str | None = None,
        message_type: str | None = None,
        where: Where | None = None,
        after: Entry | None = None,
        check_type: bool = True,
        **unknown: Never,
    ) -> list[Entry]:
        """The messages that match, the oldest first. Raises FilterError."""
        check_names(unknown, NAMES)
        wanted = self._filter(_Filter(type, device, client, direction, message_type, where), check_type)
        return self._find(wanted, after.number if after else 0, closed=False)

    def entries(self, *, after: Entry | None = None) -> list[Entry]:
        """All of it, ends of connections included."""
        return self._find(_Filter(), after.number if after else 0, closed=None)

    @property
    def count(self) -> int:
        """How many entries were recorded so far, those forgotten included."""
        return self._native.count

    @property
    def forgotten(self) -> int:
        """How many entries went because of `Limits.journal_entries` or `Limits.journal_bytes`."""
        return self._native.forgotten

    def _find(self, wanted: _Filter, after: int, *, closed: bool | None) -> list[Entry]:
        found = map(Entry._of, self._native.find(after, 2**40, closed=closed, **wanted.native()))
        return [entry for entry in found if wanted.where is None or wanted.where(entry)]

    def _filter(self, wanted: _Filter, typos: bool) -> _Filter:
        check_direction(wanted.direction)
        check_ids(wanted.device, wanted.client)
        if wanted.where is not None and not callable(wanted.where):
            raise FilterError(f"where={wanted.where!r} is no function of an entry")
        if typos:
            check_type(wanted.type, self._types)
        return wanted

    def _types(self) -> set[str]:
        return {entry.type for entry in self._find(_Filter(), 0, closed=False) if entry.type}

    # Expecting --------------------------------------------------------------------------------------------------------

    def expect(
        self,
        type: str | None = None,
        *,
        device: str | None = None,
        client: int | None = None,
        direction: str | None = None,
        message_type: str | None = None,
        where: Where | None = None,
        after: Entry | None = None,
        timeout: float | None = 5.0,
        check_type: bool = True,
        **unknown: Never,
    ) -> Entry:
        """Waits for a message that matches, and returns the first.

        Args:
            timeout: Seconds; None waits for ever.

        Raises:
            ExpectationError: None came; it says what came instead.
            FilterError: A filter makes no sense.
        """
        __tracebackhide__ = True
        check_names(unknown, (*NAMES, "timeout"))
        wanted = self._filter(_Filter(type, device, client, direction, message_type, where), check_type)
        return _Search(self, [wanted], after).wait(timeout)[0]

    async def expect_async(
        self,
        type: str | None = None,
        *,
        device: str | None = None,
        client: int | None = None,
        direction: str | None = None,
        message_type: str | None = None,
        where: Where | None = None,
        after: Entry | None = None,
        timeout: float | None = 5.0,
        check_type: bool = True,
        **unknown: Never,
    ) -> Entry:
        """`expect()` for coroutines."""
        __tracebackhide__ = True
        check_names(unknown, (*NAMES, "timeout"))
        wanted = self._filter(_Filter(type, device, client, direction, message_type, where), check_type)
        return (await _Search(self, [wanted], after).wait_async(timeout))[0]

    def expect_none(
        self,
        type: str | None = None,
        *,
        device: str | None = None,
        client: int | None = None,
        direction: str | None = None,
        message_type: str | None = None,
        where: Where | None = None,
        after: Entry | None = None,
        within: float = 0.5,
        check_type: bool = True,
        **unknown: Never,
    ) -> None:
        """Waits so many seconds, and passes if no message matches until then. Raises ExpectationError if one does."""
        __tracebackhide__ = True
        check_names(unknown, (*NAMES, "within"))
        wanted = self._filter(_Filter(type, device, client, direction, message_type, where), check_type)
        _Search(self, [wanted], after).find_none(within)

    async def expect_none_async(
        self,
        type: str | None = None,
        *,
        device: str | None = None,
        client: int | None = None,
        direction: str | None = None,
        message_type: str | None = None,
        where: Where | None = None,
        after: Entry | None = None,
        within: float = 0.5,
        check_type: bool = True,
        **unknown: Never,
    ) -> None:
        """`expect_none()` for coroutines."""
        __tracebackhide__ = True
        check_names(unknown, (*NAMES, "within"))
        wanted = self._filter(_Filter(type, device, client, direction, message_type, where), check_type)
        await _Search(self, [wanted], after).find_none_async(within)

    def expect_sequence(
        self,
        *types: str | Mapping[str, Any],
        device: str | None = None,
        client: int | None = None,
        after: Entry | None = None,
        timeout: float | None = 5.0,
        check_type: bool = True,
        **unknown: Never,
    ) -> list[Entry]:
        """Waits for messages in this order, whatever comes between them.

        Args:
            types: Payload types, or dictionaries of filters.
            device, client: Only messages of these.
            timeout: Seconds for all of them; None waits for ever.

        Raises:
            ExpectationError: One did not come; it says which, and what came instead.
            FilterError: A filter makes no sense.
        """
        __tracebackhide__ = True
        check_names(unknown, ("device", "client", "after", "timeout", "check_type"))
        return _Search(self, self._steps(types, device, client, check_type), after).wait(timeout)

    async def expect_sequence_async(
        self,
        *types: str | Mapping[str, Any],
        device: str | None = None,
        client: int | None = None,
        after: Entry | None = None,
        timeout: float | None = 5.0,
        check_type: bool = True,
        **unknown: Never,
    ) -> list[Entry]:
        """`expect_sequence()` for coroutines."""
        __tracebackhide__ = True
        check_names(unknown, ("device", "client", "after", "timeout", "check_type"))
        return await _Search(self, self._steps(types, device, client, check_type), after).wait_async(timeout)

    def _steps(
        self, types: tuple[str | Mapping[str, Any], ...], device: str | None, client: int | None, typos: bool
    ) -> list[_Filter]:
        if not types:
            raise FilterError("expect_sequence() was given nothing to expect")
        steps = []
        for wanted in types:
            given = dict(wanted) if isinstance(wanted, Mapping) else {"type": wanted}
            known = [name for name in NAMES if name not in ("after", "check_type")]
            check_names({name: None for name in given if name not in known}, known)
            steps.append(self._filter(_Filter(**{"device": device, "client": client, **given}), typos))
        return steps

    # Drawing ----------------------------------------------------------------------------------------------------------

    def transcript(
        self,
        format: Literal["text", "mermaid", "jsonl"] = "text",
        *,
        device: str | None = None,
        client: int | None = None,
        after: Entry | None = None,
    ) -> str:
        """A picture of the conversation, of all or of one device or client.

        Args:
            format: `"text"`: two lanes; `"mermaid"`: a sequence diagram; `"jsonl"`: one JSON object a line.

        Raises:
            FilterError: There is no such format.
        """
        formats = {"text": _transcript.as_text, "mermaid": _transcript.as_mermaid, "jsonl": _transcript.as_jsonl}
        if format not in formats:
            raise FilterError(f"format={format!r} is none of {', '.join(map(repr, formats))}")
        check_ids(device, client)
        entries = self._find(_Filter(device=device, client=client), after.number if after else 0, closed=None)
        return formats[format](entries)

    def _transcript_after(self, number: int) -> str:
        return _transcript.as_text(self._find(_Filter(), number, closed=None))

    def __repr__(self) -> str:
        return f"<Journal of {self.count} entries>"


class _Search:
    """Looks for messages, one step after the other, as the journal grows."""

    def __init__(self, journal: Journal, steps: list[_Filter], after: Entry | None) -> None:
        self._journal = journal
        self._steps = steps
        self._begin = self._seen = after.number if after else 0
        self._found: list[Entry] = []

    def _look(self) -> list[Entry] | None:
        journal, steps = self._journal, self._steps
        while len(self._found) < len(steps):
            # What is recorded from here on is looked at the next time.
            count = journal._native.count
            found = next(iter(journal._find(steps[len(self._found)], self._seen, closed=False)), None)
            if found is None:
                # A message that does not match this step can not match it later, but for what became of it.
                if steps[len(self._found)].where is None:
                    self._seen = max(self._seen, count)
                return None
            self._found.append(found)
            self._seen = found.number
        return self._found

    def wait(self, timeout: float | None) -> list[Entry]:
        __tracebackhide__ = True
        check_seconds("timeout", timeout, optional=True)
        try:
            return self._journal._run.until(self._look, timeout, lambda: self._failure(f"within {timeout:g} s"))
        except NotRunningError:
            return self._after_the_end()

    async def wait_async(self, timeout: float | None) -> list[Entry]:
        __tracebackhide__ = True
        check_seconds("timeout", timeout, optional=True)
        run = self._journal._run
        try:
            return await run.until_async(self._look, timeout, lambda: self._failure(f"within {timeout:g} s"))
        except NotRunningError:
            return self._after_the_end()

    def _after_the_end(self) -> list[Entry]:
        __tracebackhide__ = True
        found = self._look()
        if found is None:
            raise self._failure("and the server has stopped: nothing more can come") from None
        return found

    def find_none(self, within: float) -> None:
        __tracebackhide__ = True
        check_seconds("within", within)
        run = self._journal._run
        try:
            found = run.until(self._look, within, TimeoutError)
        except (NotRunningError, TimeoutError):
            found = self._look() or []
        self._unwanted(found)

    async def find_none_async(self, within: float) -> None:
        __tracebackhide__ = True
        check_seconds("within", within)
        run = self._journal._run
        try:
            found = await run.until_async(self._look, within, TimeoutError)
        except (NotRunningError, TimeoutError):
            found = self._look() or []
        self._unwanted(found)

    def _unwanted(self, found: list[Entry]) -> None:
        __tracebackhide__ = True
        if found:
            raise ExpectationError(
                f"expected no message with {self._steps[0]}, but #{found[0].number} came:\n  {found[0]}\n"
                f"  payload: {_short(found[0])}\n{self._picture()}"
            )

    def _failure(self, when: str) -> ExpectationError:
        """What did not come, what did instead, and the whole conversation."""
        missing = self._steps[len(self._found)]
        if len(self._steps) == 1:
            lines = [f"expected a message with {missing}, {when}; it did not come"]
        else:
            which = f"number {len(self._found) + 1}, with {missing}"
            lines = [f"expected {len(self._steps)} messages in order, {when}; {which}, did not come"]
            lines += [f"  found: #{entry.number} {entry}" for entry in self._found]
        lines += self._nearest(missing)
        if forgotten := self._journal.forgotten:
            lines.append(f"the journal has forgotten its first {forgotten} entries (Limits.journal_entries)")
        return ExpectationError("\n".join([*lines, self._picture()]))

    def _nearest(self, missing: _Filter) -> list[str]:
        begin = self._found[-1].number if self._found else self._begin
        misses = []
        for entry in self._journal._find(_Filter(), begin, closed=False):
            reasons = missing.misses(entry)
            # Who looks for a payload is not helped by what has none.
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

    def _picture(self) -> str:
        lines = self._journal.transcript().splitlines()
        if len(lines) > MAX_LINES:
            lines = [lines[0], f"... {len(lines) - MAX_LINES} lines before this", *lines[-MAX_LINES + 1 :]]
        return "\n".join(["what was said:", *(f"  {line}" for line in lines)])


def _short(entry: Entry, length: int = 200) -> str:
    text = entry.payload_json or entry.text
    return text if len(text) <= length else f"{text[:length]}…"
