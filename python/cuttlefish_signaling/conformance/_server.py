"""Runs the rules of a profile against a server."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from .._field_docs import with_field_docs
from ..errors import ConfigError
from ._model import Failed, NotApplicable, Outcome, Problem, Report, Result, Rule, Settings, UnreachableError
from ._profiles import DEFAULT_PROFILE, EXACT, WITH_TEXTS, rules_of
from ._reach import reach
from ._session import DEFAULTS, Known, Session
from ._target import Target, target

DEFAULT_TIMEOUT = 5.0

JOBS = 8
"""Rules that run at the same time."""

MOST_JOBS = 64
MOST_TIMEOUT = 3600.0

Progress = Callable[[Result], None]


@with_field_docs
@dataclass(frozen=True)
class ServerCheck:
    """A server, and the rules that were chosen. `check_server` runs all of them; `run` tries one."""

    target: Target
    """The server."""
    profile: str
    """The name of the profile."""
    rules: tuple[Rule, ...]
    """The rules."""
    timeout: float
    """Seconds for each connection and each message."""
    settings: Settings
    """Settings that the server is known to have."""
    known: Known
    """Facts that the rules have found out."""
    jobs: int = JOBS
    """Rules that run at the same time."""

    async def reach(self) -> None:
        """Returns if the server answers. Raises UnreachableError."""
        await reach(self.target, self.timeout)

    async def run(self, rule: Rule) -> Result:
        """Tries a rule. It returns in any case: a server that does not answer, or answers nonsense, is a failure."""
        session = Session(
            self.target,
            self.timeout,
            self.settings,
            self.known,
            is_exact=self.profile in EXACT,
            has_texts=self.profile in WITH_TEXTS,
        )
        assert rule._check is not None
        limit = self.timeout * 20 + 60
        try:
            await asyncio.wait_for(rule._check(session), limit)
            result = Result(rule, Outcome.PASSED)
        except NotApplicable as reason:
            result = Result(rule, Outcome.SKIPPED, str(reason))
        except Failed as failed:
            heard, expected = failed.heard, failed.expected
            result = Result(rule, Outcome.FAILED, failed.reason, failed.stage, expected, heard)
        except UnreachableError as error:
            result = Result(rule, Outcome.FAILED, error.problem.text, error.problem.stage, "a connection", str(error))
        except (TimeoutError, asyncio.TimeoutError):
            text = f"the rule took longer than {limit:g} s"
            result = Result(rule, Outcome.FAILED, text, "message", "an answer", "none in time")
        finally:
            session.end()
        return replace(result, transcript=tuple(session.transcript.lines))


def server_check(
    url: str,
    *,
    profile: str = DEFAULT_PROFILE,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    timeout: float = DEFAULT_TIMEOUT,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    settings: Settings | None = None,
    jobs: int = JOBS,
) -> ServerCheck:
    """Prepares the check of a server, with the arguments of `check_server`. Raises ConfigError."""
    check_timeout(timeout)
    if isinstance(jobs, bool) or not isinstance(jobs, int) or not 0 < jobs <= MOST_JOBS:
        raise ConfigError("jobs", f"must be a whole number, 1 to {MOST_JOBS}, got {jobs!r}")
    for name in settings or {}:
        if name not in DEFAULTS:
            raise ConfigError("settings", f"must be of {', '.join(DEFAULTS)}, got {name!r}")
    chosen = chosen_of(rules_of(profile), only, skip)
    where = target(url, tls=tls, headers=headers, token=token)
    return ServerCheck(where, profile, chosen, timeout, dict(settings or {}), Known(), jobs)


def token_of(text: str | None, option: str = "--token") -> str | None:
    """A token of the command line: `@FILE` stands for the text of a file. Raises ConfigError."""
    if text is None or not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(option, f"{text[1:]} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def settings_of(texts: Collection[str], option: str = "--setting") -> dict[str, Any]:
    """Settings of the command line, each as `NAME=VALUE`. Raises ConfigError."""
    return dict(_setting(text, option) for text in texts)


def _setting(text: str, option: str) -> tuple[str, Any]:
    """A setting: a number, `none`, `true`, `false`, or a word."""
    name, equals, value = text.partition("=")
    if not equals or not value:
        raise ConfigError(option, f"must be NAME=VALUE, got {text!r}")
    if value == "none":
        return name, None
    try:
        number = json.loads(value)
    except ValueError:
        return name, value
    return name, number if isinstance(number, int | float) else value


def check_timeout(timeout: float) -> None:
    """Raises ConfigError for a value that is no time."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= MOST_TIMEOUT:
        raise ConfigError("timeout", f"must be seconds, more than 0, at most {MOST_TIMEOUT:g}, got {timeout!r}")


def chosen_of(rules: Sequence[Rule], only: Collection[str], skip: Collection[str]) -> tuple[Rule, ...]:
    """The rules that patterns choose. Raises ConfigError for a pattern that chooses none."""
    for option, patterns in (("only", only), ("skip", skip)):
        for pattern in patterns:
            if not any(_fits(rule, pattern) for rule in rules):
                raise ConfigError(
                    option, f"no rule of this profile has the id or number {pattern!r}; --list lists them"
                )
    return tuple(
        rule
        for rule in rules
        if (not only or any(_fits(rule, pattern) for pattern in only))
        and not any(_fits(rule, pattern) for pattern in skip)
    )


def _fits(rule: Rule, pattern: str) -> bool:
    return fnmatchcase(rule.id, pattern) or pattern in rule.numbers


async def check_server_async(
    url: str,
    *,
    profile: str = DEFAULT_PROFILE,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    timeout: float = DEFAULT_TIMEOUT,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    settings: Settings | None = None,
    jobs: int = JOBS,
    on_result: Progress | None = None,
) -> Report:
    """`check_server` for coroutines."""
    check = server_check(
        url,
        profile=profile,
        only=only,
        skip=skip,
        timeout=timeout,
        token=token,
        headers=headers,
        tls=tls,
        settings=settings,
    )
    return await run_check(check, on_result)


async def run_check(check: ServerCheck, on_result: Progress | None = None) -> Report:
    """Runs all rules. Those that are risky come last, one after the other."""
    report = Report(check.target.url, "server", check.profile)
    try:
        await check.reach()
    except UnreachableError as error:
        return replace(report, problem=error.problem)
    run = _Run(check, on_result)
    calm = [rule for rule in check.rules if not rule.risky]
    results = list(await asyncio.gather(*map(run.one, calm)))
    for rule in check.rules[len(calm) :]:
        results.append(await run.one(rule))
    return replace(report, results=tuple(results), problem=run.lost)


class _Run:
    """The rules of one check. Those that are left are skipped once the server does not answer any more."""

    def __init__(self, check: ServerCheck, on_result: Progress | None) -> None:
        self.lost: Problem | None = None
        self._check = check
        self._on_result = on_result
        self._places = asyncio.Semaphore(check.jobs)
        self._running: list[str] = []

    async def one(self, rule: Rule) -> Result:
        """Tries a rule."""
        async with self._places:
            self._running.append(rule.id)
            result = Result(rule, Outcome.SKIPPED) if self.lost else await self._check.run(rule)
            is_suspect = result.outcome is Outcome.FAILED and (rule.risky or result.stage != "message")
            if is_suspect and self.lost is None:
                self.lost = await self._fault()
            self._running.remove(rule.id)
        if self.lost is not None and (result.outcome is Outcome.SKIPPED or result.stage in ("tcp", "http")):
            result = replace(result, outcome=Outcome.SKIPPED, reason="the server does not answer any more")
        if self._on_result is not None:
            self._on_result(result)
        return result

    async def _fault(self) -> Problem | None:
        """The reason why the server does not answer any more; None if it does."""
        rules = list(self._running)
        try:
            await self._check.reach()
        except UnreachableError as error:
            since = f"the rule {rules[0]}" if len(rules) == 1 else f"the rules {', '.join(rules)}"
            advice = "was it ended by it?" if len(rules) == 1 else "--jobs 1 finds the rule that ended it"
            text = f"since {since} the server does not answer: {error.problem.text}"
            return Problem(error.problem.stage, text, advice)
        return None


def check_server(
    url: str,
    *,
    profile: str = DEFAULT_PROFILE,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    timeout: float = DEFAULT_TIMEOUT,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    settings: Settings | None = None,
    jobs: int = JOBS,
    on_result: Progress | None = None,
) -> Report:
    """Judges a signaling server by the rules of a profile.

    Args:
        url: `ws://`, `wss://`, `http://` or `https://`, with or without a path prefix and a query.
        profile: `spec`, `reference`, `operator` or `strict`.
        only: Ids, numbers of docs/protocol.md or patterns with `*`: these rules alone.
        skip: The same, for rules that are left out.
        timeout: Seconds for each connection and each message.
        token: The token of `Authorization: Bearer`.
        headers: Additional headers of each request.
        tls: Verifies the certificate; by default that of the system.
        settings: Settings that the server is known to have, like `{"device_wait_timeout": 5}`: docs/conformance.md.
        jobs: Rules that run at the same time.
        on_result: A function that is called with each result.

    A server that cannot be reached is the `problem` of the report, and no exception. Raises ConfigError.
    """
    more = {"timeout": timeout, "token": token, "headers": headers, "tls": tls, "settings": settings, "jobs": jobs}
    check = server_check(url, profile=profile, only=only, skip=skip, **more)  # type: ignore[arg-type]
    return asyncio.run(run_check(check, on_result))
