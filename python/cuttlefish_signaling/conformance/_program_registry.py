"""The registry of the rules about programs, and their profiles."""

from __future__ import annotations

from collections.abc import Callable

from ._model import Check, Rule, Severity, Source

MUST, SHOULD, MAY = Severity.MUST, Severity.SHOULD, Severity.MAY

PROGRAM_PROFILES = {
    "spec": "the text of the protocol",
    "cuttlefish": "that, and the facts about real devices and pages in docs/protocol.md 6",
}
"""The profiles for devices and clients."""

RULES: dict[tuple[str, str], list[Rule]] = {
    (kind, name): [] for kind in ("device", "client") for name in PROGRAM_PROFILES
}
"""The rules of each kind and profile."""


def fact(number: str, sentence: str) -> Source:
    """A sentence of docs/protocol.md."""
    return Source(sentence, f"docs/protocol.md {number}")


def program_rule(id: str, title: str, source: Source, **severities: Severity) -> Callable[[Check], None]:
    """Registers a rule.

    `device` or `client` is its severity in both profiles, `cuttlefish_device` that in the profile `cuttlefish` alone.
    """
    kind = id.partition(".")[0]

    def register(check: Check) -> None:
        for profile in PROGRAM_PROFILES:
            severity = severities.get(kind)
            if profile == "cuttlefish":
                severity = severities.get(f"cuttlefish_{kind}", severity)
            if severity is None or (profile == "cuttlefish" and id in NOT_FOR_CUTTLEFISH):
                continue
            RULES[kind, profile].append(Rule(id, title, severity, source, _check=check))

    return register


NOT_FOR_CUTTLEFISH = ("device.error", "device.unknown-type")
"""Messages that a server never sends to a Cuttlefish device (docs/protocol.md 4.1.2 and 1.21)."""
