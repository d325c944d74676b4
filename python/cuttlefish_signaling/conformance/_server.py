"""Runs the rules of a profile against a server."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from ..errors import ConfigError
from ._model import Failed, NotApplicable, Outcome, Problem, Report, Result, Rule, Settings, Unreachable
from ._profiles import DEFAULT_PROFILE, EXACT, WITH_TEXTS, rules_of
from ._reach import reach
from ._session import DEFAULTS, Known, Session
from ._target import Target, target

DEFAULT_TIMEOUT = 5.0

JOBS = 8
"""Rules that run at the same time."""

MOST_TIMEOUT = 3600.0

Progress = Callable[[Result], None]


@dataclass(frozen=True)
class ServerCheck:
    """A server, a profile and the rules that were chosen of it: what `check_server` runs, one rule at a time."""

    target: Target
    profile: str
    rules: tuple[Rule, ...]
    timeout: float
    settings: Settings
    known: Known

    async def reach(self) -> None:
        """Returns if the server answers. Raises Unreachable."""
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
        except Unreachable as error:
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
) -> ServerCheck:
    """Prepares the check of a server, with the arguments of `check_server`. Raises ConfigError."""
    check_timeout(timeout)
    for name in settings or {}:
        if name not in DEFAULTS:
            raise ConfigError("settings", f"must be of {', '.join(DEFAULTS)}, got {name!r}")
    chosen = chosen_of(rules_of(profile), only, skip)
    where = target(url, tls=tls, headers=headers, token=token)
    return ServerCheck(where, profile, chosen, timeout, dict(settings or {}), Known())


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
    except Unreachable as error:
        return replace(report, problem=error.problem)
    places = asyncio.Semaphore(JOBS)

    async def run(rule: Rule) -> Result:
        async with places:
            result = await check.run(rule)
        if on_result is not None:
            on_result(result)
        return result

    calm = [rule for rule in check.rules if not rule.risky]
    results = list(await asyncio.gather(*map(run, calm)))
    problem: Problem | None = None
    for rule in check.rules[len(calm) :]:
        result = await run(rule)
        results.append(result)
        if result.outcome is Outcome.FAILED and (problem := await _lost(check, rule)) is not None:
            break
    return replace(report, results=tuple(results), problem=problem)


async def _lost(check: ServerCheck, rule: Rule) -> Problem | None:
    """The reason why the server does not answer any more; None if it does."""
    try:
        await check.reach()
    except Unreachable as error:
        stage, text = error.problem.stage, error.problem.text
        return Problem(stage, f"since the rule {rule.id} the server does not answer: {text}", "was it ended by it?")
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
    on_result: Progress | None = None,
) -> Report:
    """Judges a signaling server by the rules of a profile.

    Args:
        url: `ws://`, `wss://`, `http://` or `https://`, with or without a path prefix and a query.
        profile: `spec`, `reference`, `operator` or `strict`.
        only, skip: Ids, numbers of docs/protocol.md or patterns with `*`: these rules alone, or not these rules.
        timeout: Seconds for each connection and each message.
        token: The token of `Authorization: Bearer`.
        headers: Additional headers of each request.
        tls: Verifies the certificate; by default that of the system.
        settings: Settings that the server is known to have, like `{"device_wait_timeout": 5}`: docs/conformance.md.
        on_result: Called with each result.

    A server that cannot be reached is the `problem` of the report, and no exception. Raises ConfigError.
    """
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
    return asyncio.run(run_check(check, on_result))
