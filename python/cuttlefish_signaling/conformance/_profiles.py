"""The profiles for servers: which rules they have, how severe each is, and which sentence asks for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from importlib.resources import files
from typing import Any

from ..errors import ConfigError
from . import _handshake_rules, _http_rules, _relay_rules  # noqa: F401  # They register their rules.
from ._cases import Case, cases
from ._conversation import check_case
from ._model import Rule, Severity, Source
from ._registry import README, REGISTRY, CodeRule, readme

MUST, SHOULD, MAY = Severity.MUST, Severity.SHOULD, Severity.MAY

PROFILES = {
    "spec": "the text of the protocol: the README of webrtc_operator",
    "reference": "webrtc_operator, the C++ server of Android's source tree",
    "operator": "the current operator: /devices/ID/connect, lists and polled clients",
    "strict": "all of docs/protocol.md of cuttlefish-signaling",
}
"""The profiles for servers, each with its source."""

DEFAULT_PROFILE = "spec"

EXACT = ("strict",)
"""Profiles that ask for the bytes, the close codes and the reasons of docs/protocol.md."""

WITH_TEXTS = ("strict", "reference", "operator")
"""Profiles that ask for the texts of errors."""

_SPEC: tuple[tuple[str, Severity, str], ...] = (
    ("register.jsonl: a device registers and gets config", MUST, "Server sends config message to Device"),
    (
        "connect.jsonl: a client connects: config, then device_info*",
        MUST,
        "Server sends config message to Client; Server sends device_info message to Client",
    ),
    (
        "forward.jsonl: a conversation, both ways and in order",
        MUST,
        "Client sends forward message; Server sends client_msg message to Device ... Server sends device_msg message",
    ),
    (
        "forward.jsonl: each client has its own id*",
        MUST,
        '{"message_type": "client_msg", "client_id": <Integer>, "payload": <Any>}',
    ),
    ("forward.jsonl: null is a payload, both ways", MUST, '{"message_type": "forward", "payload": <Any>}'),
    (
        "connect.jsonl: a client_id that a client sends is ignored*",
        SHOULD,
        "Extending the messages below with additional fields should be done with extreme care",
    ),
)
"""Cases of the profile `spec`, each with the sentence."""

_REFERENCE = (
    "register.jsonl: register without device_info*",
    "register.jsonl: register without device id",
    "register.jsonl: register with *",
    "register.jsonl: connect is not a message type of a device",
    "connect.jsonl: an unknown device*",
    "connect.jsonl: connect *",
    "connect.jsonl: forward before connect",
    "connect.jsonl: register is not a message type of a client",
    "forward.jsonl: a device forwards before it has registered",
    "forward.jsonl: client_id missing",
    "forward.jsonl: client_id a string",
    "forward.jsonl: client_id null",
    "forward.jsonl: client_id a fraction",
    "forward.jsonl: client_id past an int32",
    "forward.jsonl: no payload key*",
    "forward.jsonl: a client's forward without payload",
    "leaving.jsonl: a client leaves*",
    "leaving.jsonl: a client is cut off*",
    "leaving.jsonl: a forward to a client that has left*",
    "leaving.jsonl: one client's leaving*",
    "leaving.jsonl: client ids of another device begin at 1",
    "malformed.jsonl: *: an unknown type is answered*",
    "duplicates.jsonl: the id is free again*",
)
"""Cases of the profile `reference` beside those of `spec`: behaviour of the program that clients depend on."""

_OPERATOR = (
    "today.jsonl: a client whose request names the device*",
    "today.jsonl: each of its texts is a payload*",
    "today.jsonl: a device leaves*",
)


@dataclass(frozen=True)
class Sentences:
    """The sentences of docs/protocol.md, and the rules of each transcript case."""

    rules: dict[str, str]
    cases: dict[str, list[str]]

    def source(self, numbers: tuple[str, ...]) -> Source:
        """The source of a rule: the sentence of its most specific number."""
        if not numbers:
            return Source("behaviour that follows from no single rule", "docs/protocol.md, Further cases")
        # The tables of cases are the most specific ones.
        number = next((one for one in numbers if one[0] in "45"), numbers[-1])
        return Source(self.rules[number], f"docs/protocol.md {', '.join(numbers)}")


def sentences() -> Sentences:
    """The sentences, from the file that a script writes."""
    if _SENTENCES:
        return _SENTENCES[0]
    content: dict[str, Any] = json.loads((files(__package__) / "sentences.json").read_text(encoding="utf-8"))
    _SENTENCES.append(Sentences(content["rules"], content["cases"]))
    return _SENTENCES[0]


_SENTENCES: list[Sentences] = []


def rules_of(profile: str) -> tuple[Rule, ...]:
    """The rules of a profile for servers, in the order in which they are reported. Raises ConfigError."""
    if profile not in PROFILES:
        raise ConfigError("profile", f"must be one of {', '.join(PROFILES)}, got {profile!r}")
    if profile not in _RULES:
        found = [*_code_rules(profile), *_case_rules(profile)]
        _RULES[profile] = tuple(sorted(found, key=lambda rule: rule.risky))
    return _RULES[profile]


_RULES: dict[str, tuple[Rule, ...]] = {}


def _code_rules(profile: str) -> Iterator[Rule]:
    for one in REGISTRY:
        severities = dict(one.severities)
        if profile == "reference" and "reference" not in severities:
            severities.pop("strict")
        severity = severities.get(profile)
        if severity is not None:
            yield Rule(one.id, one.title, severity, _source(one, profile), one.numbers, one.risky, one.check)


def _source(one: CodeRule, profile: str) -> Source:
    return one.source if one.source is not None and profile != "strict" else sentences().source(one.numbers)


def _case_rules(profile: str) -> Iterator[Rule]:
    for case in cases():
        if case.is_local or (profile not in EXACT and case.column == "cuttlefish"):
            continue
        found = _severity(profile, case)
        if found is None:
            continue
        severity, source = found
        numbers = tuple(sentences().cases[case.name])
        column = " (Cuttlefish device)" if case.column == "cuttlefish" else ""
        check = partial(check_case, case=case)
        risky = "nesting" in case.title or "too large" in case.title
        yield Rule(
            case.id, f"{case.title}{column}", severity, source or sentences().source(numbers), numbers, risky, check
        )


def _severity(profile: str, case: Case) -> tuple[Severity, Source | None] | None:
    if profile == "strict":
        return MUST, None
    if profile in ("spec", "reference"):
        for pattern, severity, sentence in _SPEC:
            if fnmatchcase(case.name, _pattern(pattern)):
                return severity, readme(sentence)
    listed = {"reference": _REFERENCE, "operator": _OPERATOR}.get(profile, ())
    if any(fnmatchcase(case.name, _pattern(pattern)) for pattern in listed):
        return MUST, None
    return None


def _pattern(text: str) -> str:
    """A pattern in which `*` stands for any characters, and no other character for another one."""
    return text.replace("[", "[[]").replace("?", "[?]")


__all__ = ["DEFAULT_PROFILE", "PROFILES", "README", "rules_of", "sentences"]
