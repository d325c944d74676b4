"""The logger of the package, and a way to log that cannot fail."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import Any

logger = logging.getLogger("cuttlefish_signaling")


def lowest_level() -> int:
    """Returns the lowest level that the logger is enabled for, without its filters and handlers; at most `CRITICAL`.

    The core is told it with each wait for events, so that records that are filtered out seldom wake Python.
    """
    return min(max(logger.getEffectiveLevel(), logging.root.manager.disable + 1), logging.CRITICAL)


def log(level: int, message: str, *arguments: Any, error: BaseException | None = None) -> None:
    """Logs a record, with the traceback of `error`.

    A filter or handler of the application may raise. That is reported, and ends no thread of the server.
    """
    try:
        if logger.isEnabledFor(level):
            logger.log(level, message, *arguments, exc_info=error)
    except BaseException as raised:  # Also SystemExit: this thread serves others.
        report(raised)


def report(error: BaseException) -> None:
    """Reports an exception that has no caller, as one that ends a thread: through `threading.excepthook`."""
    with suppress(BaseException):
        current = threading.current_thread()
        threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, current)))
