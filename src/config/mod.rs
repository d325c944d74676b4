//! The settings of a server, with their defaults and bounds.
//!
//! [`Config::validate`] names the first invalid setting. This module starts nothing.

mod adb;
pub mod allowances;
mod backpressure;
pub mod bounds;
pub mod certificates;
pub mod cluster;
pub mod control;
pub mod error;
pub mod ice_command;
pub mod jwt;
mod keepalive;
mod limits;
pub mod listen;
pub mod rate;
mod reload;
pub mod renewal;
pub mod state_dir;
pub mod tls;
pub mod turn;
pub mod upstream;

pub use self::adb::Adb;
pub use self::backpressure::Backpressure;
pub use self::keepalive::Keepalive;
pub use self::limits::{HttpLimits, Limits};

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::allowances::{AllowedHost, AllowedOrigin, parse_each};
use crate::config::bounds::{MIN_CHECK_INTERVAL, above_zero, at_least, at_most, within};
use crate::config::cluster::Cluster;
use crate::config::control::Control;
use crate::config::error::ConfigError;
use crate::config::ice_command::IceCommand;
use crate::config::jwt::Jwt;
use crate::config::listen::Listen;
use crate::config::tls::Tls;
use crate::config::turn::TurnRest;
use crate::config::upstream::Upstream;
use crate::core::aliases::LocalNames;
use crate::core::client_ids::ClientIds;
use crate::core::session::{OnDuplicate, Rules};
use crate::observe::faults::HeldBounds;
use crate::observe::journal::JournalBounds;
use crate::protocol::IceServers;
use crate::protocol::candidates::AddressRules;

/// The source of the ICE servers in `config` messages.
#[derive(Debug, Clone)]
pub enum IceSource {
    /// The same list for every peer.
    Fixed(IceServers),
    /// Time-limited credentials, computed for each peer.
    TurnRest(TurnRest),
    /// A command prints the list, which all peers share for a time.
    Command(Arc<IceCommand>),
    /// The hook [`crate::access::hooks::Hooks::ice_servers`] returns the list for each peer.
    Hook,
}

impl IceSource {
    /// Whether both give the same servers. The hook is one, whichever function is behind it.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fixed(one), Self::Fixed(other)) => one == other,
            (Self::TurnRest(one), Self::TurnRest(other)) => one == other,
            (Self::Command(one), Self::Command(other)) => one == other,
            (Self::Hook, Self::Hook) => true,
            _ => false,
        }
    }
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

/// The end of a connection whose token or grant expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnTokenExpiry {
    /// It is closed (docs/protocol.md 4.3.18).
    #[default]
    Close,
    /// It stays. Later requests need another token.
    Keep,
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
    /// Sockets that listen already, as systemd passes them. Each takes the place of the one that the server would open
    /// for a listener or a local socket of the same address. Default none.
    pub sockets: Vec<Arc<OwnedFd>>,
    /// The addresses at which `GET /metrics` is answered, and nothing else. They ask for no token. Default none.
    pub metrics: Vec<Listen>,
    /// The control API: its addresses, its token and its bounds. Default off.
    pub control: Control,
    /// The path of the local socket for devices (docs/protocol.md 5.1). Default none.
    pub device_socket: Option<PathBuf>,
    /// The path of the local socket for pre-registrations (docs/protocol.md 5.2). Default none.
    pub control_socket: Option<PathBuf>,
    /// The certificate and key for TLS. Default none: plain text.
    pub tls: Option<Tls>,
    /// How often the files of the certificate are read again. Default 60 s: ACME clients and Kubernetes renew files weeks
    /// before the certificate expires. `None` never.
    pub tls_check_interval: Option<Duration>,
    /// The source of ICE servers. Default an empty list: a test run must not contact a public STUN server.
    pub ice: IceSource,
    /// How long a client may wait for its device to register (docs/protocol.md 1.19). Default 0: the client is refused at
    /// once. `None` waits forever.
    pub device_wait_timeout: Option<Duration>,
    /// Which device keeps an id that two devices want. Default: the holder, if it answers a ping.
    pub on_duplicate: OnDuplicate,
    /// Whether a device has one client at a time, at most (docs/protocol.md 4.2.13). Default no.
    pub one_client_per_device: bool,
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
    /// Proxies whose `X-Forwarded-*` and `Forwarded` headers count: networks, addresses, and `unix`. Default none.
    pub trusted_proxies: Vec<String>,
    /// JSON Web Tokens that peers need, with the keys of their issuers. Default none.
    pub jwt: Option<Jwt>,
    /// Whether a connection is closed when its token or grant expires. Default: it is closed.
    pub on_token_expiry: OnTokenExpiry,
    /// Whether to listen on an address other than loopback without an `authorize` hook. Default no.
    pub allow_unauthenticated: bool,
    /// Whether to log each HTTP request. Default no.
    pub access_log: bool,
    /// The file that gets a record of each admission and refusal. Default none.
    pub audit_log: Option<PathBuf>,
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
    /// adb connections. Default off.
    pub adb: Adb,
    /// The format of `GET /devices` for a request that names none. Default [`DevicesFormat::Full`].
    pub devices_format: DevicesFormat,
    /// Whether to record messages in a journal. Default no.
    pub journal: bool,
    /// The addresses at which clients reach devices, where those see others: `INNER=OUTER`, each an address or a network.
    /// They replace the addresses of host candidates. Default none: no message of a device is read for it.
    pub advertise_address: Vec<String>,
    /// The cluster of which this server is a node. Default none.
    pub cluster: Option<Cluster>,
    /// The server to which all is passed on: this one is a proxy. Default none.
    pub upstream: Option<Upstream>,
    /// Worker threads of the runtime. Default 1: the fastest for one test run.
    pub workers: usize,
}

/// The defaults, except the ICE servers.
const DEFAULT: Config = Config {
    host: IpAddr::V4(Ipv4Addr::LOCALHOST),
    port: 0,
    listen: Vec::new(),
    sockets: Vec::new(),
    metrics: Vec::new(),
    control: control::DEFAULT,
    device_socket: None,
    control_socket: None,
    tls: None,
    tls_check_interval: Some(Duration::from_secs(60)),
    ice: IceSource::Hook,
    device_wait_timeout: Some(Duration::ZERO),
    on_duplicate: OnDuplicate::Reject,
    one_client_per_device: false,
    client_ids: ClientIds::FromOne,
    hook_timeout: Duration::from_secs(5),
    limits: limits::DEFAULT,
    keepalive: keepalive::DEFAULT,
    allowed_hosts: Vec::new(),
    allowed_origins: Vec::new(),
    trusted_proxies: Vec::new(),
    jwt: None,
    on_token_expiry: OnTokenExpiry::Close,
    allow_unauthenticated: false,
    access_log: false,
    audit_log: None,
    echo: false,
    dashboard: false,
    assets_dir: None,
    proxy_device_files: false,
    adb: adb::DEFAULT,
    devices_format: DevicesFormat::Full,
    journal: false,
    advertise_address: Vec::new(),
    cluster: None,
    upstream: None,
    workers: 1,
};

impl Default for Config {
    fn default() -> Self {
        Self { ice: IceSource::Fixed(IceServers::default()), ..DEFAULT }
    }
}

impl Config {
    /// Checks the values that the types permit but the server does not support.
    ///
    /// # Errors
    /// [`ConfigError`], which names the first invalid setting.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let listeners = self.listeners();
        let others = [("listen", &listeners[..]), ("metrics", &self.metrics), ("control_api", &self.control.listen)];
        listen::validate(others, self.tls.is_some())?;
        let sockets =
            [("device_socket", self.device_socket.as_ref()), ("control_socket", self.control_socket.as_ref())];
        let [_, metrics, control] = others;
        listen::validate_paths(sockets, [("listen", &self.listen), metrics, control])?;
        self.control.validate()?;
        self.validate_bounds()?;
        parse_each("allowed_hosts", &self.allowed_hosts, AllowedHost::parse)?;
        AddressRules::parse(&self.advertise_address).map_err(|what| ConfigError::new("advertise_address", what))?;
        parse_each("allowed_origins", &self.allowed_origins, AllowedOrigin::parse)?;
        self.cluster.as_ref().map_or(Ok(()), Cluster::validate)?;
        self.validate_upstream()?;
        if let Some(directory) = &self.assets_dir
            && !directory.is_dir()
        {
            return Err(ConfigError::new("assets_dir", format!("{} is not a directory", directory.display())));
        }
        Ok(())
    }

    /// Checks that nothing is set which the server behind a proxy decides.
    fn validate_upstream(&self) -> Result<(), ConfigError> {
        let others = [
            ("device_socket", self.device_socket.is_some()),
            ("control_socket", self.control_socket.is_some()),
            ("cluster", self.cluster.is_some()),
            ("one_client_per_device", self.one_client_per_device),
            ("assets_dir", self.assets_dir.is_some()),
        ];
        let other = others.into_iter().find(|(_, is_set)| self.upstream.is_some() && *is_set);
        let why = "has no effect with upstream: a proxy passes all on, and the server behind it decides";
        other.map_or(Ok(()), |(setting, _)| Err(ConfigError::new(setting, why)))
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
            one_client_per_device: self.one_client_per_device,
            write_timeout: self.limits.write_timeout,
            close_timeout: self.limits.close_timeout,
            goodbye_timeout: self.limits.goodbye_timeout,
            ping_interval: self.keepalive.interval,
            pong_timeout: self.keepalive.timeout,
            borrow_timeout: self.limits.backpressure.borrow_timeout,
            max_message_age: self.limits.backpressure.max_message_age,
            max_held_bytes: self.limits.backpressure.held_bytes,
            is_clustered: self.cluster.is_some(),
            advertise: AddressRules::parse(&self.advertise_address).ok().flatten().map(Arc::new),
        }
    }

    /// The names in the cluster of devices on local sockets, if they have others there than their ids.
    pub fn local_names(&self) -> Option<LocalNames> {
        let cluster = self.cluster.as_ref()?;
        Some(cluster.template().ok()??.names(&cluster.node))
    }

    /// The settings that the journal uses.
    pub fn journal_bounds(&self) -> JournalBounds {
        JournalBounds { entries: self.limits.journal_entries, bytes: self.limits.journal_bytes }
    }

    /// The bounds on forwards that faults hold back.
    pub fn held_bounds(&self) -> HeldBounds {
        HeldBounds { messages: self.limits.held_by_faults, bytes: self.limits.backpressure.held_by_faults_bytes }
    }
}

impl Config {
    /// Checks all numbers and times.
    fn validate_bounds(&self) -> Result<(), ConfigError> {
        self.limits.validate_sizes()?;
        within("workers", self.workers, 1, 1024)?;
        self.limits.validate_timeouts()?;
        self.adb.validate()?;
        for (setting, time) in [
            ("hook_timeout", Some(self.hook_timeout)),
            ("Upstream.timeout", self.upstream.as_ref().map(|upstream| upstream.timeout)),
            ("keepalive.timeout", Some(self.keepalive.timeout)),
            ("limits.first_message_timeout", self.limits.first_message_timeout),
            ("keepalive.interval", self.keepalive.interval),
        ] {
            above_zero(setting, time)?;
        }
        at_least("tls_check_interval", self.tls_check_interval, MIN_CHECK_INTERVAL)?;
        at_most("device_wait_timeout", self.device_wait_timeout)
    }
}
