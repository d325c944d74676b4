"""Texts of peers, made safe for output: no control characters, bounded, and without the secrets of the probe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ._report import Finding, Step

MOST = 200
"""Characters of a text of a peer that are shown. No setting: it bounds a line of output."""

MOST_LISTED = 8
"""Entries of a list that are shown in a line."""


def shown(text: str) -> str:
    """Returns a text of a peer with escapes in the place of control characters, cut if it is long."""
    cut = text if len(text) <= MOST else f"{text[:MOST]}..."
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)


def listed(names: Iterable[str]) -> str:
    """Returns a list of names in a line, cut if there are many."""
    all_names = [shown(name) for name in names]
    rest = len(all_names) - MOST_LISTED
    return ", ".join(all_names[:MOST_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def without_secrets(step: Step, secrets: Iterable[str]) -> Step:
    """Returns a step without these texts. A server may quote a token that it was sent."""
    known = sorted({secret for secret in secrets if secret}, key=len, reverse=True)

    def hide(value: Any) -> Any:
        if isinstance(value, str):
            for secret in known:
                value = value.replace(secret, "[secret]")
            return value
        if isinstance(value, Mapping):
            return {key: hide(item) for key, item in value.items()}  # The keys are our own.
        if isinstance(value, list | tuple):
            return [hide(item) for item in value]
        return value

    findings = tuple(Finding(one.cause, hide(one.text), hide(one.fix), one.is_error) for one in step.findings)
    return replace(step, text=hide(step.text), facts=hide(dict(step.facts)), findings=findings)
