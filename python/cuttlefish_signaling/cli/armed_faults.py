"""The faults of a config file on a server that runs."""

from __future__ import annotations

import logging
from typing import Any

from .. import SignalingServer
from .._log import log
from ..faults import Fault
from .faults import FileFault


class ArmedFaults:
    """The faults of the file that are armed on a server. Those that hooks or other code arm are not touched."""

    def __init__(self, running: SignalingServer) -> None:
        self._running = running
        self._tables: list[dict[str, Any]] = []
        self._armed: list[Fault] = []

    def replace(self, faults: list[FileFault]) -> bool:
        """Removes the faults of before and arms these. Returns whether they are others; the same ones go on."""
        tables = [fault.table for fault in faults]
        if tables == self._tables:
            return False
        while self._armed:
            if reason := self._armed.pop()._disarm():
                log(logging.WARNING, "%s", reason, event="fault_overran", reason=reason)
        if faults:
            self._armed = [fault.made(self._running.faults).arm() for fault in faults]
            told = ", ".join(map(str, faults))
            where = " (on devices of this node alone)" if self._running._settings.given["cluster"] else ""
            text = "faults are armed, which are for tests%s: %s"
            log(logging.WARNING, text, where, told, event="faults_armed", reason=told)
        self._tables = tables
        return True
