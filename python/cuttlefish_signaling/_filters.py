"""Checks of the filters that the journal and the faults take: names, directions, ids, payload types."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from .errors import FilterError

DIRECTIONS = (
    "device->server",
    "server->device",
    "client->server",
    "server->client",
    "device->client",
    "client->device",
)

PAYLOAD_TYPES = ("request-offer", "offer", "answer", "ice-candidate", "error")
"""The payload types that real peers use (docs/protocol.md 6)."""


def check_names(given: Iterable[str], known: Collection[str]) -> None:
    """Raises FilterError for the first name that is not the name of a filter."""
    for name in given:
        if name in known:
            continue
        import difflib  # Here: it takes longer to import than the rest of this file.

        close = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise FilterError(f"unknown filter {name!r}{hint} Known filters: {', '.join(sorted(known))}")


def check_direction(direction: Any, allowed: Iterable[str] = DIRECTIONS) -> None:
    """Raises FilterError for a value that is not one of the allowed directions."""
    if direction is not None and direction not in list(allowed):
        raise FilterError(f"direction={direction!r} is not one of {', '.join(map(repr, allowed))}")


def check_ids(device: Any, client: Any) -> None:
    """Raises FilterError for a device id that is not a string, or a client id that is not a whole number."""
    if device is not None and not isinstance(device, str):
        raise FilterError(f"device={device!r} is not a device id: device ids are strings")
    if client is not None and (not isinstance(client, int) or isinstance(client, bool) or not 1 <= client < 2**31):
        raise FilterError(f"client={client!r} is not a client id: client ids are whole numbers from 1")


def check_type(wanted: Any, seen: Callable[[], Iterable[str]] = tuple) -> None:
    """Raises FilterError for an unknown payload type that looks like a known one.

    `seen` returns the payload types that the server has relayed.
    """
    if wanted is None:
        return
    if not isinstance(wanted, str):
        raise FilterError(f"type={wanted!r} is not a payload type: payload types are strings, like 'offer'")
    if wanted in PAYLOAD_TYPES:
        return
    known = {*PAYLOAD_TYPES, *seen()}
    if wanted in known:
        return
    import difflib

    close = difflib.get_close_matches(wanted, known, 1, 0.75)
    if close:
        raise FilterError(
            f"type={wanted!r} is not a known payload type; did you mean {close[0]!r}? "
            f"If {wanted!r} is right, pass check_type=False"
        )
