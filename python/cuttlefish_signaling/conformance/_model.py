"""Rules, results and reports."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

from .._field_docs import with_field_docs

Check: TypeAlias = Callable[[Any], Awaitable[None]]
"""The test of a rule. It is given the session, and raises `Failed` or `NotApplicable`."""


class Severity(Enum):
    """The weight of a rule: a failed *must* makes the subject fail, a failed *should* or *may* is only reported."""

    MUST = "must"
    SHOULD = "should"
    MAY = "may"


class Outcome(Enum):
    """The result of a rule."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@with_field_docs
@dataclass(frozen=True)
class Source:
    """The text that a rule comes from."""

    sentence: str
    """The sentence."""
    place: str
    """The document that has it, with the number of the rule."""


@with_field_docs
@dataclass(frozen=True)
class Line:
    """One line of the transcript of a rule."""

    peer: str
    """The name of the peer of the kit: `d` is a device, `c` a client."""
    verb: str
    """`opens`, `sends`, `receives`, `closed`, `leaves`, `expected` or `heard`."""
    text: str
    """The message, exactly as it was on the wire, or a description."""

    def __str__(self) -> str:
        return f"{self.peer:<6} {self.verb:<8} {self.text}"


@with_field_docs
@dataclass(frozen=True)
class Rule:
    """A rule, as a profile has it."""

    id: str
    """The name for `--only` and `--skip`, for example `forward.null-is-a-payload-both-ways`. It is stable."""
    title: str
    """The behaviour, in one sentence."""
    severity: Severity
    """Must, should or may."""
    source: Source
    """The sentence that asks for it."""
    numbers: tuple[str, ...] = ()
    """The rules of docs/protocol.md that it holds, for example `4.1.12`. `--only` and `--skip` take them as well."""
    risky: bool = False
    """Whether it has ended servers. Such rules come last, one after the other."""
    _check: Check | None = field(default=None, repr=False, compare=False)


@with_field_docs
@dataclass(frozen=True)
class Result:
    """The result of one rule."""

    rule: Rule
    """The rule."""
    outcome: Outcome
    """Passed, failed or skipped."""
    reason: str = ""
    """The reason of a failure or of a skip, in one line."""
    stage: str = ""
    """The stage of a failure: `tcp`, `tls`, `http`, `websocket` or `message`; for a program also `process`."""
    expected: str = ""
    """The message or event that the rule asks for."""
    heard: str = ""
    """The message or event that came instead."""
    transcript: tuple[Line, ...] = ()
    """Everything that was sent and received, until the failure."""

    @property
    def is_failure(self) -> bool:
        """Whether a *must* failed."""
        return self.outcome is Outcome.FAILED and self.rule.severity is Severity.MUST


@with_field_docs
@dataclass(frozen=True)
class Problem:
    """The reason why a subject could not be judged at all."""

    stage: str
    """`url`, `dns`, `tcp`, `tls`, `http` or `websocket`; for a program `process` or `connect`."""
    text: str
    """The fault that was found, in one line."""
    advice: str = ""
    """The next step, in one line."""

    def __str__(self) -> str:
        return f"{self.stage}: {self.text}{f'; {self.advice}' if self.advice else ''}"


@with_field_docs
@dataclass(frozen=True)
class Report:
    """The results of all rules of a profile."""

    subject: str
    """The URL of the server, or the command of the program."""
    kind: str
    """`server`, `device` or `client`."""
    profile: str
    """The name of the profile."""
    results: tuple[Result, ...] = ()
    """The results, in the order of the rules."""
    problem: Problem | None = None
    """The reason why the subject could not be judged, or could not be judged to the end."""

    @property
    def failures(self) -> tuple[Result, ...]:
        """The results of each *must* that failed."""
        return tuple(result for result in self.results if result.is_failure)

    @property
    def passed(self) -> bool:
        """Whether the subject was judged, and no *must* failed."""
        return self.exit_status == 0

    @property
    def exit_status(self) -> int:
        """0 if no *must* failed, 1 if one did, 2 if the subject could not be reached."""
        if self.problem is not None and not self.failures:
            return 2
        return 1 if self.failures else 0

    def count(self, outcome: Outcome, severity: Severity | None = None) -> int:
        """The number of results with this outcome, and with this severity if it is given."""
        return sum(result.outcome is outcome and severity in (None, result.rule.severity) for result in self.results)


class Failed(Exception):  # noqa: N818
    """A rule is not met. The stage is that of the failure."""

    def __init__(self, reason: str, *, expected: str = "", heard: str = "", stage: str = "message") -> None:
        super().__init__(reason)
        self.reason = reason
        self.expected = expected
        self.heard = heard
        self.stage = stage


class NotApplicable(Exception):  # noqa: N818
    """A rule does not apply to this subject, or cannot be tried from outside. The text is the reason."""


class UnreachableError(Exception):
    """The subject cannot be reached."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass
class Transcript:
    """The lines of a rule that is being tried."""

    lines: list[Line] = field(default_factory=list)

    def add(self, peer: str, verb: str, text: str) -> None:
        """Adds a line."""
        self.lines.append(Line(peer, verb, text))


Settings: TypeAlias = Mapping[str, Any]
"""Settings that the server under test is known to have, by name."""
