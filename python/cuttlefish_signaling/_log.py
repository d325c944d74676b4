"""The logger of the package, and a way to log that cannot fail."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import _native

LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
"""The levels of records of the core."""

logger = logging.getLogger("cuttlefish_signaling")


def lowest_level() -> int:
    """Returns the lowest level that the logger is enabled for, without its filters and handlers; at most `CRITICAL`.

    The core is told it with each wait for events, so that records that are filtered out seldom wake Python.
    """
    return min(max(logger.getEffectiveLevel(), logging.root.manager.disable + 1), logging.CRITICAL)


def log(
    level: int, message: str, *arguments: Any, event: str, error: BaseException | None = None, **fields: Any
) -> None:
    """Logs a record of `_log_events.EVENTS` with its fields, and with the traceback of `error`.

    A filter or handler of the application may raise. That is reported, and ends no thread of the server.
    """
    try:
        if logger.isEnabledFor(level):
            known = {name: value for name, value in fields.items() if value is not None}
            logger.log(level, message, *arguments, exc_info=error, extra={"event": event, **known})
    except BaseException as raised:  # Also SystemExit: this thread serves others.
        report(raised)


def log_records(records: _native.LogRecords) -> list[str]:
    """Logs the records of the core. Returns the messages of errors, which are kept also if the logger wants none."""
    errors = []
    wanted = {level for level in LEVELS if logger.isEnabledFor(level)}
    for level, message, fields in records.at_least(min(wanted, default=logging.ERROR)):
        if level >= logging.ERROR:
            errors.append(message)
        if level in wanted:
            try:
                logger.log(level, "%s", message, extra=fields)
            except BaseException as raised:
                report(raised)
    return errors


def report(error: BaseException) -> None:
    """Reports an exception that has no caller, as one that ends a thread: through `threading.excepthook`."""
    with suppress(BaseException):
        current = threading.current_thread()
        threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, current)))
