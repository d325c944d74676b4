"""The log of the command line, on stderr."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler

from ..errors import ConfigError


class TextFormatter(logging.Formatter):
    """Formats lines of text. Characters from peers cannot move the cursor, change colours or begin a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns one line, or several for a traceback."""
        head, *rest = super().format(record).split("\n")
        message = record.getMessage()
        if not record.exc_info and "\n" in message:
            head, rest = "\\n".join([head, *rest]), []
        return "\n".join("".join(c if c.isprintable() else _escaped(c) for c in line) for line in [head, *rest])


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class JsonFormatter(logging.Formatter):
    """Formats one JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        line = {"time": self.formatTime(record), "level": record.levelname.lower(), "message": record.getMessage()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
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
