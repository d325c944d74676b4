"""The log of the command line, on stderr."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from logging.handlers import RotatingFileHandler

from .._log_events import FIELDS
from ..errors import ConfigError

MAX_LINE = 2_000
"""Characters in a line. A traceback has the words of a hook, which may be those of a peer.

No setting: programs that read logs cut longer lines. A program that needs whole tracebacks has a handler of its own.
"""


class TextFormatter(logging.Formatter):
    """Formats lines of text. Characters from peers cannot move the cursor, change colours or begin a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns one line. The lines of a traceback follow it, indented."""
        record.message = record.getMessage()
        record.asctime = self.formatTime(record)
        lines = [self.formatMessage(record)]
        if record.exc_info:
            lines += [f"    {line}" for line in self.formatException(record.exc_info).split("\n")]
        return "\n".join("".join(c if c.isprintable() else _escaped(c) for c in _cut(line)) for line in lines)


def _cut(line: str) -> str:
    """The line, or its beginning and how much of it is missing."""
    return line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}... ({len(line) - MAX_LINE} more characters)"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _rfc3339(seconds: float) -> str:
    """The time in UTC, like `2026-01-31T12:00:00.125Z` (RFC 3339)."""
    time = datetime.fromtimestamp(seconds, timezone.utc)
    return time.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


class JsonFormatter(logging.Formatter):
    """Formats one JSON object per line: time, level, message, and the fields of the record."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        line = {
            "time": _rfc3339(record.created),
            "level": record.levelname.lower(),
            "message": _cut(record.getMessage()),
            **{name: record.__dict__[name] for name in FIELDS if name in record.__dict__},
        }
        if record.exc_info:
            lines = self.formatException(record.exc_info).split("\n")
            line["traceback"] = "\n".join(_cut(text) for text in lines)
        return json.dumps(line)


@contextmanager
def logging_to_stderr(level: str, form: str, file: str | None = None, size: int = 0) -> Iterator[logging.Logger]:
    """Logs to stderr until the context ends, and to a file. Raises ConfigError where it cannot be written.

    A file of `size` bytes is renamed to FILE.1, which replaces the one before.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if file:
        try:
            handlers.append(RotatingFileHandler(file, maxBytes=size, backupCount=1, encoding="utf-8"))
        except OSError as error:
            raise ConfigError("log-file", f"cannot write {file}: {error.strerror}") from None
    text = TextFormatter("%(asctime)s %(levelname)-7s %(message)s")
    logger = logging.getLogger("cuttlefish_signaling")
    before = logger.level, logger.propagate
    for handler in handlers:
        handler.setFormatter(JsonFormatter() if form == "json" else text)
        logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False
    try:
        yield logger
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
        for handler in handlers[1:]:
            handler.close()
        logger.setLevel(before[0])
        logger.propagate = before[1]
