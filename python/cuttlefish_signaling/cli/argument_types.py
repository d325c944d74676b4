"""Types of arguments that several commands have."""

from __future__ import annotations

import argparse

from .._settings.kinds import Seconds


def seconds(text: str) -> float:
    """Returns a number of seconds. Raises ArgumentTypeError unless it is more than 0, at most 3600."""
    try:
        found = Seconds().parse(text)
    except ValueError:
        found = None
    if found is None or found > 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, more than 0, at most 3600")
    return found
