"""Environment variables that look like settings and are none."""

from __future__ import annotations

import re
from difflib import get_close_matches

from .._settings import ENVIRONMENT, FLAGS

KNOWN = {flag.variable for flag in FLAGS} | {f"{ENVIRONMENT}{name}" for name in ("CONFIG", "URL", "CA", "CONTROL")}
"""The variables of `serve`, and those that tell clients and the pytest plugin its URL, authority and control API."""

_OF_A_SERVICE = re.compile(
    r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)", re.ASCII
)
"""The ends of variables that Kubernetes sets in each container of the namespace of a service."""


def understood(environment: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Returns the environment without the variables that are no settings, and a line for the log about them.

    Kubernetes sets variables for each service, like `CUTTLEFISH_SIGNALING_PORT=tcp://10.0.0.1:8443` for the service
    `cuttlefish-signaling`.
    """
    kept, services, notices = {}, [], []
    for name, text in environment.items():
        if not name.startswith(ENVIRONMENT):
            kept[name] = text
        elif is_of_a_service(name, text):
            services.append(name)
        elif name in KNOWN:
            kept[name] = text
        else:
            near = get_close_matches(name, KNOWN, n=1)
            meant = f"; the nearest one is {near[0]}" if near else "; docs/settings.md lists all variables"
            notices.append(f"{name} is not a setting and has no effect{meant}")
    if services:
        names = ", ".join(sorted(services))
        notices.append(f"ignored variables that Kubernetes sets for a service (enableServiceLinks): {names}")
    return kept, notices


def is_of_a_service(name: str, text: str) -> bool:
    """Whether Kubernetes has set this variable for a service."""
    rest = name.removeprefix(ENVIRONMENT)
    if _OF_A_SERVICE.fullmatch(rest):
        return True
    return re.fullmatch(r"(\w+_)?PORT", rest) is not None and re.match(r"(tcp|udp|sctp)://", text) is not None
