"""A report as a table, as JUnit XML, as JSON and as Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

from ._model import Outcome, Report, Result, Rule, Severity

_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NOT_SHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

MARKS = {Outcome.PASSED: "ok", Outcome.FAILED: "FAILED", Outcome.SKIPPED: "skipped"}


def safe(text: str) -> str:
    """A text for a terminal: control characters of a peer are escapes."""
    return _NOT_SHOWN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def mark_of(result: Result) -> str:
    """`ok`, `FAILED` for a must, `failed` for the others, `skipped`."""
    mark = MARKS[result.outcome]
    return mark if result.is_failure or result.outcome is not Outcome.FAILED else mark.lower()


def summary(report: Report) -> str:
    """One line with the counts."""
    failed = ", ".join(
        f"{count} {severity.value}"
        for severity in Severity
        if (count := report.count(Outcome.FAILED, severity)) or severity is Severity.MUST
    )
    return (
        f"{report.kind} {report.subject}, profile {report.profile}: {report.count(Outcome.PASSED)} passed, "
        f"failed: {failed}, {report.count(Outcome.SKIPPED)} skipped"
    )


# Text -----------------------------------------------------------------------------------------------------------------


def as_table(report: Report) -> list[str]:
    """The lines of a table, with the transcript of each failure behind it."""
    if report.problem is not None and not report.results:
        return [safe(f"{report.kind} {report.subject} cannot be judged: {report.problem}")]
    width = max((len(result.rule.id) for result in report.results), default=4)
    width = min(width, 72)
    lines = [f"{'rule':<{width}}  severity  result"]
    for result in report.results:
        reason = f"  {result.reason}" if result.outcome is not Outcome.PASSED else ""
        lines.append(safe(f"{result.rule.id:<{width}}  {result.rule.severity.value:<8}  {mark_of(result)}{reason}"))
    for result in report.results:
        if result.outcome is Outcome.FAILED:
            lines += ["", *map(safe, failure_lines(result))]
    lines += ["", safe(summary(report))]
    if report.problem is not None:
        lines.append(safe(f"not judged to the end: {report.problem}"))
    return lines


def failure_lines(result: Result) -> Iterator[str]:
    """A failed rule with its source, what was expected and heard, and its transcript."""
    rule = result.rule
    yield f"{mark_of(result)}: {rule.id} ({rule.severity.value}): {rule.title}"
    yield f"  source:   {rule.source.place}: {rule.source.sentence}"
    yield f"  reason:   {result.reason} (stage: {result.stage})"
    yield f"  expected: {result.expected}"
    yield f"  heard:    {result.heard}"
    yield from (f"    {line}" for line in result.transcript)


def as_list(rules: tuple[Rule, ...]) -> list[str]:
    """The rules of `--list`, each with its source."""
    lines = []
    for rule in rules:
        lines.append(f"{rule.id}  {rule.severity.value}  {rule.title}")
        lines.append(f"    {rule.source.place}: {rule.source.sentence}")
    return [safe(line) for line in lines]


# Files ----------------------------------------------------------------------------------------------------------------


def as_json(report: Report) -> str:
    """The whole report, with all transcripts."""
    content: dict[str, Any] = {
        "subject": report.subject,
        "kind": report.kind,
        "profile": report.profile,
        "passed": report.passed,
        "exit_status": report.exit_status,
        "problem": None if report.problem is None else asdict(report.problem),
        "results": [_result(result) for result in report.results],
    }
    return json.dumps(content, indent=2) + "\n"


def _result(result: Result) -> dict[str, Any]:
    rule = result.rule
    return {
        "id": rule.id,
        "title": rule.title,
        "severity": rule.severity.value,
        "source": asdict(rule.source),
        "numbers": list(rule.numbers),
        "outcome": result.outcome.value,
        "reason": result.reason,
        "stage": result.stage,
        "expected": result.expected,
        "heard": result.heard,
        "transcript": [asdict(line) for line in result.transcript],
    }


def as_junit(report: Report) -> str:
    """One test case per rule. A failed *must* is a `failure`; a failed *should* or *may* is in `system-out`."""
    suite = ElementTree.Element(
        "testsuite",
        name=f"conform.{report.kind}.{report.profile}",
        tests=str(len(report.results) + (report.problem is not None)),
        failures=str(len(report.failures)),
        errors=str(int(report.problem is not None)),
        skipped=str(report.count(Outcome.SKIPPED)),
    )
    for result in report.results:
        _case(suite, report, result)
    if report.problem is not None:
        case = ElementTree.SubElement(suite, "testcase", classname=_class(report), name="reach")
        ElementTree.SubElement(case, "error", message=_xml(str(report.problem)), type=report.problem.stage)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _class(report: Report) -> str:
    return f"conform.{report.kind}.{report.profile}"


def _case(suite: ElementTree.Element, report: Report, result: Result) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname=_class(report), name=result.rule.id)
    text = _xml("\n".join(failure_lines(result)))
    if result.is_failure:
        ElementTree.SubElement(case, "failure", message=_xml(result.reason), type=result.stage).text = text
    elif result.outcome is Outcome.FAILED:
        ElementTree.SubElement(case, "system-out").text = text
    elif result.outcome is Outcome.SKIPPED:
        ElementTree.SubElement(case, "skipped", message=_xml(result.reason))


def _xml(text: str) -> str:
    return _NOT_XML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def as_markdown(report: Report) -> str:
    """A table, and the transcript of each failure."""
    lines = [
        f"# Conformance of {_cell(report.subject)}, profile {report.profile}",
        "",
        f"{_cell(summary(report))}.",
        "",
    ]
    if report.problem is not None:
        lines += [f"Not judged{' to the end' if report.results else ''}: {_cell(str(report.problem))}.", ""]
    if report.results:
        lines += ["| rule | severity | result | source |", "|---|---|---|---|"]
    for result in report.results:
        rule = result.rule
        lines.append(f"| `{rule.id}` | {rule.severity.value} | {mark_of(result)} | {_cell(rule.source.place)} |")
    for result in report.results:
        if result.outcome is Outcome.FAILED:
            lines += ["", f"## {result.rule.id}", "", *fenced(failure_lines(result))]
    return "\n".join(lines) + "\n"


def fenced(lines: Iterator[str]) -> list[str]:
    """Lines as a block of code, whose fence is in none of them."""
    found = [safe(line) for line in lines]
    fence = "```"
    while any(fence in line for line in found):
        fence += "`"
    return [f"{fence}text", *found, fence]


def _cell(text: str) -> str:
    return safe(text).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
