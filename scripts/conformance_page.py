"""Writes which rules fail in examples/servers: a table in docs/conformance.md, and failures.txt beside the servers.

    python scripts/conformance_page.py    # what `make conformance` does

Each rule is tried on a server of its own, since some rules end these servers. The server on Node.js needs its package
`ws` in target/servers.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from cuttlefish_signaling.conformance import (
    Outcome,
    Report,
    Result,
    check_server_async,
    failure_lines,
    rules_of,
)

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "conformance.md"
SERVERS = ROOT / "examples" / "servers"
FAILURES = SERVERS / "failures.txt"
PACKAGES = ROOT / "target" / "servers"
"""The folder in which npm has installed `ws`."""

BEGIN, END = "<!-- begin: make conformance -->\n", "<!-- end -->\n"

PROFILE = "strict"

RULES = (
    "connect.a-client-connects*",
    "forward.a-conversation*",
    "forward.each-client-has-its-own-id*",
    "payload.kinds",
    "order.both-ways",
    "forward.a-payload-comes-out-byte-for-byte*",
    "leaving.the-device-leaves*",
    "leaving.a-client-leaves*",
    "leaving.a-forward-to-a-client-that-has-left*",
    "order.notice-is-last",
    "sessions.old-client",
    "connect.client-ids-count-up*",
    "connect.an-unknown-device*",
    "connect.forward-before-connect",
    "duplicates.an-id-held-by-a-live-socket*untouched",
    "duplicates.the-id-is-free-again*",
    "register.register-without-device-info*",
    "forward.a-device-forwards-before-it-has-registered",
    "forward.an-id-never-given-out*stays",
    "malformed.client-no-json",
    "malformed.device-a-binary-message",
    "malformed.device-nesting-of-30-000",
    "frames.ping",
    "frames.one-frame",
    "frames.fragments",
    "handshake.unknown-path",
    "handshake.plain-get",
    "handshake.subprotocol-operator",
    "handshake.no-compression",
    "handshake.origin-other",
)
"""The rules of the table: those that matter to devices and clients."""

TIMEOUT = 2.0

NAMES = {
    "websockets": "websockets_server.py",
    "aiohttp": "aiohttp_server.py",
    "ws (Node.js)": "ws_server.mjs",
}
"""The libraries, and the servers on them."""


def command(file: str) -> list[str]:
    """The command that starts a server on a free port."""
    return [sys.executable if file.endswith(".py") else "node", str(SERVERS / file), "0"]


@asynccontextmanager
async def started(file: str) -> AsyncIterator[str]:
    """Runs a server; its URL."""
    process = await asyncio.create_subprocess_exec(
        *command(file),
        cwd=ROOT if file.endswith(".py") else PACKAGES,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        url = (await process.stdout.readline()).decode().strip()
        if not url:
            raise SystemExit(f"{file} does not start: `npm install ws` in {PACKAGES}, `pip install aiohttp`")
        yield url
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def ids() -> list[str]:
    """The ids of the rules of the table, in their order."""
    found = [
        rule.id
        for pattern in RULES
        for rule in rules_of(PROFILE)
        if fnmatchcase(rule.id, pattern) and not rule.id.endswith("@cuttlefish")
    ]
    assert len(found) == len(RULES), "each pattern means one rule"
    return found


async def judged(file: str, rule: str, timeout: float = TIMEOUT) -> tuple[Result, Report]:
    """The result of one rule on a server of its own."""
    async with started(file) as url:
        report = await check_server_async(url, profile=PROFILE, only=[rule], timeout=timeout)
    return report.results[0], report


async def failures(file: str, timeout: float = TIMEOUT) -> list[tuple[Result, Report]]:
    """The rules that fail on a server. A *may* that fails is no fault."""
    places = asyncio.Semaphore(4)

    async def one(rule: str) -> tuple[Result, Report]:
        async with places:
            return await judged(file, rule, timeout)

    found = await asyncio.gather(*map(one, ids()))
    return [(result, report) for result, report in found if result.outcome is Outcome.FAILED or report.problem]


def stable(line: str) -> str:
    """A line without what differs from run to run."""
    line = re.sub(r"conform-[0-9a-f]{8}r?", "conform-1", line)
    return re.sub(r"ws://127\.0\.0\.1:\d+|\bport \d+|'127\.0\.0\.1', \d+", "the server", line)


def table(found: dict[str, list[tuple[Result, Report]]]) -> Iterator[str]:
    """The rows: rules and servers."""
    yield f"| rule | {' | '.join(f'[{name}](../examples/servers/{NAMES[name]})' for name in found)} |"
    yield "|---" * (1 + len(found)) + "|"
    for rule in ids():
        failed = {name: [one for one in results if one[0].rule.id == rule] for name, results in found.items()}
        yield f"| `{rule}` | {' | '.join(map(cell, failed.values()))} |"


def cell(failed: list[tuple[Result, Report]]) -> str:
    """A cell of the table."""
    return "" if not failed else "fails" if failed[0][1].problem is None else "fails, and ends the server"


def transcripts(found: dict[str, list[tuple[Result, Report]]]) -> Iterator[str]:
    """Each failure with its transcript."""
    yield from (
        "Failures of these servers",
        "",
        "`make conformance` writes this page. docs/conformance.md has the table.",
    )
    for name, results in found.items():
        yield from ("", f"=== {name} ===")
        for result, report in results:
            yield from ("", f"{name}: {result.rule.id}", "")
            yield from map(stable, failure_lines(result))
            if report.problem is not None:
                yield stable(f"{report.problem}")


async def main() -> None:
    """Writes the page."""
    found = {name: await failures(file) for name, file in NAMES.items()}
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = "\n".join(table(found))
    PAGE.write_text(f"{before}{BEGIN}\n{rows}\n\n{END}{after}", encoding="utf-8")
    FAILURES.write_text("\n".join(transcripts(found)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())
