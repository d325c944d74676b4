"""The program that is judged: a command, a coroutine function, or a program that its author starts."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeAlias

from ..errors import ConfigError

Subject: TypeAlias = Sequence[str] | Callable[[str], Awaitable[object]] | None
"""A command with its arguments, a function of the URL, or None for a program that its author starts."""

GRACE = 2.0
"""Seconds from SIGTERM to SIGKILL."""


class Program:
    """One run of the program."""

    def __init__(self, subject: Subject, places: Mapping[str, str], *, shows_output: bool = False) -> None:
        self._subject = subject
        self._places = places
        self._shows_output = shows_output
        self._process: asyncio.subprocess.Process | None = None
        self.task: asyncio.Task[str] | None = None
        """Ends when the program ends, with a description of that."""

    @property
    def is_manual(self) -> bool:
        """Whether the author starts it."""
        return self._subject is None

    async def start(self) -> None:
        """Starts it. Raises OSError."""
        if self._subject is None:
            return
        if callable(self._subject):
            self.task = asyncio.ensure_future(self._run(self._subject(self._places["url"])))
            return
        output = None if self._shows_output else asyncio.subprocess.DEVNULL
        environment = {
            **os.environ,
            "CUTTLEFISH_SIGNALING_URL": self._places["url"],
            "CUTTLEFISH_SIGNALING_DEVICE_ID": self._places["device_id"],
        }
        self._process = await asyncio.create_subprocess_exec(
            *[_filled(part, self._places) for part in self._subject],
            # A program that reads its standard input runs on: the other end of this pipe stays open.
            stdin=asyncio.subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )
        self.task = asyncio.ensure_future(self._wait(self._process))

    async def _run(self, work: Awaitable[object]) -> str:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception as error:
            return f"it raised {type(error).__name__}: {error}"
        return "it returned"

    async def _wait(self, process: asyncio.subprocess.Process) -> str:
        status = await process.wait()
        return f"it ended by signal {-status}" if status < 0 else f"it ended with status {status}"

    async def stop(self) -> None:
        """Ends it, with all processes that it has started."""
        if self._process is not None:
            await self._end(self._process)
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(process.wait()), GRACE)
                break
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _filled(text: str, places: Mapping[str, str]) -> str:
    """A part of the command with the values of its places. Other braces stay."""
    return re.sub(r"\{(\w+)\}", lambda found: places.get(found[1], found[0]), text)


def check_subject(subject: Subject) -> None:
    """Raises ConfigError for a value that is no program."""
    if subject is None or callable(subject):
        return
    if isinstance(subject, str) or not subject or not all(isinstance(part, str) for part in subject):
        raise ConfigError("program", f"must be a list of strings, a coroutine function or None, got {subject!r}")
