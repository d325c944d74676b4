//! Bounds on resources that peers use, and the range of each.

use std::time::Duration;

use crate::config::backpressure::{self, Backpressure};
use crate::config::bounds::{MAX_COUNT, MAX_KEPT, MAX_MESSAGE, above_zero, within};
use crate::config::error::ConfigError;
use crate::config::rate::Rate;
use crate::protocol::MAX_DEVICE_MESSAGE;

/// Bounds on resources that peers use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The largest message that the server accepts, in bytes of text, fragments added up. Default 256 KiB: four times
    /// what fits one frame of a WebSocket device (docs/protocol.md 2.8), so that a forward that does not fit is answered
    /// with an error and its sender stays connected. A device on the device socket can receive up to this size
    /// (docs/protocol.md 5.1.6).
    pub max_message_size: usize,
    /// The largest message before a peer has registered or connected, in bytes. Default 64 KiB: a `register` or
    /// `connect` needs no more, and memory for unknown peers stays bounded.
    pub max_first_message: usize,
    /// Concurrent connections. Default 16,384: ten thousand devices and their clients. An idle connection takes 4 KiB.
    pub max_connections: usize,
    /// Concurrent connections from one address. Loopback is exempt. Default 512: a lab behind one address.
    pub max_connections_per_address: usize,
    /// New connections per second, and in one burst. Default 30,000: twice what one core can open.
    pub new_per_second: u32,
    /// Connections before their first complete request. At it, the server drops one that has been silent for
    /// `opening_silence`, of the address with the most of them; if there is none, it accepts no further connection until
    /// one has opened. Default 1,024: an honest connection opens in milliseconds.
    pub max_opening: usize,
    /// The silence after which a connection without a complete request may be dropped for another. Default 3 s: a lost
    /// segment is sent again within that time.
    pub opening_silence: Duration,
    /// Connections that a node makes to one other node at a time, for its clients; further ones wait, in the order of
    /// arrival. Default 16: a burst of clients does not overload the other node, nor let its connections time out.
    pub max_node_dials: usize,
    /// Connections to one other node that wait for their turn. Beyond it the node counts as unreachable for the client.
    /// Default 1,024: as many as `max_opening`.
    pub max_node_dial_queue: usize,
    /// Connections to one other node that are kept for the next client, and as many for the next request of a polling one.
    /// Default 32: twice as many as are made at a time.
    pub max_node_idle: usize,
    /// TLS handshakes at a time; further ones wait, in the order of arrival. Default 64: enough to keep the processor
    /// busy, and few enough that those begun are done soon.
    pub max_handshakes: usize,
    /// The time after which the next TLS handshake begins beside one that is not done. Default 100 ms: slow peers hold up
    /// no others.
    pub handshake_turn: Duration,
    /// Connections to the device socket. Default 16,384.
    pub max_device_socket_connections: usize,
    /// Connections to the control socket. Default 256: each start of devices holds one.
    pub max_control_connections: usize,
    /// Connections to the listeners for metrics. Default 64: a Prometheus holds one.
    pub max_metrics_connections: usize,
    /// Log lines about refusals, per second and in one burst. Further ones are counted, and a later line tells how many.
    /// Default 10: a stranger causes one with each request.
    pub refusals_logged_per_second: u32,
    /// Records that wait for the audit log. Further ones are dropped and counted. Default 4,096: a tenth of a second at the
    /// highest rate of new connections.
    pub audit_queue: usize,
    /// Registered devices. Default 16,384.
    pub max_devices: usize,
    /// The longest device id, in bytes. It also bounds the names in a pre-registration. Default 256
    /// (docs/protocol.md 4.1.10).
    pub max_device_id: usize,
    /// Concurrent clients of one device. Default 1,024.
    pub max_clients_per_device: usize,
    /// Messages from one peer. Default 10,000 per second, a burst of 20,000: no session needs as many, and one peer
    /// cannot take a whole core.
    pub messages: Rate,
    /// Bytes from one peer, counted on the network. Default 16 MiB per second, a burst of 32 MiB.
    pub bytes: Rate,
    /// Errors after which a peer stays connected. Default 20 per second, a burst of 100.
    pub errors: Rate,
    /// Pings and pongs from one peer. Default 20 per second, a burst of 100: a real device pings every 3 s.
    pub pings: Rate,
    /// How long a peer may accept no byte of the data that waits for it. Default 10 s; then it is closed with 1013
    /// (docs/protocol.md 4.3.10).
    pub write_timeout: Duration,
    /// Bounds on messages that wait.
    pub backpressure: Backpressure,
    /// How long a peer may take to register or connect after the upgrade (docs/protocol.md 4.3.8). Default 10 s; `None`
    /// waits forever.
    pub first_message_timeout: Option<Duration>,
    /// How long a peer may take to send a request head. Default 5 s.
    pub request_head_timeout: Duration,
    /// Headers of a request. Default 64: browsers send about 20.
    pub max_headers: usize,
    /// Size of a request head, in bytes, at least 8192. Default 16 KiB.
    pub max_request_head: usize,
    /// How long a TLS handshake may take. Default 5 s.
    pub tls_handshake_timeout: Duration,
    /// How long the holder of an id may take to answer the ping when another device wants the id. Default 2 s
    /// (docs/protocol.md 4.1.13): a device registers again 1 s after it lost its connection.
    pub probe_timeout: Duration,
    /// Time allowed to flush queued messages and complete the closing handshake. Default 5 s.
    pub close_timeout: Duration,
    /// Entries in the journal. Default 10,000: hundreds of sessions.
    pub journal_entries: usize,
    /// Bytes of messages in the journal. Default 16 MiB.
    pub journal_bytes: usize,
    /// Forwards that faults hold back. Further ones are dropped. Default 10,000.
    pub held_by_faults: usize,
    /// How long a polled client may send no poll; then it has left (docs/protocol.md 5.3.30). Default 30 s. It also bounds
    /// how long the server holds one of its requests.
    pub polled_timeout: Duration,
    /// Concurrent polled clients. Default 1,024: each may hold twice the bytes of an outbox.
    pub max_polled: usize,
    /// Bounds on the use of HTTP.
    pub http: HttpLimits,
    /// How long a device's own web server may take to answer, and to send each part of its answer. Default 10 s.
    pub proxy_timeout: Duration,
    /// How long a peer may take to answer the close frame of a server that stops. Default 250 ms: `stop()` waits for it.
    pub goodbye_timeout: Duration,
}

/// Bounds on HTTP requests and dashboards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpLimits {
    /// Dashboards that receive live events. Default 32: each gets the changes four times a second.
    pub max_viewers: usize,
    /// Dashboards of one address that receive live events. Loopback is exempt. Default 16: one address does not take
    /// all of them.
    pub max_viewers_per_address: usize,
    /// Bytes of one event for a dashboard, at least 64 KiB; rows beyond it are left out. Default 1 MiB. A page that does
    /// not read has at most two updates waiting.
    pub viewer_bytes: usize,
    /// Bytes per second for a dashboard; the update after a long one comes later. Default 256 KiB: 1,000 devices that all
    /// send are then shown about every second.
    pub viewer_bytes_per_second: usize,
    /// HTTP requests of one connection. Default 1,000 per second, a burst of 2,000: a client that waits for each answer
    /// does not come near it.
    pub requests: Rate,
    /// HTTP requests of one address. Loopback is exempt, and so are upgrades and health checks. Default 2,000 per
    /// second, a burst of 4,000: a lab behind one address, with hundreds of polling clients.
    pub address_requests: Rate,
    /// Records of the access log, per second and in one burst. Further ones are counted, and a later one tells how many.
    /// Default 1,000: a burst of polls and page loads, and no full disk within minutes.
    pub requests_logged_per_second: u32,
}

/// The defaults.
const DEFAULT_HTTP: HttpLimits = HttpLimits {
    max_viewers: 32,
    max_viewers_per_address: 16,
    viewer_bytes: 1024 * 1024,
    viewer_bytes_per_second: 256 * 1024,
    requests: Rate { per_second: 1_000, burst: 2_000 },
    address_requests: Rate { per_second: 2_000, burst: 4_000 },
    requests_logged_per_second: 1_000,
};

impl Default for HttpLimits {
    fn default() -> Self {
        DEFAULT_HTTP
    }
}

/// The defaults.
pub(super) const DEFAULT: Limits = Limits {
    max_message_size: 256 * 1024,
    max_first_message: 64 * 1024,
    max_connections: 16_384,
    max_connections_per_address: 512,
    new_per_second: 30_000,
    max_opening: 1_024,
    opening_silence: Duration::from_secs(3),
    max_node_dials: 16,
    max_node_dial_queue: 1_024,
    max_node_idle: 32,
    max_handshakes: 64,
    handshake_turn: Duration::from_millis(100),
    max_device_socket_connections: 16_384,
    max_control_connections: 256,
    max_metrics_connections: 64,
    refusals_logged_per_second: 10,
    audit_queue: 4_096,
    max_devices: 16_384,
    max_device_id: 256,
    max_clients_per_device: 1_024,
    messages: Rate { per_second: 10_000, burst: 20_000 },
    bytes: Rate { per_second: 16 * 1024 * 1024, burst: 32 * 1024 * 1024 },
    errors: Rate { per_second: 20, burst: 100 },
    pings: Rate { per_second: 20, burst: 100 },
    write_timeout: Duration::from_secs(10),
    backpressure: backpressure::DEFAULT,
    first_message_timeout: Some(Duration::from_secs(10)),
    request_head_timeout: Duration::from_secs(5),
    max_headers: 64,
    max_request_head: 16 * 1024,
    tls_handshake_timeout: Duration::from_secs(5),
    probe_timeout: Duration::from_secs(2),
    close_timeout: Duration::from_secs(5),
    journal_entries: 10_000,
    journal_bytes: 16 * 1024 * 1024,
    held_by_faults: 10_000,
    polled_timeout: Duration::from_secs(30),
    max_polled: 1_024,
    http: DEFAULT_HTTP,
    proxy_timeout: Duration::from_secs(10),
    goodbye_timeout: Duration::from_millis(250),
};

impl Default for Limits {
    fn default() -> Self {
        DEFAULT
    }
}

impl Limits {
    /// The limits for connections to listeners for metrics.
    #[must_use]
    pub fn of_metrics(&self) -> Self {
        Self { max_connections: self.max_metrics_connections, ..self.clone() }
    }

    /// The limits for connections to the listeners of the control API, `most` at a time.
    #[must_use]
    pub fn of_control(&self, most: usize) -> Self {
        Self { max_connections: most, ..self.clone() }
    }

    /// The limits of connections of other nodes. One address has those of all clients of a node.
    #[must_use]
    pub fn of_nodes(&self) -> Self {
        Self { max_connections_per_address: self.max_connections, ..self.clone() }
    }

    pub(super) fn validate_sizes(&self) -> Result<(), ConfigError> {
        for (setting, value, least, most) in [
            ("limits.max_message_size", self.max_message_size, 128, MAX_MESSAGE),
            ("limits.max_first_message", self.max_first_message, 128, MAX_MESSAGE),
            ("limits.max_headers", self.max_headers, 1, 4096),
            ("limits.max_request_head", self.max_request_head, 8192, 1 << 20),
            ("limits.max_connections", self.max_connections, 1, MAX_COUNT),
            ("limits.max_connections_per_address", self.max_connections_per_address, 1, MAX_COUNT),
            ("limits.max_opening", self.max_opening, 1, MAX_COUNT),
            ("limits.max_node_dials", self.max_node_dials, 1, MAX_COUNT),
            ("limits.max_node_dial_queue", self.max_node_dial_queue, 1, MAX_COUNT),
            ("limits.max_node_idle", self.max_node_idle, 0, MAX_COUNT),
            ("limits.max_handshakes", self.max_handshakes, 1, MAX_COUNT),
            ("limits.max_device_socket_connections", self.max_device_socket_connections, 1, MAX_COUNT),
            ("limits.max_control_connections", self.max_control_connections, 1, MAX_COUNT),
            ("limits.max_metrics_connections", self.max_metrics_connections, 1, MAX_COUNT),
            ("limits.audit_queue", self.audit_queue, 1, MAX_COUNT),
            ("limits.max_devices", self.max_devices, 1, MAX_COUNT),
            ("limits.max_device_id", self.max_device_id, 1, MAX_DEVICE_MESSAGE),
            ("limits.max_clients_per_device", self.max_clients_per_device, 1, MAX_COUNT),
            ("limits.max_polled", self.max_polled, 1, MAX_COUNT),
            ("limits.max_viewers", self.http.max_viewers, 1, MAX_COUNT),
            ("limits.max_viewers_per_address", self.http.max_viewers_per_address, 1, MAX_COUNT),
            ("limits.viewer_bytes", self.http.viewer_bytes, MAX_DEVICE_MESSAGE, MAX_KEPT),
            ("limits.viewer_bytes_per_second", self.http.viewer_bytes_per_second, MAX_DEVICE_MESSAGE, MAX_KEPT),
            ("limits.journal_entries", self.journal_entries, 1, 1 << 24),
            ("limits.journal_bytes", self.journal_bytes, 1, MAX_KEPT),
            ("limits.held_by_faults", self.held_by_faults, 1, MAX_COUNT),
        ] {
            within(setting, value, least, most)?;
        }
        self.backpressure.validate(self.max_message_size)
    }

    pub(super) fn validate_timeouts(&self) -> Result<(), ConfigError> {
        for (setting, timeout) in [
            ("limits.opening_silence", self.opening_silence),
            ("limits.handshake_turn", self.handshake_turn),
            ("limits.request_head_timeout", self.request_head_timeout),
            ("limits.tls_handshake_timeout", self.tls_handshake_timeout),
            ("limits.probe_timeout", self.probe_timeout),
            ("limits.close_timeout", self.close_timeout),
            ("limits.write_timeout", self.write_timeout),
            ("limits.goodbye_timeout", self.goodbye_timeout),
            ("limits.polled_timeout", self.polled_timeout),
            ("limits.proxy_timeout", self.proxy_timeout),
        ] {
            above_zero(setting, Some(timeout))?;
        }
        Ok(())
    }
}
