"""Runs the rules of a profile against a device or client program."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Collection
from dataclasses import replace

from ..errors import ConfigError
from ._host import Host
from ._model import Failed, NotApplicable, Outcome, Problem, Report, Result, Rule
from ._program import Program, Subject, check_subject
from ._program_rules import program_rules_of
from ._server import DEFAULT_TIMEOUT, check_timeout, chosen_of
from ._stage import Stage

Progress = Callable[[Result], None]


async def check_program_async(
    kind: str,
    program: Subject,
    *,
    profile: str = "spec",
    only: Collection[str] = (),
    skip: Collection[str] = (),
    timeout: float = DEFAULT_TIMEOUT,
    device_id: str = "cvd-1",
    listen: tuple[str, int] = ("127.0.0.1", 0),
    tls: ssl.SSLContext | None = None,
    shows_output: bool = False,
    on_url: Callable[[str], None] | None = None,
    on_result: Progress | None = None,
) -> Report:
    """`check_device` and `check_client` for coroutines. `kind` is `device` or `client`."""
    if kind not in ("device", "client"):
        raise ConfigError("kind", f"must be 'device' or 'client', got {kind!r}")
    rules = chosen_of(program_rules_of(kind, profile), only, skip)
    check_timeout(timeout)
    check_subject(program)
    is_command = program is not None and not callable(program)
    name = " ".join(program) if is_command else getattr(program, "__name__", "program")  # type: ignore[arg-type]
    report = Report(name, kind, profile)
    results: list[Result] = []
    async with Host(*listen, timeout, tls) as host:
        if on_url is not None:
            on_url(host.url)
        places = _places(host, device_id)
        for rule in rules:
            run = Program(program, places, shows_output=shows_output)
            stage = Stage(kind, host, run, device_id, timeout)
            result = await run_rule(rule, stage)
            results.append(result)
            if on_result is not None:
                on_result(result)
            if not stage.guests and (problem := _unreachable(results)) is not None:
                return replace(report, problem=problem)
    return replace(report, results=tuple(results))


def _places(host: Host, device_id: str) -> dict[str, str]:
    return {
        "url": host.url,
        "device_url": f"{host.url}/register_device",
        "client_url": f"{host.url}/connect_client",
        "host": host.address[0],
        "port": str(host.address[1]),
        "device_id": device_id,
    }


def _unreachable(results: list[Result]) -> Problem | None:
    """The reason why no rule can be tried: the program does not even connect for the first one."""
    first = results[0]
    if len(results) > 1 or first.stage not in ("process", "connect") or first.reason != "the program did not connect":
        return None
    advice = "--show-output shows its output" if first.stage == "process" else "is it given {url}?"
    return Problem(first.stage, f"{first.reason}: {first.heard}", advice)


async def run_rule(rule: Rule, stage: Stage) -> Result:
    """Tries a rule with one run of the program."""
    assert rule._check is not None
    limit = stage.timeout * 60 + 60
    try:
        await stage.program.start()
        await asyncio.wait_for(rule._check(stage), limit)
        result = Result(rule, Outcome.PASSED)
    except NotApplicable as reason:
        result = Result(rule, Outcome.SKIPPED, str(reason))
    except Failed as failed:
        result = Result(rule, Outcome.FAILED, failed.reason, failed.stage, failed.expected, failed.heard)
    except (OSError, ValueError) as error:
        heard = getattr(error, "strerror", None) or str(error)
        result = Result(
            rule, Outcome.FAILED, "the program did not connect", "process", "a program", f"no start: {heard}"
        )
    except asyncio.TimeoutError:
        result = Result(rule, Outcome.FAILED, f"the rule took longer than {limit:g} s", "message", "an answer", "none")
    finally:
        await stage.end()
    return replace(result, transcript=tuple(stage.transcript.lines))


def check_device(program: Subject, **options: object) -> Report:
    """Judges a device program by the rules of a profile.

    Args:
        program: A command as a list, in which `{url}`, `{device_url}`, `{host}`, `{port}` and `{device_id}` stand for
            the server of the kit; or a coroutine function of the URL; or None for a program that its author starts.
        options: `profile` (`spec` or `cuttlefish`), `only`, `skip`, `timeout`, `device_id`, `listen`, `tls`,
            `shows_output`, `on_url` and `on_result`, as for `check_program_async`.

    A program that does not connect is the `problem` of the report. Raises ConfigError.
    """
    return asyncio.run(check_program_async("device", program, **options))  # type: ignore[arg-type]


def check_client(program: Subject, **options: object) -> Report:
    """Judges a client program; the arguments are those of `check_device`. Raises ConfigError."""
    return asyncio.run(check_program_async("client", program, **options))  # type: ignore[arg-type]
