"""SIGHUP: reads all settings and their files again, and replaces those of the server that runs."""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Callable
from typing import Any

from .. import SignalingServer, StaticTokens
from .._log import log
from .._reload import reloaded
from .._settings import SETTINGS
from .._settings.reload import RESTART
from ..errors import ConfigError, NotRunningError, SignalingError
from .activation import Inherited
from .armed_faults import ArmedFaults
from .cluster import keep_cluster
from .listeners import apply_sockets, listeners
from .operator import apply_preset
from .process import Interrupted, Outcome, StopSignals
from .sources import Found, settings
from .systemd import notify

_FIXED = ["cluster", *(row.flag.key for row in SETTINGS if row.flag and row.reload == RESTART)]
"""The keys of the settings that need a restart. A cluster is replaced by one with another secret alone."""

Keywords = Callable[[Found], tuple[dict[str, Any], Callable[[], None]]]
"""Returns the arguments of `SignalingServer`, and a function that writes a new certificate."""


class Reloader:
    """Reloads the settings of one server."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        inherited: list[Inherited],
        found: Found,
        running: SignalingServer,
        keywords: Keywords,
        faults: ArmedFaults,
    ) -> None:
        self._arguments = arguments
        self._inherited = inherited
        self._found = found
        self._running = running
        self._keywords = keywords
        self._faults = faults

    def __call__(self, signals: StopSignals) -> Outcome:
        """Reloads, and logs one line: what has changed, or why all settings stay. Raises nothing.

        Returns the answer of the control API, or the error.
        """
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            changed, fixed = self._reload(signals)
            told = ", ".join(changed) or "nothing has changed"
            if fixed:
                told += f"; a restart is needed for {', '.join(fixed)}, which stay as they are"
            log(logging.INFO, "reloaded: %s", told, event="reloaded", reason=told)
            return reloaded(changed, fixed, told)
        except Interrupted:
            log(logging.WARNING, "not reloaded, since the server stops", event="reload_stopped")
            return NotRunningError("not reloaded, since the server stops")
        except NotRunningError as error:
            return error  # It has stopped meanwhile.
        except (SignalingError, RuntimeError) as error:
            text = "not reloaded, all settings stay: %s"
            log(logging.ERROR, text, error, event="reload_failed", reason=str(error))
            return error
        finally:
            signals.take()  # Hooks may have set handlers.
            notify("READY=1")

    def _reload(self, signals: StopSignals) -> tuple[list[str], list[str]]:
        """Returns the settings that have changed, and those that need a restart."""
        with signals.interruptible():
            found = settings(self._arguments, dict(os.environ))
            notices = [*found.notices, *apply_preset(found)]
            apply_sockets(found, self._inherited)
            fixed = keep_fixed(found, self._found)
            try:
                listeners(found)
                given, save_files = self._keywords(found)
                with_known_tokens(given, self._running)
                fixed += keep_cluster(given, self._running._settings.given["cluster"], found)
                reload = self._running._prepare_reload(given)
            except ConfigError as error:
                raise found.named(error) from None
            save_files()
        changed = self._running._commit(reload)
        logging.getLogger("cuttlefish_signaling").setLevel(found["log_level"].upper())
        if found["log_level"] != self._found["log_level"]:
            changed = [*changed, "log_level"]
        if self._faults.replace(found.faults):
            changed = [*changed, "faults"]
        for notice in notices:
            if notice not in self._found.notices:
                log(logging.WARNING, "%s", notice, event="setting_ignored", reason=notice)
        self._found, found.notices = found, notices
        return changed, fixed


def keep_fixed(found: Found, old: Found) -> list[str]:
    """Puts the old values of settings that need a restart back. Returns the places of those that are different."""
    different = []
    for key in _FIXED:
        if found[key] != old[key]:
            different.append(found.origin(key) if key in found.origins else old.origin(key))
        found[key] = old[key]
        found.origins.pop(key, None)
        if key in old.origins:
            found.origins[key] = old.origins[key]
    return different


def with_known_tokens(given: dict[str, Any], running: SignalingServer) -> None:
    """Keeps the hook of a token file that has the same tokens as before: it has not changed then."""
    known, new = running._settings.authorize, given.get("authorize")
    if isinstance(known, StaticTokens) and isinstance(new, StaticTokens) and known._has_same(new):
        given["authorize"] = known
