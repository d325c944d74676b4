"""The rules about programs, of each profile."""

from __future__ import annotations

from ..errors import ConfigError
from . import _client_rules, _device_rules, _device_rules_end  # noqa: F401  # They register their rules.
from ._model import Rule
from ._program_registry import PROGRAM_PROFILES, RULES


def program_rules_of(kind: str, profile: str) -> tuple[Rule, ...]:
    """The rules for a device or a client. Raises ConfigError."""
    if profile not in PROGRAM_PROFILES:
        raise ConfigError("profile", f"must be one of {', '.join(PROGRAM_PROFILES)}, got {profile!r}")
    return tuple(RULES[kind, profile])


__all__ = ["PROGRAM_PROFILES", "program_rules_of"]
