"""Sends the state of the service to systemd (`Type=notify`, sd_notify(3)). Without systemd it does nothing."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping

from .._checks import MAX_SECONDS
from ..errors import ConfigError


def notify(state: str) -> None:
    """Sends `READY=1`, `STOPPING=1` or `WATCHDOG=1` to the socket that systemd named. A failure is ignored."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # A name in the abstract namespace.
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as systemd:
            systemd.sendto(state.encode(), address)
    except OSError:
        pass


def watchdog_interval(environment: Mapping[str, str]) -> float | None:
    """Returns the seconds between two `WATCHDOG=1`: half of `WatchdogSec=`. None without a watchdog for this process.

    Raises ConfigError.
    """
    text = environment.get("WATCHDOG_USEC", "")
    if not text or environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    if not re.fullmatch("[0-9]{1,19}", text) or int(text) == 0:
        raise ConfigError("WATCHDOG_USEC", f"{text!r} is not a number of microseconds")
    return min(int(text) / 2_000_000, MAX_SECONDS)
