"""`Limits` and `Keepalive`. The docstrings are those of the table of settings, which a test compares."""

from __future__ import annotations

from ._field_docs import with_setting_docs
from ._lazy_dataclass import default_of, lazy_dataclass


@with_setting_docs("limits")
@lazy_dataclass(frozen=True)
class Limits:
    """Bounds on the resources that peers may use. Times are in seconds."""

    max_message_size: int = 256 * 1024
    """The size of a message, with all its fragments. A peer that sends a larger one is closed [1009]. It is four times
    the size that a device can be sent, so that the client gets an error for a forward that is only too large for the
    device, and keeps its connection."""
    max_first_message: int = 64 * 1024
    """The size of a message from a peer that has not registered or connected yet. A larger one closes it [1009]. A
    device could not be sent more."""
    max_connections: int = 16_384
    """Connections at a time. Beyond it requests are answered with 503. Room for ten thousand devices and their clients;
    an idle connection takes 4 KiB."""
    max_connections_per_address: int = 512
    """Connections at a time from one address, except loopback and `trusted_proxies`. Beyond it requests are answered
    with 503. A WebSocket through a trusted proxy counts for the address that the proxy tells. Room for a lab behind one
    address."""
    new_per_second: int = 30_000
    """New connections per second, and at once. Beyond it requests are answered with 503. It is twice the number that
    one core can open."""
    max_opening: int = 1_024
    """Connections that have not sent a complete request yet. Beyond it a connection that has been silent for
    `opening_silence` is closed; if there is none, new connections wait until they are accepted. Real peers take
    milliseconds."""
    opening_silence: float = 3.0
    """Silence after which a connection that has not sent a complete request may be closed for another one. A lost
    segment is sent again within that time."""
    max_node_dials: int = 16
    """Connections that a node makes to one other node at a time, for its clients. Further ones wait in order. A burst
    of clients does not overload the other node, nor let its connections time out."""
    max_node_dial_queue: int = 1_024
    """Connections to one other node that wait for their turn. With more, that node is unreachable for the client. As
    many as `max_opening`."""
    max_node_idle: int = 32
    """Connections to one other node that are kept for its next client, and as many for the next request of a client
    that polls. Twice as many as are made at a time."""
    max_handshakes: int = 64
    """TLS handshakes at a time. Further ones wait, in the order of their arrival. They keep the processor busy, and
    those that have begun are soon done."""
    handshake_turn: float = 0.1
    """Time after which the next TLS handshake begins beside one that is not done. Slow peers hold up no others."""
    max_device_socket_connections: int = 16_384
    """Connections to the device socket at a time. Further ones are closed. As many as `max_connections`."""
    max_control_connections: int = 256
    """Connections to the control socket at a time. Further ones are closed. Each start of devices holds one."""
    max_metrics_connections: int = 64
    """Connections to the listeners for metrics at a time. Beyond it requests are answered with 503. A Prometheus holds
    one."""
    max_control_api_connections: int = 64
    """Connections to the control API at a time. Beyond it requests are answered with 503. Test runs and commands hold a
    few each."""
    max_control_api_requests: int = 64
    """Requests to the control API at a time, waits and streams included. Beyond it they are answered with 503. As many
    as connections."""
    control_api_wait: float = 60.0
    """The longest wait of a request to the control API; longer ones are cut to it. Clients and proxies often end a
    request that takes longer."""
    control_api_body: int = 64 * 1024
    """The body of a request to the control API. A longer one is answered with 413. A list of ICE servers takes a few
    hundred bytes."""
    control_api_page: int = 4 * 1024 * 1024
    """Length after which an answer of the control API ends, and the next request goes on. One entry may be longer. The
    default bounds the memory of a few readers of a long journal."""
    audit_queue: int = 4_096
    """Records that wait for `audit_log`. Further ones are dropped, counted and told by the log. A tenth of a second at
    the highest rate of new connections; a record takes half a kilobyte."""
    refusals_logged_per_second: int = 10
    """Log lines about refused requests and closed peers, per second and at once. A later line tells how many were left
    out. A stranger causes one with each request."""
    requests_logged_per_second: int = 1_000
    """Records of the access log, per second and at once. A later one tells how many were left out. A burst of polls and
    page loads, and no full disk within minutes."""
    max_devices: int = 16_384
    """Devices at a time. Beyond it requests are answered with 503. As many as `max_connections`: each device has
    one."""
    max_device_id: int = 256
    """The length of a device id, and of the names of a pre-registration. A device with a longer id is refused [1008].
    Ids of real devices are much shorter."""
    max_clients_per_device: int = 1_024
    """Clients of one device at a time. One more client is closed [1013]. One address (except loopback), one identity
    and one HTTP connection hold at most half of them."""
    message_per_second: int = 10_000
    """Messages that one peer may send per second. A peer that sends more is read again when its rate has recovered. No
    session comes near it, and one peer cannot use up a core."""
    message_burst: int = 20_000
    """Messages that one peer may send at once. Two seconds of `message_per_second`."""
    byte_per_second: int = 16 * 1024 * 1024
    """Bytes that one peer may send per second, as they come over the network. A peer that sends more is read again when
    its rate has recovered. No session comes near it."""
    byte_burst: int = 32 * 1024 * 1024
    """Bytes that one peer may send at once. Two seconds of `byte_per_second`."""
    error_per_second: int = 20
    """Errors per second that one peer may cause. A peer that causes more is closed [1008]. An ordinary session causes
    none or a few."""
    error_burst: int = 100
    """Errors that one peer may cause at once. Five seconds of `error_per_second`."""
    ping_per_second: int = 20
    """Pings and pongs that one peer may send per second. A peer that sends more is closed [1008]. Real peers ping every
    3 s."""
    ping_burst: int = 100
    """Pings and pongs that one peer may send at once. Five seconds of `ping_per_second`."""
    write_timeout: float = 10.0
    """Time in which a peer must read some of the bytes that are written to it. Then it is closed [1013]. Time for
    several retransmissions of TCP."""
    outbox_bytes: int = 4 * 1024 * 1024
    """Bytes of messages that may wait for one client, and of the server's own for one device; each message counts 128
    more. Above it they are taken from `outbox_budget`. At least `max_message_size`. Room for the offers and candidates
    of a hundred sessions."""
    outbox_budget: int = 256 * 1024 * 1024
    """Bytes that may wait for all peers together above their `outbox_bytes`. When it is spent, the client with the
    oldest unsent message is closed [1013]. A burst for hundreds of clients, beside devices of several GiB."""
    borrow_timeout: float = 1.0
    """Time in which a peer above its `outbox_bytes` must read some of the bytes that are written to it. Then it is
    closed [1013]. Shorter than `write_timeout`: meanwhile the peer takes memory that belongs to all."""
    max_message_age: float = 60.0
    """Age of the oldest message that waits for a peer. Then the peer is closed [1013]. WebRTC gives up earlier."""
    device_high_water: int = 1024 * 1024
    """Bytes of messages of clients that wait for one device, from which on its clients are not read. A device that
    reads empties it within milliseconds."""
    device_low_water: int = 512 * 1024
    """Bytes of these messages at which the clients are read again. At most `device_high_water`. The device does not
    wait for its clients meanwhile."""
    client_window_bytes: int = 64 * 1024
    """Bytes of messages of one client that wait for its device, from which on this client is not read. The longest
    message of a device. Other clients wait behind no more of it."""
    client_window_messages: int = 64
    """Number of these messages, from which on this client is not read. A session has a few dozen messages."""
    held_bytes: int = 1024 * 1024
    """Bytes of messages of one peer that wait for a hook, each with 128 more. From then on this peer is not read. Four
    of the largest messages."""
    first_message_timeout: float | None = 10.0
    """Time for a peer to register or connect. None: no limit. Real peers send it as soon as the connection is open."""
    request_head_timeout: float = 5.0
    """Time for a peer to send the head of a request. Real peers send it in one piece, as soon as the connection is
    open."""
    max_headers: int = 64
    """Headers of a request. Browsers send about 20."""
    max_request_head: int = 16 * 1024
    """The size of the head of a request. Room for long cookies and tokens."""
    tls_handshake_timeout: float = 5.0
    """Time for a TLS handshake. It takes one or two round trips."""
    probe_timeout: float = 2.0
    """Time for the holder of a device id to answer a ping, when another device registers the id. A device registers
    again 1 s after it lost its connection."""
    close_timeout: float = 5.0
    """Time allowed to flush queued messages and to complete the closing handshake. Time for several retransmissions of
    TCP. A peer that does not answer is kept no longer."""
    journal_entries: int = 10_000
    """Entries that a journal keeps. Beyond it the oldest entries are dropped. Room for hundreds of sessions."""
    journal_bytes: int = 16 * 1024 * 1024
    """Bytes of messages that a journal keeps. Room for `journal_entries` of 1,600 bytes on average."""
    held_by_faults: int = 10_000
    """Forwards that faults may hold back at a time. Further ones are dropped, with a warning. As many as a journal
    keeps."""
    held_by_faults_bytes: int = 16 * 1024 * 1024
    """Bytes of these forwards. As much as a journal keeps."""
    polled_timeout: float = 30.0
    """Time without a request after which a polling client has left, and the longest wait of one of its requests. While
    more messages wait than are kept for it, also the time in which it must acknowledge some by a higher `start`.
    Shorter than the 60 s after which proxies like nginx end a request."""
    max_polled: int = 1_024
    """Polling clients at a time. Beyond it requests are answered with 503. One address (except loopback), one identity
    and one HTTP connection hold at most half of them. Each may keep twice the bytes of an outbox."""
    max_viewers: int = 32
    """Open dashboard pages at a time. Beyond it requests are answered with 503. Each page is sent the changes four
    times a second."""
    max_viewers_per_address: int = 16
    """Open dashboard pages at a time from one address, except loopback; of IPv6, from one subnet of 64 bits. Beyond it
    requests are answered with 503. One address does not take all of them."""
    viewer_bytes: int = 1024 * 1024
    """Bytes of one event for a dashboard page. Rows beyond it are left out. A page that does not read has at most two
    updates waiting."""
    viewer_bytes_per_second: int = 256 * 1024
    """Bytes per second for a dashboard page. The update after a long one comes later. 1,000 devices that all send are
    then shown about every second."""
    request_per_second: int = 1_000
    """HTTP requests per second of one connection. Beyond it requests are answered with 429. A client that waits for
    each answer does not come near it."""
    request_burst: int = 2_000
    """HTTP requests that one connection may send at once. Two seconds of `request_per_second`."""
    address_request_per_second: int = 2_000
    """HTTP requests per second from one address, except loopback; of IPv6, from one subnet of 64 bits. Upgrades to a
    WebSocket, `GET /healthz` and `GET /readyz` do not count. Beyond it requests are answered with 429. Room for a lab
    behind one address, with hundreds of polling clients."""
    address_request_burst: int = 4_000
    """HTTP requests that one address may send at once. Two seconds of `address_request_per_second`."""
    proxy_timeout: float = 10.0
    """Time for a device's own web server to begin its answer, and between two parts of it. A web server on this machine
    answers within milliseconds."""
    max_adb: int = 64
    """adb connections at a time. One more client is closed [1013]. Each takes some 100 KiB, and more while a large
    message comes in."""
    max_adb_message: int = 2 * 1024 * 1024
    """The size of a client's message on `/devices/ID/adb`. A client that sends a larger one is closed [1009]. The
    longest packet of adb has 1 MiB and 24 bytes, and a client may send it as one message."""
    adb_timeout: float = 30.0
    """Time for a device's adb port to accept a connection, and to take some of the bytes that wait for it. Then the
    client is closed [1013]. A device that boots, or that is busy, takes seconds."""
    goodbye_timeout: float = 0.25
    """Time for a peer to answer the close frame of a server that stops. `stop()` waits for it."""
    hook_threads: int = 32
    """Threads that run `def` hooks. They are started when they are needed; calls that find no free thread wait, and
    `hook_timeout` includes the wait. A `def` hook that hangs keeps its thread forever, also when its time is over; use
    `async def` for a hook that may hang."""
    hook_queue: int = 4_096
    """Calls of hooks that wait for a free thread. Beyond it a call fails at once. `def` hooks of 50 ms on 32 threads
    answer 3,200 calls within `hook_timeout`; a call whose peer has left or whose time is over does not wait."""


@with_setting_docs("keepalive")
@lazy_dataclass(frozen=True)
class Keepalive:
    """When a silent connection is closed: after `interval + timeout`. Times are in seconds."""

    interval: float | None = 10.0
    """Silence after which a peer is pinged. None: no pings. With `timeout`, a peer that hangs is noticed after 15 s."""
    timeout: float = 5.0
    """Time for the pong. Then the connection is closed. A pong takes one round trip, and a lost segment is sent again
    meanwhile."""


DEFAULT_LIMITS = default_of(Limits)

DEFAULT_KEEPALIVE = default_of(Keepalive)
