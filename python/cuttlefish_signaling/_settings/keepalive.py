"""The rows of `Keepalive`."""

from __future__ import annotations

from .kinds import Seconds
from .row import Setting
from .rows import of_group

KEEPALIVE = (
    of_group(
        "keepalive",
        "keepalive-interval",
        Setting(
            "interval",
            Seconds(optional=True),
            10.0,
            "Silence after which a peer is pinged.",
            "With `timeout`, a peer that hangs is noticed after 15 s.",
            special=(("None", "no pings"),),
        ),
    ),
    of_group(
        "keepalive",
        "keepalive-timeout",
        Setting(
            "timeout",
            Seconds(),
            5.0,
            "Time for the pong. Then the connection is closed.",
            "A pong takes one round trip, and a lost segment is sent again meanwhile.",
        ),
    ),
)
