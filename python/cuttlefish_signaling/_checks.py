"""Checks that settings and arguments share. Each raises ConfigError, which names the setting."""

from __future__ import annotations

import sys

from .errors import ConfigError

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

MAX_SECONDS = 10**9
"""The longest time that a setting may have, about 30 years."""

MOST_TOKEN = 2**20
"""The most bytes of a JSON Web Token that a server can be set to accept."""

MOST_KEYS = 10_000
"""The most keys of its issuers."""

MAX_FLOAT = sys.float_info.max


def names(setting: str, value: Any) -> tuple[str, ...]:
    """Returns a list of strings as a tuple. Raises ConfigError for any other value."""
    from collections.abc import Iterable

    from . import _native

    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigError(setting, f"must be a list of strings, got {value!r}")
    found = tuple(value)
    for name in found:
        if not isinstance(name, str):
            raise ConfigError(setting, f"must be a list of strings, got {name!r} in it")
        check_text(setting, name)
        if not name or name != name.strip():
            raise ConfigError(setting, f"{name!r} is empty or has spaces around it; write it without")
        if setting in ("allowed_hosts", "allowed_origins") and (fault := _native.allowance_fault(setting, name)):
            raise ConfigError(setting, f"{name!r} {fault}")
    if setting.endswith("advertise_address") and (fault := _native.address_rules_fault(list(found))):
        raise ConfigError(setting, fault)
    return found


def check_integer(setting: str, value: Any, least: int, most: int) -> None:
    """Raises ConfigError for a value that is not a whole number in the range."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(setting, f"must be a whole number, got {value!r}")
    if not least <= value <= most:
        raise ConfigError(setting, f"must be between {least} and {most}, got {value}")


def check_seconds(
    setting: str, value: Any, *, optional: bool = False, zero: bool = True, unit: str = "seconds"
) -> None:
    """Raises ConfigError for a value that is not a number of seconds, or of another unit."""
    if value is None and optional:
        return
    wanted = f"a number of {unit}{' or None' if optional else ''}"
    if not isinstance(value, int | float) or isinstance(value, bool) or value != value:
        raise ConfigError(setting, f"must be {wanted}, got {value!r}")
    if value < 0 or (value == 0 and not zero):
        raise ConfigError(setting, f"must be {wanted}, {'0 or more' if zero else 'more than 0'}, got {value}")
    if value > MAX_SECONDS:
        raise ConfigError(setting, f"must be {wanted}, at most {MAX_SECONDS}, got {value}")


def check_number(setting: str, value: Any) -> None:
    """Raises ConfigError for a value that is not a number, or not finite."""
    if not isinstance(value, int | float) or isinstance(value, bool) or value != value or abs(value) > MAX_FLOAT:
        raise ConfigError(setting, f"must be a number, got {value!r}")


def check_text(setting: str, value: Any, *, optional: bool = False, is_secret: bool = False) -> None:
    """Raises ConfigError for a value that is not a string, or cannot be sent. A secret is not shown."""
    if value is None and optional:
        return
    wanted = f"must be a string{' or None' if optional else ''}"
    if not isinstance(value, str):
        raise ConfigError(
            setting, f"{wanted}, got {f'a value of type {type(value).__name__}' if is_secret else repr(value)}"
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        shown = "a string" if is_secret else repr(value)
        raise ConfigError(
            setting, f"{wanted}, got {shown} with half of a surrogate pair, which UTF-8 cannot have"
        ) from None
