"""The outcome of a probe: steps with their findings, and the exit status."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._field_docs import with_field_docs

EXIT_STATUS: Mapping[str, int] = {
    "dns": 10,
    "tcp": 11,
    "tls": 12,
    "http": 13,
    "websocket": 14,
    "ping": 15,
    "devices": 16,
    "connect": 17,
    "turn": 18,
    "offer": 19,
    "answer": 20,
    "ice": 21,
    "dtls": 22,
    "media": 23,
    "data": 24,
}
"""The stages in their order, each with the exit status of a probe that fails there. The numbers are stable."""

OK, WARNING, FAILED, SKIPPED = "ok", "warning", "failed", "skipped"


@with_field_docs
@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, in plain words."""

    cause: str
    """A stable name, such as `certificate_expired`. docs/probe.md lists all of them."""
    text: str
    """The fault, with the values that show it."""
    fix: str
    """The thing to do."""
    is_error: bool = True
    """Whether the stage fails. Otherwise it is a warning."""


@with_field_docs
@dataclass(frozen=True)
class Step:
    """One stage of a probe."""

    stage: str
    """A key of `EXIT_STATUS`."""
    status: str
    """`"ok"`, `"warning"`, `"failed"` or `"skipped"`."""
    seconds: float
    """The time that the stage took."""
    text: str
    """The result in one line."""
    facts: Mapping[str, Any]
    """The values that were observed. They are JSON values, and have no credentials."""
    findings: tuple[Finding, ...] = ()
    """The faults, the most important one first."""

    @property
    def cause(self) -> str | None:
        """The cause of the first finding that is an error; None without one."""
        return next((finding.cause for finding in self.findings if finding.is_error), None)


@with_field_docs
@dataclass(frozen=True)
class Report:
    """The result of a probe."""

    target: str
    """The URL of the server, without a query."""
    device_id: str | None
    """The device of the probe; None without one."""
    started: float
    """The time of the start, in Unix seconds."""
    seconds: float
    """The time that the probe took."""
    steps: tuple[Step, ...]
    """The stages in their order."""

    @property
    def failed_stage(self) -> str | None:
        """The first stage that failed; None if none did."""
        return next((step.stage for step in self.steps if step.status == FAILED), None)

    @property
    def ok(self) -> bool:
        """Whether no stage failed. Warnings do not count."""
        return self.failed_stage is None

    @property
    def cause(self) -> str | None:
        """The cause of the failure; None if no stage failed."""
        return next((step.cause for step in self.steps if step.status == FAILED), None)

    @property
    def exit_status(self) -> int:
        """The exit status of the command: 0, or that of the stage that failed."""
        return EXIT_STATUS[self.failed_stage] if self.failed_stage else 0

    @property
    def causes(self) -> tuple[str, ...]:
        """The causes of all findings, warnings included."""
        return tuple(finding.cause for step in self.steps for finding in step.findings)

    def step(self, stage: str) -> Step:
        """Returns the step of a stage. Raises KeyError for a stage that the probe does not have."""
        for step in self.steps:
            if step.stage == stage:
                return step
        raise KeyError(stage)

    def as_dict(self) -> dict[str, Any]:
        """Returns the report as JSON values."""
        return {
            "target": self.target,
            "device_id": self.device_id,
            "started": round(self.started, 3),
            "seconds": round(self.seconds, 3),
            "ok": self.ok,
            "failed_stage": self.failed_stage,
            "cause": self.cause,
            "exit_status": self.exit_status,
            "steps": [_step_as_dict(step) for step in self.steps],
        }

    def json(self) -> str:
        """Returns the report as JSON."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False)

    def text(self) -> str:
        """Returns the report as text, one line for each stage and two for each finding."""
        return "\n".join([line for step in self.steps for line in step_lines(step)] + [self.last_line()])

    def last_line(self) -> str:
        """Returns the line that sums up."""
        if self.failed_stage is not None:
            return f"failed at {self.failed_stage}: {self.cause} (exit status {self.exit_status})"
        warnings = sum(step.status == WARNING for step in self.steps)
        rest = f", with warnings at {warnings} of them" if warnings else ""
        done = sum(step.status != SKIPPED for step in self.steps)
        return f"all {done} stages passed{rest}"


def step_lines(step: Step) -> list[str]:
    """Returns the lines of a step in the text."""
    name = step.status.upper() if step.status == FAILED else step.status
    time = "" if step.status == SKIPPED else f"{step.seconds * 1000:.0f} ms"
    lines = [f"{step.stage:<10} {name:<8} {time:>8}  {step.text}"]
    for finding in step.findings:
        lines += [f"{'':<11}{finding.text}", f"{'':<11}-> {finding.fix}"]
    return lines


def _step_as_dict(step: Step) -> dict[str, Any]:
    findings = [
        {"cause": one.cause, "text": one.text, "fix": one.fix, "is_error": one.is_error} for one in step.findings
    ]
    return {
        "stage": step.stage,
        "status": step.status,
        "seconds": round(step.seconds, 6),
        "text": step.text,
        "facts": dict(step.facts),
        "findings": findings,
    }


def status_of(findings: tuple[Finding, ...]) -> str:
    """Returns the status of a stage with these findings."""
    if not findings:
        return OK
    return FAILED if any(finding.is_error for finding in findings) else WARNING
