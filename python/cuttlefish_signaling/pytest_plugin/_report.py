"""Transcripts in the reports of tests, and in files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from . import _checkpoints
from ._checkpoints import Checkpoint
from ._options import OPTIONS

MAX_NAME = 100
"""Characters of a test's name in the name of its folder."""

FORMATS = {"text": "txt", "mermaid": "mmd", "jsonl": "jsonl"}

PROPERTY = "signaling_output"
"""The property of a test that has the folder of its files, also in JUnit."""


def add(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
    """Adds the transcripts of the test's servers, unless the text of the error has them."""
    options = item.config.stash[OPTIONS]
    servers = _checkpoints.of(item)
    if options.trace != "off" and (report.failed or (options.trace == "always" and report.when == "call")):
        told = set(_told(call.excinfo.value if call.excinfo is not None else None))
        for checkpoint in servers:
            title, text = checkpoint.news()
            if text and id(checkpoint.run) not in told:
                report.sections.append((title, text))
    if options.output is not None and report.failed and servers:
        _write(item, report, options.output / folder_name(item.nodeid), servers)


def _told(error: BaseException | None) -> Iterator[int]:
    """The ids of the runs whose transcripts the texts of an exception and its causes have."""
    while error is not None:
        if (run := getattr(error, "_transcript_of", None)) is not None:
            yield id(run)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def folder_name(nodeid: str) -> str:
    """The name of a test's folder: short, of letters, digits, `.`, `_` and `-`, and different for each test."""
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", nodeid).strip("-.")[:MAX_NAME]
    return f"{safe}-{sha256(nodeid.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def _write(item: pytest.Item, report: pytest.TestReport, folder: Path, servers: list[Checkpoint]) -> None:
    """Writes the transcripts, and names the folder in the report. A write that fails is reported."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, checkpoint in enumerate(servers, 1):
            for format, suffix in FORMATS.items():
                text = checkpoint.transcript(format)
                if format == "text":
                    text = f"{checkpoint.name}\n{text}\n"
                (folder / f"server-{number}.{suffix}").write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        report.sections.append(("Signaling transcript files", f"not written, --signaling-output: {error}"))
        return
    report.sections.append(("Signaling transcript files", str(folder)))
    for properties in (item.user_properties, report.user_properties):
        if (PROPERTY, str(folder)) not in properties:
            properties.append((PROPERTY, str(folder)))
