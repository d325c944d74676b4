"""The rows of `Limits` about messages that wait for a peer."""

from __future__ import annotations

from .kinds import Seconds
from .rows import KIB, MIB, MOST_KEPT, count, limit, size

BACKPRESSURE = (
    limit(
        "outbox_bytes",
        size(128, MOST_KEPT),
        4 * MIB,
        "Bytes of messages that may wait for one client, and of the server's own for one device; each message counts "
        "128 more. Above it they are taken from `outbox_budget`. At least `max_message_size`.",
        "Room for the offers and candidates of a hundred sessions.",
    ),
    limit(
        "outbox_budget",
        size(0, MOST_KEPT),
        256 * MIB,
        "Bytes that may wait for all peers together above their `outbox_bytes`. When it is spent, the client with the "
        "oldest unsent message is closed [1013].",
        "A burst for hundreds of clients, beside devices of several GiB.",
    ),
    limit(
        "borrow_timeout",
        Seconds(),
        1.0,
        "Time in which a peer above its `outbox_bytes` must read some of the bytes that are written to it. Then it is "
        "closed [1013].",
        "Shorter than `write_timeout`: meanwhile the peer takes memory that belongs to all.",
    ),
    limit(
        "max_message_age",
        Seconds(),
        60.0,
        "Age of the oldest message that waits for a peer. Then the peer is closed [1013].",
        "WebRTC gives up earlier.",
    ),
    limit(
        "device_high_water",
        size(1, MOST_KEPT),
        1 * MIB,
        "Bytes of messages of clients that wait for one device, from which on its clients are not read.",
        "A device that reads empties it within milliseconds.",
    ),
    limit(
        "device_low_water",
        size(0, MOST_KEPT),
        512 * KIB,
        "Bytes of these messages at which the clients are read again. At most `device_high_water`.",
        "The device does not wait for its clients meanwhile.",
    ),
    limit(
        "client_window_bytes",
        size(1, MOST_KEPT),
        64 * KIB,
        "Bytes of messages of one client that wait for its device, from which on this client is not read.",
        "The longest message of a device. Other clients wait behind no more of it.",
    ),
    limit(
        "client_window_messages",
        count(),
        64,
        "Number of these messages, from which on this client is not read.",
        "A session has a few dozen messages.",
    ),
    limit(
        "held_bytes",
        size(1, MOST_KEPT),
        1 * MIB,
        "Bytes of messages of one peer that wait for a hook, each with 128 more. From then on this peer is not read.",
        "Four of the largest messages.",
    ),
)
