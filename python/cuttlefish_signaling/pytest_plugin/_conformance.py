"""`--signaling-conformance=URL`: the rules of the conformance kit as items, for which it is imported."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from ._options import OPTIONS, Options

if TYPE_CHECKING:
    from ..conformance import Problem, Result, Rule, ServerCheck

MARKER = "signaling_conformance"

COLLECTOR = "signaling-conformance"
"""The first part of the node ids."""


class RuleFailedError(Exception):
    """A *must* failed. It has the lines for the report."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(lines[0] if lines else "")
        self.lines = lines


class Conformance(pytest.Collector):
    """The rules of a profile, for one server."""

    check: ServerCheck
    _problem: Problem | None = None
    _is_reached = False

    def collect(self) -> list[pytest.Item | pytest.Collector]:
        """One item for each rule."""
        return [RuleItem.of(self, rule) for rule in self.check.rules]

    async def run(self, rule: Rule) -> Result | Problem:
        """Tries a rule. The reason why the server cannot be reached is found once."""
        from ..conformance import UnreachableError

        if not self._is_reached:
            self._is_reached = True
            try:
                await self.check.reach()
            except UnreachableError as error:
                self._problem = error.problem
        return self._problem or await self.check.run(rule)


class RuleItem(pytest.Item):
    """One rule. A failed *must* fails, a failed *should* or *may* is an expected failure."""

    rule: Rule

    @classmethod
    def of(cls, parent: Conformance, rule: Rule) -> RuleItem:
        """The item of a rule."""
        item: RuleItem = cls.from_parent(parent, name=rule.id)
        item.rule = rule
        item.add_marker(MARKER)
        item.user_properties += [("severity", rule.severity.value), ("source", rule.source.place)]
        return item

    def runtest(self) -> None:
        """Tries the rule."""
        from ..conformance import Outcome, Problem, failure_lines

        assert isinstance(self.parent, Conformance)
        result = asyncio.run(self.parent.run(self.rule))
        if isinstance(result, Problem):
            raise RuleFailedError([f"{self.parent.check.target.url} cannot be judged: {result}"])
        if result.outcome is Outcome.SKIPPED:
            pytest.skip(result.reason)
        if result.outcome is Outcome.PASSED:
            return
        lines = list(failure_lines(result))
        if result.is_failure:
            raise RuleFailedError(lines)
        self.add_report_section("call", "conformance", "\n".join(lines))
        pytest.xfail(f"{self.rule.severity.value}: {result.reason}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The source of the rule, what was expected and heard, and the transcript."""
        if isinstance(excinfo.value, RuleFailedError):
            return "\n".join(excinfo.value.lines)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[str, int | None, str]:
        """The headline of the report."""
        return COLLECTOR, None, f"{self.rule.id}: {self.rule.title}"


def add_items(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Adds the items of `--signaling-conformance`."""
    options = session.config.stash.get(OPTIONS, None)
    if options is None or options.conformance is None:
        return
    collector: Conformance = Conformance.from_parent(session, name=COLLECTOR, nodeid=COLLECTOR)
    collector.check = _check(options, options.conformance)
    # As pytest does for each collector, so that the items are counted.
    report = collector.ihook.pytest_make_collect_report(collector=collector)
    collector.ihook.pytest_collectreport(report=report)
    items += [item for item in report.result if isinstance(item, RuleItem)]


def _check(options: Options, url: str) -> ServerCheck:
    """The check of the options. Raises UsageError."""
    try:
        from ..conformance import server_check, settings_of, tls_context, token_of
    except ImportError as error:
        raise pytest.UsageError(f"--signaling-conformance: {error}") from None
    from ..errors import ConfigError

    is_tls = url.startswith(("wss:", "https:"))
    try:
        return server_check(
            url,
            profile=options.conformance_profile,
            timeout=options.timeout or 5.0,
            token=token_of(options.conformance_token, "--signaling-conformance-token"),
            tls=tls_context(str(options.ca)) if is_tls and options.ca is not None else None,
            settings=settings_of(options.conformance_settings, "--signaling-conformance-settings"),
        )
    except ConfigError as error:
        option = "" if error.setting.startswith("--signaling") else "--signaling-conformance: "
        raise pytest.UsageError(f"{option}{error}") from None
