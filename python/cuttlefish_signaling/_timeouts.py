"""The default timeout of the waits for tests, which `--signaling-timeout` replaces."""

from __future__ import annotations

from ._typing import overload


class DefaultTimeout(float):
    """The type of `DEFAULT_TIMEOUT`, which differs from a 5.0 of the caller."""


DEFAULT_TIMEOUT = DefaultTimeout(5.0)
"""The default of an argument `timeout`: 5 s, unless `replace_default` has another."""

_seconds: float = float(DEFAULT_TIMEOUT)


def replace_default(seconds: float | None) -> None:
    """Sets the seconds that `DEFAULT_TIMEOUT` stands for; None is 5 s again."""
    global _seconds
    _seconds = float(DEFAULT_TIMEOUT) if seconds is None else seconds


@overload
def seconds_of(timeout: float) -> float: ...


@overload
def seconds_of(timeout: float | None) -> float | None: ...


def seconds_of(timeout: float | None) -> float | None:
    """The seconds of an argument `timeout`."""
    return _seconds if timeout is DEFAULT_TIMEOUT else timeout
