"""The logger of the package, and a way to log that cannot fail."""

from __future__ import annotations

import sys

# `logging`, and all that it imports, is needed once there is a record of a level that is wanted.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from logging import Logger
    from typing import Any

    from . import _native

DEBUG, INFO, WARNING, ERROR, CRITICAL = 10, 20, 30, 40, 50
"""The levels of `logging`."""

LEVELS = (DEBUG, INFO, WARNING, ERROR)
"""The levels of records of the core."""


def logger() -> Logger:
    """Returns the logger of the package."""
    import logging

    return logging.getLogger("cuttlefish_signaling")


def lowest_level() -> int:
    """Returns the lowest level that the logger is enabled for, without its filters and handlers; at most `CRITICAL`.

    The core is told it with each wait for events, so that records that are filtered out seldom wake Python.
    """
    logging = sys.modules.get("logging")
    if logging is None:
        return WARNING  # The level of the root logger of a program that has not set it up.
    return min(max(logger().getEffectiveLevel(), int(logging.root.manager.disable) + 1), CRITICAL)


def log(
    level: int, message: str, *arguments: Any, event: str, error: BaseException | None = None, **fields: Any
) -> None:
    """Logs a record of `_log_events.EVENTS` with its fields, and with the traceback of `error`.

    A filter or handler of the application may raise. That is reported, and ends no thread of the server.
    """
    try:
        if logger().isEnabledFor(level):
            known = {name: value for name, value in fields.items() if value is not None}
            logger().log(level, message, *arguments, exc_info=error, extra={"event": event, **known})
    except BaseException as raised:  # Also SystemExit: this thread serves others.
        report(raised)


def log_records(records: _native.LogRecords) -> list[str]:
    """Logs the records of the core. Returns the messages of errors, which are kept also if the logger wants none."""
    errors = []
    wanted = {level for level in LEVELS if _is_enabled(level)}
    for level, message, fields in records.at_least(min(wanted, default=ERROR)):
        if level >= ERROR:
            errors.append(message)
        if level in wanted:
            try:
                logger().log(level, "%s", message, extra=fields)
            except BaseException as raised:
                report(raised)
    return errors


def _is_enabled(level: int) -> bool:
    return logger().isEnabledFor(level) if "logging" in sys.modules else level >= lowest_level()


def report(error: BaseException) -> None:
    """Reports an exception that has no caller, as one that ends a thread: through `threading.excepthook`."""
    import threading
    from contextlib import suppress

    with suppress(BaseException):
        current = threading.current_thread()
        threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, current)))
