"""Each mutant of a small server is found by its rule, and by no unrelated one."""

from __future__ import annotations

import re

import pytest

from cuttlefish_signaling.conformance import Outcome, Report, Severity, check_server_async, rules_of

import idle_clock
import mutants_of_http
import mutants_of_messages
import mutants_of_refusals
import mutants_of_transport
from mutants import MUTANTS, Mutant
from small_server import SmallServer

SETTINGS = {"first_message_timeout": 3, "probe_timeout": 0.2}
MODULES = (mutants_of_http, mutants_of_messages, mutants_of_refusals, mutants_of_transport)
"""They add their mutants."""

ABOUT_JSON = ("1.3", "1.9", "1.15", "2.9", "4.1.2", "4.1.3", "4.3.")
"""Rules whose mutants concern invalid messages as well. Those of the others are tried without these: they take long."""

TIMEOUT = 2.0
"""Seconds that a rule waits for a message that a mutant does not send. Only those count in which the loop is idle."""


async def judged(mutant: Mutant | None, profile: str = "strict") -> Report:
    server = SmallServer()
    if mutant is not None:
        mutant.mutate(server)
    skip = ["waiting.flow"] if profile in ("spec", "strict") else []
    if mutant is not None and not any(number.startswith(ABOUT_JSON) for number in mutant.finds):
        skip.append("malformed.*")
    if mutant is not None and "4.3.8" not in mutant.finds:
        skip.append("4.3.8")  # It takes as long as the timeout.
    async with server.running() as url:
        return await check_server_async(
            url, profile=profile, timeout=TIMEOUT if mutant else 20.0, settings=SETTINGS, skip=skip
        )


@pytest.mark.parametrize("profile", ["spec", "reference", "operator", "strict"])
def test_small_server_passes(profile: str) -> None:
    report = idle_clock.run(judged(None, profile))
    assert [result for result in report.results if result.outcome is Outcome.FAILED] == []
    assert report.passed
    assert report.count(Outcome.PASSED) > 10


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_mutant_is_found_by_its_rule(mutant: Mutant) -> None:
    report = idle_clock.run(judged(mutant))
    failed = [result for result in report.results if result.outcome is Outcome.FAILED]
    numbers = {number for result in failed for number in result.rule.numbers}
    assert set(mutant.finds) <= numbers
    assert report.exit_status == 1
    unrelated = [
        f"{result.rule.id}: {result.expected} | {result.heard}"
        for result in failed
        if not set(result.rule.numbers) & set(mutant.finds)
        and not (mutant.sign and re.search(mutant.sign, f"{result.expected} | {result.heard}"))
    ]
    assert unrelated == []
    for result in failed:
        assert result.reason and result.stage and result.transcript, result.rule.id


UNTRIED = {"1.18", "4.2.13"}
"""Rules of settings that the small server does not have."""


def test_each_must_of_spec_has_a_mutant() -> None:
    """Those of `strict` as well, as far as they can be tried with the settings of the small server."""
    assert len(MUTANTS) >= 25
    found = {number for mutant in MUTANTS for number in mutant.finds}
    for profile in ("spec", "reference", "operator", "strict"):
        for rule in rules_of(profile):
            is_tried = not UNTRIED.intersection(rule.numbers) and not rule.id.startswith("waiting.")
            if rule.severity is Severity.MUST and is_tried:
                assert not rule.numbers or set(rule.numbers) & found, (profile, rule.id, rule.numbers)
