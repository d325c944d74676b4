"""The rows of `Limits`."""

from __future__ import annotations

from .backpressure import BACKPRESSURE
from .control import CONTROL_LIMITS
from .kinds import Integer, Seconds
from .node_limits import NODE_LIMITS
from .rows import KIB, MIB, MOST_A_SECOND, MOST_KEPT, MOST_OF_A_MESSAGE, count, limit, size

_RATE = Integer(1, MOST_A_SECOND, "a second")
_BURST = Integer(1, MOST_A_SECOND)

LIMITS = (
    limit(
        "max_message_size",
        size(128, MOST_OF_A_MESSAGE),
        256 * KIB,
        "The size of a message, with all its fragments. A peer that sends a larger one is closed [1009].",
        "It is four times the size that a device can be sent, so that the client gets an error for a forward that is "
        "only too large for the device, and keeps its connection.",
    ),
    limit(
        "max_first_message",
        size(128, MOST_OF_A_MESSAGE),
        64 * KIB,
        "The size of a message from a peer that has not registered or connected yet. A larger one closes it [1009].",
        "A device could not be sent more.",
    ),
    limit(
        "max_connections",
        count(),
        16_384,
        "Connections at a time. Beyond it requests are answered with 503.",
        "Room for ten thousand devices and their clients; an idle connection takes 4 KiB.",
    ),
    limit(
        "max_connections_per_address",
        count(),
        512,
        "Connections at a time from one address, except loopback and `trusted_proxies`. Beyond it requests are "
        "answered with 503.",
        "A WebSocket through a trusted proxy counts for the address that the proxy tells. Room for a lab behind one "
        "address.",
    ),
    limit(
        "new_per_second",
        _RATE,
        30_000,
        "New connections per second, and at once. Beyond it requests are answered with 503.",
        "It is twice the number that one core can open.",
    ),
    limit(
        "max_opening",
        count(),
        1_024,
        "Connections that have not sent a complete request yet. Beyond it a connection that has been silent for "
        "`opening_silence` is closed; if there is none, new connections wait until they are accepted.",
        "Real peers take milliseconds.",
    ),
    limit(
        "opening_silence",
        Seconds(),
        3.0,
        "Silence after which a connection that has not sent a complete request may be closed for another one.",
        "A lost segment is sent again within that time.",
    ),
    *NODE_LIMITS,
    limit(
        "max_handshakes",
        count(),
        64,
        "TLS handshakes at a time. Further ones wait, in the order of their arrival.",
        "They keep the processor busy, and those that have begun are soon done.",
    ),
    limit(
        "handshake_turn",
        Seconds(),
        0.1,
        "Time after which the next TLS handshake begins beside one that is not done.",
        "Slow peers hold up no others.",
    ),
    limit(
        "max_device_socket_connections",
        count(),
        16_384,
        "Connections to the device socket at a time. Further ones are closed.",
        "As many as `max_connections`.",
    ),
    limit(
        "max_control_connections",
        count(),
        256,
        "Connections to the control socket at a time. Further ones are closed.",
        "Each start of devices holds one.",
    ),
    limit(
        "max_metrics_connections",
        count(),
        64,
        "Connections to the listeners for metrics at a time. Beyond it requests are answered with 503.",
        "A Prometheus holds one.",
    ),
    *CONTROL_LIMITS,
    limit(
        "refusals_logged_per_second",
        _RATE,
        10,
        "Log lines about refused requests and closed peers, per second and at once. A later line tells how many were "
        "left out.",
        "A stranger causes one with each request.",
    ),
    limit(
        "requests_logged_per_second",
        _RATE,
        1_000,
        "Records of the access log, per second and at once. A later one tells how many were left out.",
        "A burst of polls and page loads, and no full disk within minutes.",
    ),
    limit(
        "max_devices",
        count(),
        16_384,
        "Devices at a time. Beyond it requests are answered with 503.",
        "As many as `max_connections`: each device has one.",
    ),
    limit(
        "max_device_id",
        size(1, 64 * KIB),
        256,
        "The length of a device id, and of the names of a pre-registration. A device with a longer id is refused "
        "[1008].",
        "Ids of real devices are much shorter.",
    ),
    limit(
        "max_clients_per_device",
        count(),
        1_024,
        "Clients of one device at a time. One more client is closed [1013].",
        "One address (except loopback), one identity and one HTTP connection hold at most half of them.",
    ),
    limit(
        "message_per_second",
        _RATE,
        10_000,
        "Messages that one peer may send per second. A peer that sends more is read again when its rate has recovered.",
        "No session comes near it, and one peer cannot use up a core.",
    ),
    limit(
        "message_burst",
        _BURST,
        20_000,
        "Messages that one peer may send at once.",
        "Two seconds of `message_per_second`.",
    ),
    limit(
        "byte_per_second",
        _RATE,
        16 * MIB,
        "Bytes that one peer may send per second, as they come over the network. A peer that sends more is read again "
        "when its rate has recovered.",
        "No session comes near it.",
    ),
    limit("byte_burst", _BURST, 32 * MIB, "Bytes that one peer may send at once.", "Two seconds of `byte_per_second`."),
    limit(
        "error_per_second",
        _RATE,
        20,
        "Errors per second that one peer may cause. A peer that causes more is closed [1008].",
        "An ordinary session causes none or a few.",
    ),
    limit("error_burst", _BURST, 100, "Errors that one peer may cause at once.", "Five seconds of `error_per_second`."),
    limit(
        "ping_per_second",
        _RATE,
        20,
        "Pings and pongs that one peer may send per second. A peer that sends more is closed [1008].",
        "Real peers ping every 3 s.",
    ),
    limit(
        "ping_burst",
        _BURST,
        100,
        "Pings and pongs that one peer may send at once.",
        "Five seconds of `ping_per_second`.",
    ),
    limit(
        "write_timeout",
        Seconds(),
        10.0,
        "Time in which a peer must read some of the bytes that are written to it. Then it is closed [1013].",
        "Time for several retransmissions of TCP.",
    ),
    *BACKPRESSURE,
    limit(
        "first_message_timeout",
        Seconds(optional=True),
        10.0,
        "Time for a peer to register or connect.",
        "Real peers send it as soon as the connection is open.",
    ),
    limit(
        "request_head_timeout",
        Seconds(),
        5.0,
        "Time for a peer to send the head of a request.",
        "Real peers send it in one piece, as soon as the connection is open.",
    ),
    limit("max_headers", count(4096), 64, "Headers of a request.", "Browsers send about 20."),
    limit(
        "max_request_head",
        size(8 * KIB, 1 * MIB),
        16 * KIB,
        "The size of the head of a request.",
        "Room for long cookies and tokens.",
    ),
    limit("tls_handshake_timeout", Seconds(), 5.0, "Time for a TLS handshake.", "It takes one or two round trips."),
    limit(
        "probe_timeout",
        Seconds(),
        2.0,
        "Time for the holder of a device id to answer a ping, when another device registers the id.",
        "A device registers again 1 s after it lost its connection.",
    ),
    limit(
        "close_timeout",
        Seconds(),
        5.0,
        "Time allowed to flush queued messages and to complete the closing handshake.",
        "Time for several retransmissions of TCP. A peer that does not answer is kept no longer.",
    ),
    limit(
        "journal_entries",
        count(2**24),
        10_000,
        "Entries that a journal keeps. Beyond it the oldest entries are dropped.",
        "Room for hundreds of sessions.",
    ),
    limit(
        "journal_bytes",
        size(1, MOST_KEPT),
        16 * MIB,
        "Bytes of messages that a journal keeps.",
        "Room for `journal_entries` of 1,600 bytes on average.",
    ),
    limit(
        "held_by_faults",
        count(),
        10_000,
        "Forwards that faults may hold back at a time. Further ones are dropped, with a warning.",
        "As many as a journal keeps.",
    ),
    limit(
        "held_by_faults_bytes",
        size(1, MOST_KEPT),
        16 * MIB,
        "Bytes of these forwards.",
        "As much as a journal keeps.",
    ),
    limit(
        "polled_timeout",
        Seconds(),
        30.0,
        "Time without a request after which a polling client has left, and the longest wait of one of its requests. "
        "While more messages wait than are kept for it, also the time in which it must acknowledge some by a higher "
        "`start`.",
        "Shorter than the 60 s after which proxies like nginx end a request.",
    ),
    limit(
        "max_polled",
        count(),
        1_024,
        "Polling clients at a time. Beyond it requests are answered with 503. One address (except loopback), one "
        "identity and one HTTP connection hold at most half of them.",
        "Each may keep twice the bytes of an outbox.",
    ),
    limit(
        "max_viewers",
        count(),
        32,
        "Open dashboard pages at a time. Beyond it requests are answered with 503.",
        "Each page is sent the changes four times a second.",
    ),
    limit(
        "max_viewers_per_address",
        count(),
        16,
        "Open dashboard pages at a time from one address, except loopback; of IPv6, from one subnet of 64 bits. Beyond "
        "it requests are answered with 503.",
        "One address does not take all of them.",
    ),
    limit(
        "viewer_bytes",
        size(64 * KIB, MOST_KEPT),
        1 * MIB,
        "Bytes of one event for a dashboard page. Rows beyond it are left out.",
        "A page that does not read has at most two updates waiting.",
    ),
    limit(
        "viewer_bytes_per_second",
        size(64 * KIB, MOST_KEPT),
        256 * KIB,
        "Bytes per second for a dashboard page. The update after a long one comes later.",
        "1,000 devices that all send are then shown about every second.",
    ),
    limit(
        "request_per_second",
        _RATE,
        1_000,
        "HTTP requests per second of one connection. Beyond it requests are answered with 429.",
        "A client that waits for each answer does not come near it.",
    ),
    limit(
        "request_burst",
        _BURST,
        2_000,
        "HTTP requests that one connection may send at once.",
        "Two seconds of `request_per_second`.",
    ),
    limit(
        "address_request_per_second",
        _RATE,
        2_000,
        "HTTP requests per second from one address, except loopback; of IPv6, from one subnet of 64 bits. Upgrades to "
        "a WebSocket, `GET /healthz` and `GET /readyz` do not count. Beyond it requests are answered with 429.",
        "Room for a lab behind one address, with hundreds of polling clients.",
    ),
    limit(
        "address_request_burst",
        _BURST,
        4_000,
        "HTTP requests that one address may send at once.",
        "Two seconds of `address_request_per_second`.",
    ),
    limit(
        "proxy_timeout",
        Seconds(),
        10.0,
        "Time for a device's own web server to begin its answer, and between two parts of it.",
        "A web server on this machine answers within milliseconds.",
    ),
    limit(
        "max_adb",
        count(),
        64,
        "adb connections at a time. One more client is closed [1013].",
        "Each takes some 100 KiB, and more while a large message comes in.",
    ),
    limit(
        "max_adb_message",
        size(128, MOST_OF_A_MESSAGE),
        2 * MIB,
        "The size of a client's message on `/devices/ID/adb`. A client that sends a larger one is closed [1009].",
        "The longest packet of adb has 1 MiB and 24 bytes, and a client may send it as one message.",
    ),
    limit(
        "adb_timeout",
        Seconds(),
        30.0,
        "Time for a device's adb port to accept a connection, and to take some of the bytes that wait for it. Then the "
        "client is closed [1013].",
        "A device that boots, or that is busy, takes seconds.",
    ),
    limit(
        "goodbye_timeout",
        Seconds(),
        0.25,
        "Time for a peer to answer the close frame of a server that stops.",
        "`stop()` waits for it.",
    ),
    limit(
        "hook_threads",
        count(1024),
        32,
        "Threads that run `def` hooks. They are started when they are needed; calls that find no free thread wait, and "
        "`hook_timeout` includes the wait.",
        "A `def` hook that hangs keeps its thread forever, also when its time is over; use `async def` for a hook that "
        "may hang.",
    ),
    limit(
        "hook_queue",
        count(),
        4_096,
        "Calls of hooks that wait for a free thread. Beyond it a call fails at once.",
        "`def` hooks of 50 ms on 32 threads answer 3,200 calls within `hook_timeout`; a call whose peer has left or "
        "whose time is over does not wait.",
    ),
)
