"""Runs stages one after another: each with its deadline, and none after one that has failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from ._options import ProbeOptions
from ._report import FAILED, SKIPPED, Finding, Step, status_of
from ._words import without_secrets

OnStep = Callable[[Step], None]
OnStage = Callable[[str, float], None]

_GOES_ON = frozenset({"ping", "turn", "media"})
"""Stages whose failure does not hinder the next ones."""


class Outcome(NamedTuple):
    """The result of a stage."""

    text: str
    facts: dict[str, Any]
    findings: tuple[Finding, ...]
    is_skipped: bool = False
    """Whether there was nothing to do."""


Stage = Callable[[float], Coroutine[Any, Any, Outcome]]


class Runner:
    """Runs stages until one fails, and skips the others."""

    def __init__(self, options: ProbeOptions, on_step: OnStep | None, on_stage: OnStage | None) -> None:
        self.options = options
        self.steps: list[Step] = []
        self.secrets: set[str] = {options.token or ""}
        self._on_step = on_step
        self._on_stage = on_stage
        self._failed = ""

    def hide(self, servers: Any) -> None:
        """Keeps the credentials of ICE servers out of the output."""
        for server in servers:
            for key in ("credential", "password"):
                found = server.get(key) if hasattr(server, "get") else None
                if isinstance(found, str):
                    self.secrets.add(found)

    async def run(self, name: str, stage: Stage) -> None:
        """Runs a stage, unless an earlier one has failed."""
        if self._failed:
            self._add(Step(name, SKIPPED, 0.0, f"not tried: {self._failed} failed", {}))
            return
        seconds = self.options.seconds_for(name)
        if self._on_stage is not None:
            self._on_stage(name, seconds)
        begin = time.perf_counter()
        text, facts, findings, is_skipped = await stage(seconds)
        status = SKIPPED if is_skipped else status_of(findings)
        step = Step(name, status, time.perf_counter() - begin, text, facts, findings)
        self._add(without_secrets(step, self.secrets))
        if step.status == FAILED and name not in _GOES_ON:
            self._failed = name

    def _add(self, step: Step) -> None:
        self.steps.append(step)
        if self._on_step is not None:
            self._on_step(step)
