"""The servers of `examples/servers`: their failures are found, and are those of docs/conformance.md."""

from __future__ import annotations

import asyncio
import importlib
import re
from fnmatch import fnmatchcase

import pytest

from cuttlefish_signaling.conformance import Outcome, Report, check_server_async

import conformance_page
from peers import PATIENCE

PAGE = conformance_page.PAGE.read_text(encoding="utf-8")
FAILURES = conformance_page.FAILURES.read_text(encoding="utf-8")

TRIED = (
    "forward.a-conversation*",
    "payload.kinds",
    "frames.ping",
    "forward.a-payload-comes-out-byte-for-byte*",
    "connect.an-unknown-device*",
    "duplicates.an-id-held*",
    "malformed.device-a-binary-message",
    "register.register-without-device-info*",
    "handshake.unknown-path",
    "handshake.subprotocol-operator",
    "handshake.origin-other",
)
"""Rules that these servers answer at once, right or wrong."""


def column(number: int) -> dict[str, bool]:
    """Whether each rule fails in a server, by the table."""
    rows = re.findall(r"^\| `([^`]+)` \|(.*)\|$", PAGE.partition(conformance_page.BEGIN)[2], re.MULTILINE)
    return {rule: "fails" in cells.split("|")[number] for rule, cells in rows}


@pytest.mark.parametrize("name", conformance_page.NAMES)
def test_failures_are_those_of_the_table(name: str) -> None:
    file = conformance_page.NAMES[name]
    if file.endswith(".mjs") and not (conformance_page.PACKAGES / "node_modules" / "ws").exists():
        pytest.skip("`make conformance` installs the package ws of Node.js")
    if name == "aiohttp":
        importlib.import_module("aiohttp")
    promised = column(list(conformance_page.NAMES).index(name))
    tried = {rule: fails for rule, fails in promised.items() if any(fnmatchcase(rule, one) for one in TRIED)}
    assert len(tried) == len(TRIED)
    assert sum(tried.values()) >= 5

    async def judge() -> Report:
        async with conformance_page.started(file) as url:
            # A payload of null is dropped by one of them, which takes this time.
            return await check_server_async(url, profile="strict", only=list(tried), timeout=PATIENCE / 4)

    report = asyncio.run(judge())
    assert report.problem is None
    assert {one.rule.id: one.outcome is Outcome.FAILED for one in report.results} == tried
    assert report.exit_status == 1


def test_each_failure_has_its_transcript() -> None:
    assert list(column(0)) == conformance_page.ids()
    names = "|".join(map(re.escape, conformance_page.NAMES))
    sections = re.findall(rf"^({names}): (\S+)\n\n(.*?)\n(?:\n|\Z)", FAILURES, re.MULTILINE | re.DOTALL)
    listed = [(name, rule) for name, rule, _ in sections]
    columns = {name: column(number) for number, name in enumerate(conformance_page.NAMES)}
    assert listed == [(name, rule) for name in columns for rule, fails in columns[name].items() if fails]
    assert all("expected: " in text and "heard: " in text for _, _, text in sections)
    assert len(listed) > 50


def test_servers_are_small() -> None:
    for file in conformance_page.NAMES.values():
        lines = (conformance_page.SERVERS / file).read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 80
