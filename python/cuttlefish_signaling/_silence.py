"""The peers that the server has dropped because they were silent, for the texts of later errors."""

from __future__ import annotations

from ._query import Query

TYPE_CHECKING = False

if TYPE_CHECKING:
    from ._interfaces import ServerSource

MOST = 3
"""Peers that a text names."""


def silence_note(
    native: ServerSource, after: int = 0, *, direction: str | None = None, device: str | None = None
) -> str:
    """Names the peers that were dropped as silent, the last ones; empty if there are none.

    Without a journal it has their number.

    Args:
        native: The server.
        after: Only peers dropped behind this entry of the journal.
        direction: `"server->device"` or `"server->client"`; None is both.
        device: Only this device, or its clients.
    """
    ends = Query(direction=direction, device=device).find(native.journal, after, closed=True)
    silent = [entry for entry in ends if entry.silence is not None]
    if silent:
        words = [
            f"{'device' if entry.direction.endswith('device') else 'a client of'} {entry.device!r}, "
            f"silent for {entry.silence}"
            for entry in silent[-MOST:]
        ]
        return f"; the server dropped {' and '.join(words)}"
    count = dict(native.incidents())["silent"]
    if native.journal.count or not count or direction is not None:
        return ""
    return f"; the server dropped {count} silent connection{'s' if count > 1 else ''}"
