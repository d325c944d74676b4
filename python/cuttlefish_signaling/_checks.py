"""Checks that settings and arguments share. Each raises ConfigError, which names the setting."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from .errors import ConfigError


def names(setting: str, value: Any) -> tuple[str, ...]:
    """Returns a list of strings as a tuple. Raises ConfigError for any other value."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigError(setting, f"must be a list of strings, got {value!r}")
    found = tuple(value)
    for name in found:
        if not isinstance(name, str) or not name or name != name.strip():
            raise ConfigError(setting, f"must be a list of strings, got {name!r} in it")
        if setting == "allowed_hosts" and ("/" in name or (":" in name and not name.startswith("["))):
            raise ConfigError(setting, f"{name!r} is no host name; without scheme and port, please")
        if setting == "allowed_origins" and name != "*" and name != "null" and "://" not in name:
            raise ConfigError(setting, f"{name!r} is no origin, like https://panel.lab")
    return found


def check_integer(setting: str, value: Any, least: int, most: int) -> None:
    """Raises ConfigError for a value that is not a whole number in the range."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(setting, f"must be a whole number, got {value!r}")
    if not least <= value <= most:
        raise ConfigError(setting, f"must be between {least} and {most}, got {value}")


def check_seconds(setting: str, value: Any, *, optional: bool = False, zero: bool = True) -> None:
    """Raises ConfigError for a value that is not a number of seconds."""
    if value is None and optional:
        return
    wanted = f"a number of seconds{' or None' if optional else ''}"
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ConfigError(setting, f"must be {wanted}, got {value!r}")
    if value < 0 or (value == 0 and not zero) or value > 10**9:
        raise ConfigError(setting, f"must be {wanted}, {'0 or' if zero else 'and'} more than 0, got {value}")
