"""Output of the command line. A full disk, a closed pipe or one that is not read does not end the server.

Each call is one write: a line of the log, which another thread writes, does not come in the middle of a line.
"""

from __future__ import annotations

import os
import select
import sys

from ..errors import SignalingError

PROGRAM = "cuttlefish-signaling"


class OutputError(SignalingError):
    """stdout does not take what the command prints."""


def print_answer(*lines: str) -> None:
    """Prints what the command was run for. Raises OutputError."""
    if reason := _print("\n".join(lines)):
        raise OutputError(f"cannot write to stdout: {reason}")


def print_if_possible(*lines: str) -> str | None:
    """Prints lines if that does not wait for a reader. Returns the reason where they cannot be written."""
    if not _has_room(sys.stdout):
        return "its pipe is full and is not read"
    return _print("\n".join(lines))


def print_to_stderr(text: str) -> None:
    """Prints a line to stderr, after the name of the program."""
    # As one text with its newline: Python without buffers (`PYTHONUNBUFFERED`) writes each text of a print by itself.
    print(f"{PROGRAM}: {text}\n", end="", file=sys.stderr)


def open_standard_streams() -> None:
    """Opens /dev/null in the place of standard streams that are closed. A socket would get their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # The lowest number that is free.


def flush_output() -> None:
    """Writes what is left of stdout, or gives it up. The end of the interpreter would fail there, with status 120."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        discard_output()


def discard_output() -> None:
    """Sends stdout to /dev/null. The end of the interpreter writes what is left, and fails where that fails."""
    if sys.__stdout__ is not None and sys.stdout is sys.__stdout__:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.__stdout__.fileno())
        os.close(null)


def last_words(text: str) -> None:
    """Writes a line to stderr, unless that would wait. For the moment before the process is ended."""
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    try:
        if poll.poll(0):
            os.write(2, f"{PROGRAM}: {text}\n".encode())
    except OSError:
        pass  # stderr is closed.


def _print(text: str) -> str | None:
    try:
        print(f"{text}\n" if text and not text.endswith("\n") else text, end="", flush=True)
    except (OSError, ValueError) as error:
        discard_output()
        return getattr(error, "strerror", None) or str(error)
    return None


def _has_room(stream: object) -> bool:
    """Whether a write of a few lines does not wait. A pipe that can be written to has room for 4 KiB."""
    try:
        number = stream.fileno()  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return True  # No stream of the system.
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    return bool(poll.poll(0))
