//! Every bound and default, validated. Says what is wrong with a setting; starts nothing.

pub mod certificates;
pub mod error;
pub mod rate;
pub mod state_dir;
pub mod tls;
pub mod turn;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::error::ConfigError;
use crate::config::rate::Rate;
use crate::config::tls::Tls;
use crate::config::turn::TurnRest;
use crate::core::client_ids::ClientIds;
use crate::core::outbox::OutboxBounds;
use crate::core::session::{OnDuplicate, Rules};
use crate::observe::journal::JournalBounds;
use crate::protocol::IceServers;

/// Where the ICE servers that peers are told come from.
#[derive(Debug, Clone)]
pub enum IceSource {
    /// The same for everybody.
    Fixed(IceServers),
    /// Time-limited credentials, computed here for each peer.
    TurnRest(TurnRest),
    /// [`crate::access::hooks::Hooks::ice_servers`] is asked for each peer.
    Hook,
}

/// What `GET /devices` lists where the request does not say (`?format=full`, `?format=ids`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DevicesFormat {
    /// An object for each device, as today's operator does.
    #[default]
    Full,
    /// The ids alone, as the reference does: its page expects them.
    Ids,
}

/// Everything a server can be told. `Default` is made for tests: loopback, a free port, plain, no ICE servers.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Config {
    /// The address to listen on. Default 127.0.0.1: nothing is exposed that nobody asked to expose.
    pub host: IpAddr,
    /// The port to listen on; 0, the default, is a free one.
    pub port: u16,
    /// Where devices register over a local socket (docs/protocol.md 5.1); default nowhere.
    pub device_socket: Option<PathBuf>,
    /// Where devices are announced over a local socket (docs/protocol.md 5.2); default nowhere.
    pub control_socket: Option<PathBuf>,
    /// TLS, or none (the default).
    pub tls: Option<Tls>,
    /// The ICE servers. Default none: a test run must not reach for a public STUN server.
    pub ice: IceSource,
    /// How long a client may wait for its device to register. Default 0, refused at once, as the reference does;
    /// `None` waits for ever.
    pub device_wait_timeout: Option<Duration>,
    /// Who gets an id that two want. Default: the holder, if it is alive.
    pub on_duplicate: OnDuplicate,
    /// Where the client ids of a registration begin. Default: at 1, or behind the last id that the device had here.
    pub client_ids: ClientIds,
    /// How long a hook may take. Default 5 s: a real device hangs up after 10.
    pub hook_timeout: Duration,
    /// Bounds on what peers may take.
    pub limits: Limits,
    /// When a silent connection is found dead.
    pub keepalive: Keepalive,
    /// Names, beside addresses and `localhost`, by which clients and devices may reach the server: what they say as
    /// `Host`. Default none; `*` is any, and lets DNS rebinding in.
    pub allowed_hosts: Vec<String>,
    /// Origins, beside the server's own, whose pages may use the server: `https://panel.lab`. Default none; `*` is any.
    pub allowed_origins: Vec<String>,
    /// Whether to listen on other addresses than loopback without an `authorize` hook. Default no.
    pub allow_unauthenticated: bool,
    /// Whether there is `/echo`, for the WebSocket's own test suite. Default no.
    #[doc(hidden)]
    pub echo: bool,
    /// Whether there is a page for people, at `/`. Default no.
    pub dashboard: bool,
    /// A directory whose files are served beside the endpoints: the web client of a host package. Default none.
    pub assets_dir: Option<PathBuf>,
    /// Whether `/devices/{id}/files/` reaches the device's own web server, at the port it has named on the device
    /// socket. Default no: it lets whoever is a client reach a port of this machine.
    pub proxy_device_files: bool,
    /// What `GET /devices` lists where the request does not say. Default [`DevicesFormat::Full`].
    pub devices_format: DevicesFormat,
    /// Whether what is said is written down in a journal. Default no.
    pub journal: bool,
    /// OS threads that relay. Default 1, which is the fastest for one test run.
    pub workers: usize,
}

/// Bounds on what peers may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The largest message taken in, in bytes of text, fragments added up. Default 256 KiB: four times what a device
    /// can be sent, so that a forward that is merely too large is answered and not cut off.
    pub max_message_size: usize,
    /// The largest message taken in before a peer has registered or connected, in bytes. Default 64 KiB: a stranger is
    /// not given more room than a device could take.
    pub max_first_message: usize,
    /// Connections at a time. Default 16,384: ten thousand devices, and clients; 4 KiB each when they are idle.
    pub max_connections: usize,
    /// Connections at a time from one address; loopback is exempt. Default 512: a lab behind one address.
    pub max_connections_per_address: usize,
    /// New connections a second, and at once. Default 30,000: twice what one core can open.
    pub new_per_second: u32,
    /// Connections that have not said yet what they want; beyond it the oldest of them goes. Default 1,024: honest ones
    /// take milliseconds.
    pub max_opening: usize,
    /// Devices at a time. Default 16,384.
    pub max_devices: usize,
    /// The longest device id, in bytes; the names of a pre-registration as well. Default 256 (docs/protocol.md 4).
    pub max_device_id: usize,
    /// Clients of one device at a time. Default 1,024.
    pub max_clients_per_device: usize,
    /// Messages one peer may send. Default 10,000 a second, 20,000 at once: far beyond any session, and a bound on what
    /// one peer can take of a core.
    pub messages: Rate,
    /// Bytes one peer may send, as they come over the network. Default 16 MiB a second, 32 MiB at once.
    pub bytes: Rate,
    /// Errors that leave a peer connected. Default 20 a second, 100 at once.
    pub errors: Rate,
    /// Pings and pongs one peer may send. Default 20 a second, 100 at once: real ones ping every 3 s.
    pub pings: Rate,
    /// How long a peer may take none of what is written to it. Default 10 s; then it is closed with 1013.
    pub write_timeout: Duration,
    /// Messages that may wait for one peer. Default 256: a session takes a few dozen.
    pub outbox_messages: usize,
    /// Bytes that may wait for one peer. Default 1 MiB.
    pub outbox_bytes: usize,
    /// How long a peer may take to register or connect after the upgrade. Default 10 s; `None` is for ever.
    pub first_message_timeout: Option<Duration>,
    /// How long a request head may take. Default 5 s.
    pub request_head_timeout: Duration,
    /// How many headers a request may have. Default 64: browsers send about 20.
    pub max_headers: usize,
    /// How large a request head may be, in bytes, at least 8192. Default 16 KiB.
    pub max_request_head: usize,
    /// How long a TLS handshake may take. Default 5 s.
    pub tls_handshake_timeout: Duration,
    /// How long the holder of an id has to answer the ping when somebody else wants it. Default 2 s
    /// (docs/protocol.md 4): devices register again 1 s after they lost their connection.
    pub probe_timeout: Duration,
    /// How long a closed connection may take to write what waits and to say goodbye. Default 5 s.
    pub close_timeout: Duration,
    /// Entries a journal keeps. Default 10,000: hundreds of sessions.
    pub journal_entries: usize,
    /// Bytes of messages a journal keeps. Default 16 MiB.
    pub journal_bytes: usize,
    /// Forwards that faults may hold back; more go on at once. Default 10,000.
    pub held_by_faults: usize,
    /// How long a client that polls may stay away. Default 30 s (docs/protocol.md 5.3); then it has left. No request of it
    /// waits for longer.
    pub polled_timeout: Duration,
    /// Clients that poll, at a time. Default 1,024: each may keep twice what an outbox holds.
    pub max_polled: usize,
    /// Pages that watch the server live, at a time. Default 32: each is told what has moved four times a second.
    pub max_viewers: usize,
    /// How long a device's own web server may take to answer, and between two parts of an answer. Default 10 s.
    pub proxy_timeout: Duration,
    /// How long a peer may take to answer the goodbye of a server that stops. Default 250 ms: `stop()` waits for it.
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

/// When a silent connection is found dead: half-open TCP within `interval + timeout`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence after which a peer is pinged. Default 10 s; `None` never pings.
    pub interval: Option<Duration>,
    /// How long the pong may take. Default 5 s.
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
    /// Checks what the types allow and the server cannot do.
    ///
    /// # Errors
    /// [`ConfigError`], which names the setting.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let Limits { max_message_size, outbox_messages, outbox_bytes, max_headers, max_request_head, .. } = self.limits;
        at_least("limits.max_message_size", max_message_size, 128)?;
        at_least("limits.outbox_messages", outbox_messages, 1)?;
        at_least("limits.outbox_bytes", outbox_bytes, crate::protocol::MAX_DEVICE_MESSAGE)?;
        at_least("limits.max_headers", max_headers, 1)?;
        at_least("limits.max_request_head", max_request_head, 8192)?;
        for (setting, least, value) in [
            ("limits.max_first_message", 128, self.limits.max_first_message),
            ("limits.max_connections", 1, self.limits.max_connections),
            ("limits.max_connections_per_address", 1, self.limits.max_connections_per_address),
            ("limits.max_opening", 1, self.limits.max_opening),
            ("limits.max_devices", 1, self.limits.max_devices),
            ("limits.max_device_id", 1, self.limits.max_device_id),
            ("limits.max_clients_per_device", 1, self.limits.max_clients_per_device),
            ("limits.max_polled", 1, self.limits.max_polled),
            ("limits.max_viewers", 1, self.limits.max_viewers),
        ] {
            at_least(setting, value, least)?;
        }
        at_least("limits.journal_entries", self.limits.journal_entries, 1)?;
        at_least("limits.journal_bytes", self.limits.journal_bytes, 1)?;
        at_least("limits.held_by_faults", self.limits.held_by_faults, 1)?;
        at_least("workers", self.workers, 1)?;
        if self.workers > 1024 {
            return Err(ConfigError::new("workers", format!("{} is more than 1024", self.workers)));
        }
        for (setting, timeout) in [
            ("hook_timeout", self.hook_timeout),
            ("limits.request_head_timeout", self.limits.request_head_timeout),
            ("limits.tls_handshake_timeout", self.limits.tls_handshake_timeout),
            ("limits.probe_timeout", self.limits.probe_timeout),
            ("limits.close_timeout", self.limits.close_timeout),
            ("limits.write_timeout", self.limits.write_timeout),
            ("limits.goodbye_timeout", self.limits.goodbye_timeout),
            ("limits.polled_timeout", self.limits.polled_timeout),
            ("limits.proxy_timeout", self.limits.proxy_timeout),
            ("keepalive.timeout", self.keepalive.timeout),
        ] {
            more_than_zero(setting, Some(timeout))?;
        }
        if let Some(directory) = &self.assets_dir
            && !directory.is_dir()
        {
            return Err(ConfigError::new("assets_dir", format!("{} is no directory", directory.display())));
        }
        more_than_zero("limits.first_message_timeout", self.limits.first_message_timeout)?;
        more_than_zero("keepalive.interval", self.keepalive.interval)
    }

    /// The part that sessions go by.
    pub fn rules(&self) -> Rules {
        Rules {
            first_message_timeout: self.limits.first_message_timeout,
            device_wait_timeout: self.device_wait_timeout,
            on_duplicate: self.on_duplicate,
            max_devices: self.limits.max_devices,
            max_device_id: self.limits.max_device_id,
            max_clients_per_device: self.limits.max_clients_per_device,
        }
    }

    /// The part that a journal goes by.
    pub fn journal_bounds(&self) -> JournalBounds {
        JournalBounds { entries: self.limits.journal_entries, bytes: self.limits.journal_bytes }
    }

    /// The part that outboxes go by.
    pub fn outbox_bounds(&self) -> OutboxBounds {
        OutboxBounds { messages: self.limits.outbox_messages, bytes: self.limits.outbox_bytes }
    }
}

fn at_least(setting: &'static str, value: usize, least: usize) -> Result<(), ConfigError> {
    if value < least {
        return Err(ConfigError::new(setting, format!("{value} is less than {least}")));
    }
    Ok(())
}

fn more_than_zero(setting: &'static str, timeout: Option<Duration>) -> Result<(), ConfigError> {
    if timeout == Some(Duration::ZERO) {
        return Err(ConfigError::new(setting, "must be more than 0 seconds"));
    }
    Ok(())
}
