//! The settings of a server, with their defaults and bounds.
//!
//! [`Config::validate`] names the first invalid setting. This module starts nothing.

pub mod allowances;
pub mod certificates;
pub mod error;
pub mod listen;
pub mod rate;
pub mod state_dir;
pub mod tls;
pub mod turn;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::config::allowances::{AllowedHost, AllowedOrigin, parse_each};
use crate::config::error::ConfigError;
use crate::config::listen::Listen;
use crate::config::rate::Rate;
use crate::config::tls::Tls;
use crate::config::turn::TurnRest;
use crate::core::client_ids::ClientIds;
use crate::core::outbox::OutboxBounds;
use crate::core::session::{OnDuplicate, Rules};
use crate::observe::journal::JournalBounds;
use crate::protocol::IceServers;

/// The source of the ICE servers in `config` messages.
#[derive(Debug, Clone)]
pub enum IceSource {
    /// The same list for every peer.
    Fixed(IceServers),
    /// Time-limited credentials, computed for each peer.
    TurnRest(TurnRest),
    /// The hook [`crate::access::hooks::Hooks::ice_servers`] returns the list for each peer.
    Hook,
}

/// The format of `GET /devices` for a request without `?format=full` or `?format=ids` (docs/protocol.md 5.3.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DevicesFormat {
    /// An object for each device, as the current operator returns.
    #[default]
    Full,
    /// Only the ids, as the reference server returns: its page expects them.
    Ids,
}

/// The settings of a server. The defaults suit tests: loopback, a free port, no TLS, no ICE servers.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "the switches are independent settings")]
pub struct Config {
    /// The address to listen on. Default 127.0.0.1: other machines cannot reach the server unless this is set.
    pub host: IpAddr,
    /// The port to listen on. Default 0: the system picks a free port.
    pub port: u16,
    /// All addresses to listen on, in the place of `host` and `port`. Default none: `host` and `port` count. Those for
    /// TLS need `tls`.
    pub listen: Vec<Listen>,
    /// The path of the local socket for devices (docs/protocol.md 5.1). Default none.
    pub device_socket: Option<PathBuf>,
    /// The path of the local socket for pre-registrations (docs/protocol.md 5.2). Default none.
    pub control_socket: Option<PathBuf>,
    /// The certificate and key for TLS. Default none: plain text.
    pub tls: Option<Tls>,
    /// The source of ICE servers. Default an empty list: a test run must not contact a public STUN server.
    pub ice: IceSource,
    /// How long a client may wait for its device to register (docs/protocol.md 1.19). Default 0: the client is refused at
    /// once. `None` waits forever.
    pub device_wait_timeout: Option<Duration>,
    /// Which device keeps an id that two devices want. Default: the holder, if it answers a ping.
    pub on_duplicate: OnDuplicate,
    /// The first client id of a registration (docs/protocol.md 2.5). Default: 1, or the number after the last id that
    /// this server gave out for the device.
    pub client_ids: ClientIds,
    /// The deadline of a hook call. Default 5 s: a real device hangs up after 10 s.
    pub hook_timeout: Duration,
    /// Bounds on resources that peers use.
    pub limits: Limits,
    /// When the server drops a silent connection.
    pub keepalive: Keepalive,
    /// Host names that a `Host` header may have, beside IP addresses and `localhost`: `signal.lab`, or `*.lab` for each
    /// name below `lab`. Default none. `*` permits every name, and thereby DNS rebinding.
    pub allowed_hosts: Vec<String>,
    /// Origins whose pages may use the server, beside the server's own: `https://panel.lab`, or `https://*.lab`.
    /// Default none. `*` permits every origin.
    pub allowed_origins: Vec<String>,
    /// Whether to listen on an address other than loopback without an `authorize` hook. Default no.
    pub allow_unauthenticated: bool,
    /// Whether to serve `/echo`, for the Autobahn test suite. Default no.
    #[doc(hidden)]
    pub echo: bool,
    /// Whether to serve the dashboard at `/`. Default no.
    pub dashboard: bool,
    /// A directory whose files are served beside the endpoints: the web client of a host package. Default none.
    pub assets_dir: Option<PathBuf>,
    /// Whether `/devices/{id}/files/` proxies to the device's own web server, at the port that the device sent over the
    /// device socket. Default no: it lets every client reach a port of this machine.
    pub proxy_device_files: bool,
    /// The format of `GET /devices` for a request that names none. Default [`DevicesFormat::Full`].
    pub devices_format: DevicesFormat,
    /// Whether to record messages in a journal. Default no.
    pub journal: bool,
    /// Worker threads of the runtime. Default 1: the fastest for one test run.
    pub workers: usize,
}

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
    /// Connections before their upgrade or first request. Above it, the server drops the oldest of them. Default 1,024:
    /// an honest connection opens in milliseconds.
    pub max_opening: usize,
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
    /// Messages in the outbox of one peer. Default 256: a session needs a few dozen.
    pub outbox_messages: usize,
    /// Bytes in the outbox of one peer. Default 1 MiB.
    pub outbox_bytes: usize,
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
    /// Forwards that faults hold back. Further ones are relayed at once. Default 10,000.
    pub held_by_faults: usize,
    /// How long a polled client may send no poll; then it has left (docs/protocol.md 5.3.30). Default 30 s. It also bounds
    /// how long the server holds one of its requests.
    pub polled_timeout: Duration,
    /// Concurrent polled clients. Default 1,024: each may hold twice the bytes of an outbox.
    pub max_polled: usize,
    /// Dashboards that receive live events. Default 32: each gets the changes four times a second.
    pub max_viewers: usize,
    /// How long a device's own web server may take to answer, and to send each part of its answer. Default 10 s.
    pub proxy_timeout: Duration,
    /// How long a peer may take to answer the close frame of a server that stops. Default 250 ms: `stop()` waits for it.
    pub goodbye_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_size: 256 * 1024,
            max_first_message: 64 * 1024,
            max_connections: 16_384,
            max_connections_per_address: 512,
            new_per_second: 30_000,
            max_opening: 1_024,
            max_devices: 16_384,
            max_device_id: 256,
            max_clients_per_device: 1_024,
            messages: Rate { per_second: 10_000, burst: 20_000 },
            bytes: Rate { per_second: 16 * 1024 * 1024, burst: 32 * 1024 * 1024 },
            errors: Rate { per_second: 20, burst: 100 },
            pings: Rate { per_second: 20, burst: 100 },
            write_timeout: Duration::from_secs(10),
            outbox_messages: 256,
            outbox_bytes: 1024 * 1024,
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
            max_viewers: 32,
            proxy_timeout: Duration::from_secs(10),
            goodbye_timeout: Duration::from_millis(250),
        }
    }
}

/// When the server drops a silent connection: half-open TCP is found within `interval + timeout`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keepalive {
    /// The server pings a peer after this much silence. Default 10 s; `None` sends no pings.
    pub interval: Option<Duration>,
    /// How long a peer may take to answer with a pong. Default 5 s.
    pub timeout: Duration,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { interval: Some(Duration::from_secs(10)), timeout: Duration::from_secs(5) }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host: IpAddr::from([127, 0, 0, 1]),
            port: 0,
            listen: Vec::new(),
            device_socket: None,
            control_socket: None,
            tls: None,
            ice: IceSource::Fixed(IceServers::default()),
            device_wait_timeout: Some(Duration::ZERO),
            on_duplicate: OnDuplicate::default(),
            client_ids: ClientIds::default(),
            hook_timeout: Duration::from_secs(5),
            limits: Limits::default(),
            keepalive: Keepalive::default(),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            allow_unauthenticated: false,
            echo: false,
            dashboard: false,
            assets_dir: None,
            proxy_device_files: false,
            devices_format: DevicesFormat::default(),
            journal: false,
            workers: 1,
        }
    }
}

impl Config {
    /// Checks the values that the types permit but the server does not support.
    ///
    /// # Errors
    /// [`ConfigError`], which names the first invalid setting.
    pub fn validate(&self) -> Result<(), ConfigError> {
        listen::validate(&self.listeners(), self.tls.is_some())?;
        let sockets =
            [("device_socket", self.device_socket.as_ref()), ("control_socket", self.control_socket.as_ref())];
        listen::validate_paths(sockets, &self.listen)?;
        self.limits.validate_sizes()?;
        at_least("workers", self.workers, 1)?;
        if self.workers > 1024 {
            return Err(ConfigError::new("workers", format!("must be at most 1024, got {}", self.workers)));
        }
        above_zero("hook_timeout", Some(self.hook_timeout))?;
        parse_each("allowed_hosts", &self.allowed_hosts, AllowedHost::parse)?;
        parse_each("allowed_origins", &self.allowed_origins, AllowedOrigin::parse)?;
        self.limits.validate_timeouts()?;
        above_zero("keepalive.timeout", Some(self.keepalive.timeout))?;
        if let Some(directory) = &self.assets_dir
            && !directory.is_dir()
        {
            return Err(ConfigError::new("assets_dir", format!("{} is not a directory", directory.display())));
        }
        above_zero("limits.first_message_timeout", self.limits.first_message_timeout)?;
        above_zero("keepalive.interval", self.keepalive.interval)
    }

    /// The addresses to listen on: `listen`, or the one of `host`, `port` and `tls`.
    pub fn listeners(&self) -> Vec<Listen> {
        if !self.listen.is_empty() {
            return self.listen.clone();
        }
        let address = SocketAddr::new(self.host, self.port);
        vec![if self.tls.is_some() { Listen::Https(address) } else { Listen::Http(address) }]
    }

    /// The settings that sessions use.
    pub fn rules(&self) -> Rules {
        Rules {
            first_message_timeout: self.limits.first_message_timeout,
            device_wait_timeout: self.device_wait_timeout,
            on_duplicate: self.on_duplicate,
            max_devices: self.limits.max_devices,
            max_device_id: self.limits.max_device_id,
            max_clients_per_device: self.limits.max_clients_per_device,
            write_timeout: self.limits.write_timeout,
            close_timeout: self.limits.close_timeout,
            goodbye_timeout: self.limits.goodbye_timeout,
            ping_interval: self.keepalive.interval,
            pong_timeout: self.keepalive.timeout,
            max_held_messages: self.limits.outbox_messages,
            max_held_bytes: self.limits.outbox_bytes,
        }
    }

    /// The settings that the journal uses.
    pub fn journal_bounds(&self) -> JournalBounds {
        JournalBounds { entries: self.limits.journal_entries, bytes: self.limits.journal_bytes }
    }

    /// The settings that outboxes use.
    pub fn outbox_bounds(&self) -> OutboxBounds {
        OutboxBounds { messages: self.limits.outbox_messages, bytes: self.limits.outbox_bytes }
    }
}

impl Limits {
    fn validate_sizes(&self) -> Result<(), ConfigError> {
        for (setting, value, least) in [
            ("limits.max_message_size", self.max_message_size, 128),
            ("limits.outbox_messages", self.outbox_messages, 1),
            ("limits.outbox_bytes", self.outbox_bytes, crate::protocol::MAX_DEVICE_MESSAGE),
            ("limits.max_headers", self.max_headers, 1),
            ("limits.max_request_head", self.max_request_head, 8192),
            ("limits.max_first_message", self.max_first_message, 128),
            ("limits.max_connections", self.max_connections, 1),
            ("limits.max_connections_per_address", self.max_connections_per_address, 1),
            ("limits.max_opening", self.max_opening, 1),
            ("limits.max_devices", self.max_devices, 1),
            ("limits.max_device_id", self.max_device_id, 1),
            ("limits.max_clients_per_device", self.max_clients_per_device, 1),
            ("limits.max_polled", self.max_polled, 1),
            ("limits.max_viewers", self.max_viewers, 1),
            ("limits.journal_entries", self.journal_entries, 1),
            ("limits.journal_bytes", self.journal_bytes, 1),
            ("limits.held_by_faults", self.held_by_faults, 1),
        ] {
            at_least(setting, value, least)?;
        }
        Ok(())
    }

    fn validate_timeouts(&self) -> Result<(), ConfigError> {
        for (setting, timeout) in [
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

fn at_least(setting: &'static str, value: usize, least: usize) -> Result<(), ConfigError> {
    if value < least {
        return Err(ConfigError::new(setting, format!("must be at least {least}, got {value}")));
    }
    Ok(())
}

fn above_zero(setting: &'static str, timeout: Option<Duration>) -> Result<(), ConfigError> {
    if timeout == Some(Duration::ZERO) {
        return Err(ConfigError::new(setting, "must be more than 0 seconds, got 0"));
    }
    Ok(())
}
