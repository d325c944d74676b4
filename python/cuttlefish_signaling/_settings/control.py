"""The rows of the bounds of the control API, and of the audit log."""

from __future__ import annotations

from .audit import AUDIT_LIMITS
from .kinds import Seconds
from .rows import KIB, MIB, MOST_KEPT, count, limit, size

CONTROL_LIMITS = (
    limit(
        "max_control_api_connections",
        count(),
        64,
        "Connections to the control API at a time. Beyond it requests are answered with 503.",
        "Test runs and commands hold a few each.",
    ),
    limit(
        "max_control_api_requests",
        count(),
        64,
        "Requests to the control API at a time, waits and streams included. Beyond it they are answered with 503.",
        "As many as connections.",
    ),
    limit(
        "control_api_wait",
        Seconds(),
        60.0,
        "The longest wait of a request to the control API; longer ones are cut to it.",
        "Clients and proxies often end a request that takes longer.",
    ),
    limit(
        "control_api_body",
        size(1 * KIB, 1 * MIB),
        64 * KIB,
        "The body of a request to the control API. A longer one is answered with 413.",
        "A list of ICE servers takes a few hundred bytes.",
    ),
    limit(
        "control_api_page",
        size(64 * KIB, MOST_KEPT),
        4 * MIB,
        "Length after which an answer of the control API ends, and the next request goes on. One entry may be longer.",
        "The default bounds the memory of a few readers of a long journal.",
    ),
    *AUDIT_LIMITS,
)
