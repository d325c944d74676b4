"""The rules that are written as code, since no transcript can express them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ._model import Check, Severity, Source

MUST, SHOULD, MAY = Severity.MUST, Severity.SHOULD, Severity.MAY

README = "README of webrtc_operator"
"""The place of the sentences of the protocol's own text."""


def readme(sentence: str) -> Source:
    """A sentence of the protocol's own text."""
    return Source(sentence, README)


def rfc(section: str, sentence: str) -> Source:
    """A sentence of RFC 6455."""
    return Source(sentence, f"RFC 6455, section {section}")


@dataclass(frozen=True)
class CodeRule:
    """A rule with its function."""

    id: str
    title: str
    numbers: tuple[str, ...]
    severities: Mapping[str, Severity]
    source: Source | None
    """The source in profiles that do not cite docs/protocol.md."""
    risky: bool
    check: Check


REGISTRY: list[CodeRule] = []
"""All of them, in the order of their definition."""


def code_rule(
    id: str,
    title: str,
    *numbers: str,
    source: Source | None = None,
    risky: bool = False,
    strict: Severity = MUST,
    **severities: Severity,
) -> Callable[[Check], None]:
    """Registers a rule. It belongs to `strict`, and to each profile that is named."""

    def register(check: Check) -> None:
        REGISTRY.append(CodeRule(id, title, numbers, {"strict": strict, **severities}, source, risky, check))

    return register
