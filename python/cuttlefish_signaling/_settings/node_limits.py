"""The rows of `Limits` that are about the other nodes of a cluster."""

from __future__ import annotations

from .kinds import Integer
from .rows import MOST, count, limit

NODE_LIMITS = (
    limit(
        "max_node_dials",
        count(),
        16,
        "Connections that a node makes to one other node at a time, for its clients. Further ones wait in order.",
        "A burst of clients does not overload the other node, nor let its connections time out.",
    ),
    limit(
        "max_node_dial_queue",
        count(),
        1_024,
        "Connections to one other node that wait for their turn. With more, that node is unreachable for the client.",
        "As many as `max_opening`.",
    ),
    limit(
        "max_node_idle",
        Integer(0, MOST),
        32,
        "Connections to one other node that are kept for its next client, and as many for the next request of a client "
        "that polls.",
        "Twice as many as are made at a time.",
    ),
)
