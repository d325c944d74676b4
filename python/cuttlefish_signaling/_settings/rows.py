"""Common parts of the rows of `Limits`: units, ends of ranges, and the kinds of numbers."""

from __future__ import annotations

from .kinds import Integer, Kind
from .row import Setting

MOST = 2**20
"""The most connections, peers or messages."""
MOST_OF_A_MESSAGE = 64 * 2**20
MOST_KEPT = 2**30
"""The most bytes of messages that the server keeps at one place."""
MOST_A_SECOND = 2**32 - 1
KIB = 1024
MIB = 1024 * 1024


HOOKS = ("hook_threads", "hook_queue")
"""The bounds on calls of hooks. The bindings read them, and the core has none."""


def limit(name: str, kind: Kind, default: float | None, text: str, reason: str = "") -> Setting:
    """Returns the row of a field of `Limits`."""
    special = (("None", "no limit"),) if kind.annotation == "float | None" else ()
    return Setting(name, kind, default, text, reason, special, group="limits", is_core=name not in HOOKS)


def count(most: int = MOST) -> Integer:
    """Returns the kind of a number of things."""
    return Integer(1, most)


def size(least: int, most: int) -> Integer:
    """Returns the kind of a number of bytes."""
    return Integer(least, most, "bytes")
