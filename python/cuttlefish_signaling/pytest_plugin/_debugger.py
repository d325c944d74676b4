"""The servers while a debugger holds a test: their clocks stand, so that no peer is dropped as silent."""

from __future__ import annotations

import sys
from typing import Any

_frozen: list[Any] = []
"""The clocks that this module has frozen."""


def rest() -> None:
    """Freezes the clock of each server of this process that runs and whose clock a test has not frozen."""
    lifecycle = sys.modules.get(f"{__package__.rpartition('.')[0]}._lifecycle")
    for server in [] if lifecycle is None else list(lifecycle._alive):
        if server.is_running and not server.clock.is_frozen:
            _frozen.append(server.clock.freeze())


def go_on() -> None:
    """Lets these clocks run again."""
    while _frozen:
        _frozen.pop().resume()
