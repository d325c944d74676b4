"""The rows of `Limits` and `Keepalive`."""

from __future__ import annotations

from .kinds import Integer, Kind, Seconds
from .row import Setting

MOST = 2**20
"""The most connections, peers or messages."""
MOST_OF_A_MESSAGE = 64 * 2**20
MOST_KEPT = 2**30
"""The most bytes of messages that the server keeps at one place."""
MOST_A_SECOND = 2**32 - 1
KIB = 1024
MIB = 1024 * 1024


HOOKS = ("hook_threads", "hook_queue")
"""The bounds on calls of hooks. The bindings read them, and the core has none."""


def _limit(name: str, kind: Kind, default: float | None, text: str, reason: str = "") -> Setting:
    special = (("None", "no limit"),) if kind.annotation == "float | None" else ()
    return Setting(name, kind, default, text, reason, special, group="limits", is_core=name not in HOOKS)


def _count(most: int = MOST) -> Integer:
    return Integer(1, most)


def _bytes(least: int, most: int) -> Integer:
    return Integer(least, most, "bytes")


_RATE = Integer(1, MOST_A_SECOND, "a second")
_BURST = Integer(1, MOST_A_SECOND)

LIMITS = (
    _limit(
        "max_message_size",
        _bytes(128, MOST_OF_A_MESSAGE),
        256 * KIB,
        "The size of a message, with all its fragments. A peer that sends a larger one is closed [1009].",
        "It is four times the size that a device can be sent, so that the client gets an error for a forward that is "
        "only too large for the device, and keeps its connection.",
    ),
    _limit(
        "max_first_message",
        _bytes(128, MOST_OF_A_MESSAGE),
        64 * KIB,
        "The size of a message from a peer that has not registered or connected yet. A peer that sends a larger one is "
        "closed [1009].",
        "A device could not be sent more.",
    ),
    _limit(
        "max_connections",
        _count(),
        16_384,
        "Connections at a time. Beyond it requests are answered with 503.",
        "Room for ten thousand devices and their clients; an idle connection takes 4 KiB.",
    ),
    _limit(
        "max_connections_per_address",
        _count(),
        512,
        "Connections at a time from one address, except loopback. Beyond it requests are answered with 503.",
        "Room for a lab behind one address.",
    ),
    _limit(
        "new_per_second",
        _RATE,
        30_000,
        "New connections per second, and at once. Beyond it requests are answered with 503.",
        "It is twice the number that one core can open.",
    ),
    _limit(
        "max_opening",
        _count(),
        1_024,
        "Connections that have not sent a complete request yet. Beyond it a connection that has been silent for "
        "`opening_silence` is closed; if there is none, new connections wait until they are accepted.",
        "Real peers take milliseconds.",
    ),
    _limit(
        "opening_silence",
        Seconds(),
        3.0,
        "Silence after which a connection that has not sent a complete request may be closed for another one.",
        "A lost segment is sent again within that time.",
    ),
    _limit(
        "max_handshakes",
        _count(),
        64,
        "TLS handshakes at a time. Further ones wait, in the order of their arrival.",
        "They keep the processor busy, and those that have begun are soon done.",
    ),
    _limit(
        "handshake_turn",
        Seconds(),
        0.1,
        "Time after which the next TLS handshake begins beside one that is not done.",
        "Slow peers hold up no others.",
    ),
    _limit(
        "max_device_socket_connections",
        _count(),
        16_384,
        "Connections to the device socket at a time. Further ones are closed.",
    ),
    _limit(
        "max_control_connections",
        _count(),
        256,
        "Connections to the control socket at a time. Further ones are closed.",
        "Each start of devices holds one.",
    ),
    _limit(
        "refusals_logged_per_second",
        _RATE,
        10,
        "Log lines about refused requests and closed peers, per second and at once. A later line tells how many were "
        "left out.",
        "A stranger causes one with each request.",
    ),
    _limit("max_devices", _count(), 16_384, "Devices at a time. Beyond it requests are answered with 503."),
    _limit(
        "max_device_id",
        _bytes(1, 64 * KIB),
        256,
        "The length of a device id, and of the names of a pre-registration. A device with a longer id is refused "
        "[1008].",
    ),
    _limit(
        "max_clients_per_device",
        _count(),
        1_024,
        "Clients of one device at a time. One more client is closed [1013].",
        "One address (except loopback), one identity and one HTTP connection hold at most half of them.",
    ),
    _limit(
        "message_per_second",
        _RATE,
        10_000,
        "Messages that one peer may send per second. A peer that sends more is closed [1008].",
        "No session comes near it, and one peer cannot use up a core.",
    ),
    _limit("message_burst", _BURST, 20_000, "Messages that one peer may send at once."),
    _limit(
        "byte_per_second",
        _RATE,
        16 * MIB,
        "Bytes that one peer may send per second, as they come over the network. A peer that sends more is closed "
        "[1008].",
    ),
    _limit("byte_burst", _BURST, 32 * MIB, "Bytes that one peer may send at once."),
    _limit(
        "error_per_second",
        _RATE,
        20,
        "Errors per second that one peer may cause. A peer that causes more is closed [1008].",
    ),
    _limit("error_burst", _BURST, 100, "Errors that one peer may cause at once."),
    _limit(
        "ping_per_second",
        _RATE,
        20,
        "Pings and pongs that one peer may send per second. A peer that sends more is closed [1008].",
        "Real peers ping every 3 s.",
    ),
    _limit("ping_burst", _BURST, 100, "Pings and pongs that one peer may send at once."),
    _limit(
        "write_timeout",
        Seconds(),
        10.0,
        "Time in which a peer must read some of the bytes that are written to it. Then it is closed [1013].",
    ),
    _limit(
        "outbox_messages",
        _count(),
        256,
        "Messages that may wait to be written to one peer. With one more the peer is closed [1013].",
        "A session has a few dozen messages.",
    ),
    _limit(
        "outbox_bytes",
        _bytes(64 * KIB, MOST_KEPT),
        1 * MIB,
        "Bytes of messages that may wait to be written to one peer. With more the peer is closed [1013].",
    ),
    _limit(
        "first_message_timeout",
        Seconds(optional=True),
        10.0,
        "Time for a peer to register or connect.",
    ),
    _limit("request_head_timeout", Seconds(), 5.0, "Time for a peer to send the head of a request."),
    _limit("max_headers", _count(4096), 64, "Headers of a request.", "Browsers send about 20."),
    _limit("max_request_head", _bytes(8 * KIB, 1 * MIB), 16 * KIB, "The size of the head of a request."),
    _limit("tls_handshake_timeout", Seconds(), 5.0, "Time for a TLS handshake."),
    _limit(
        "probe_timeout",
        Seconds(),
        2.0,
        "Time for the holder of a device id to answer a ping, when another device registers the id.",
        "A device registers again 1 s after it lost its connection.",
    ),
    _limit(
        "close_timeout",
        Seconds(),
        5.0,
        "Time allowed to flush queued messages and to complete the closing handshake.",
    ),
    _limit(
        "journal_entries",
        _count(2**24),
        10_000,
        "Entries that a journal keeps. Beyond it the oldest entries are dropped.",
        "Room for hundreds of sessions.",
    ),
    _limit("journal_bytes", _bytes(1, MOST_KEPT), 16 * MIB, "Bytes of messages that a journal keeps."),
    _limit(
        "held_by_faults",
        _count(),
        10_000,
        "Forwards that faults may hold back at a time. Further ones are relayed at once, and the fault counts them.",
    ),
    _limit(
        "polled_timeout",
        Seconds(),
        30.0,
        "Time without a request after which a polling client has left, and the longest wait of one of its requests.",
    ),
    _limit(
        "max_polled",
        _count(),
        1_024,
        "Polling clients at a time. Beyond it requests are answered with 503.",
        "Each may keep twice the messages of an outbox.",
    ),
    _limit(
        "max_viewers",
        _count(),
        32,
        "Open dashboard pages at a time. Beyond it requests are answered with 503.",
        "Each page is sent the changes four times a second.",
    ),
    _limit(
        "max_viewers_per_address",
        _count(),
        16,
        "Open dashboard pages at a time from one address, except loopback; of IPv6, from one subnet of 64 bits. Beyond "
        "it requests are answered with 503.",
        "One address does not take all of them.",
    ),
    _limit(
        "viewer_bytes",
        _bytes(64 * KIB, MOST_KEPT),
        1 * MIB,
        "Bytes of one event for a dashboard page. Rows beyond it are left out.",
        "A page that does not read has at most two updates waiting.",
    ),
    _limit(
        "request_per_second",
        _RATE,
        1_000,
        "HTTP requests per second of one connection. Beyond it requests are answered with 429.",
        "A client that waits for each answer does not come near it.",
    ),
    _limit("request_burst", _BURST, 2_000, "HTTP requests that one connection may send at once."),
    _limit(
        "address_request_per_second",
        _RATE,
        2_000,
        "HTTP requests per second from one address, except loopback; of IPv6, from one subnet of 64 bits. Upgrades to "
        "a WebSocket, `GET /healthz` and `GET /readyz` do not count. Beyond it requests are answered with 429.",
        "Room for a lab behind one address, with hundreds of polling clients.",
    ),
    _limit("address_request_burst", _BURST, 4_000, "HTTP requests that one address may send at once."),
    _limit(
        "proxy_timeout",
        Seconds(),
        10.0,
        "Time for a device's own web server to begin its answer, and between two parts of it.",
    ),
    _limit(
        "max_adb",
        _count(),
        64,
        "adb connections at a time. One more client is closed [1013].",
        "Each takes some 100 KiB, and more while a large message comes in.",
    ),
    _limit(
        "max_adb_message",
        _bytes(128, MOST_OF_A_MESSAGE),
        2 * MIB,
        "The size of a client's message on `/devices/ID/adb`. A client that sends a larger one is closed [1009].",
        "The longest packet of adb has 1 MiB and 24 bytes, and a client may send it as one message.",
    ),
    _limit(
        "adb_timeout",
        Seconds(),
        30.0,
        "Time for a device's adb port to accept a connection, and to take some of the bytes that wait for it. Then the "
        "client is closed [1013].",
    ),
    _limit(
        "goodbye_timeout",
        Seconds(),
        0.25,
        "Time for a peer to answer the close frame of a server that stops.",
        "`stop()` waits for it.",
    ),
    _limit(
        "hook_threads",
        _count(1024),
        32,
        "Threads that run `def` hooks. They are started when they are needed; calls that find no free thread wait, and "
        "`hook_timeout` includes the wait.",
        "A `def` hook that hangs keeps its thread forever, also when its time is over; use `async def` for a hook that "
        "may hang.",
    ),
    _limit(
        "hook_queue",
        _count(),
        4_096,
        "Calls of hooks that wait for a free thread. Beyond it a call fails at once.",
        "`def` hooks of 50 ms on 32 threads answer 3,200 calls within `hook_timeout`; a call whose peer has left or "
        "whose time is over does not wait.",
    ),
)

KEEPALIVE = (
    Setting(
        "interval",
        Seconds(optional=True),
        10.0,
        "Silence after which a peer is pinged.",
        special=(("None", "no pings"),),
        group="keepalive",
    ),
    Setting("timeout", Seconds(), 5.0, "Time for the pong. Then the connection is closed.", group="keepalive"),
)
