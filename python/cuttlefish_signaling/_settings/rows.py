"""Common parts of the rows of `Limits`: units, ends of ranges, and the kinds of numbers."""

from __future__ import annotations

from .kinds import Integer, Kind, Seconds
from .row import Flag, Setting

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
    return of_group(
        "limits",
        name.replace("_", "-"),
        Setting(name, kind, default, text, reason, special)._replace(is_core=name not in HOOKS),
    )


def of_group(group: str, flag: str, row: Setting) -> Setting:
    """Returns the row of a field of `Limits` or `Keepalive`, with its flag, whose help is that of the row."""
    text = row.help.removesuffix(".").replace("`", "")
    if text[1].islower() or text[1] == " ":
        text = text[0].lower() + text[1:]
    text += "".join(f"; {value.lower()}: {meaning}" for value, meaning in row.special)
    unit = "SECONDS" if isinstance(row.kind, Seconds) else "BYTES" if row.kind.values.endswith("bytes") else "NUMBER"
    return row._replace(group=group, flag=Flag(flag, text, row.default, unit, table=group))


def count(most: int = MOST) -> Integer:
    """Returns the kind of a number of things."""
    return Integer(1, most)


def size(least: int, most: int) -> Integer:
    """Returns the kind of a number of bytes."""
    return Integer(least, most, "bytes")
