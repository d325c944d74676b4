//! Who is at the other end of a connection, as far as the transport and the hooks have told. Facts only.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use wildmatch::WildMatch;

pub use crate::protocol::Role;
use crate::protocol::{DeviceId, MAX_DEVICE_MESSAGE};

/// The request a connection began with.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The path, as it came.
    pub path: String,
    /// The query string without `?`, empty where there is none.
    pub query: String,
    /// Header names in lower case with their values, in order; bytes that are no UTF-8 are replaced.
    pub headers: Vec<(String, String)>,
}

/// One peer.
#[derive(Debug)]
pub struct Peer {
    /// What it came for.
    pub role: Role,
    /// Where it came from, if it came over the network.
    pub address: Option<SocketAddr>,
    /// When the connection was accepted.
    pub since: SystemTime,
    /// Its request; kept only where there is a hook to see it.
    pub request: Option<Box<Request>>,
    /// Whom its TLS certificate is for, where one was asked for: `CN=alice, O=lab`.
    pub certificate: Option<Arc<str>>,
    /// What `authorize` let it in with.
    pub grant: Grant,
    /// Whether it is told errors. Cuttlefish's own devices are not: those that offered the sub-protocol
    /// `webrtc-operator`, and those on the device socket. An error makes them reconnect in a storm, or never again
    /// (docs/protocol.md 4).
    pub hears_errors: bool,
    /// The largest message it takes, in bytes of text; told of devices only. 65,536 over a WebSocket (docs/protocol.md 2.8).
    pub max_message: usize,
}

/// What [`crate::access::hooks::Hooks::authorize`] lets a peer in with.
#[derive(Debug, Clone, Default)]
pub struct Grant {
    /// Who it is, as JSON text.
    pub identity: Option<Arc<str>>,
    /// Which devices it may register as, connect to and see listed, by patterns of their ids; `None`: all. The others
    /// are to it as if they were not there.
    pub devices: Option<Arc<[WildMatch]>>,
}

impl Grant {
    /// A grant for devices whose ids match one of these: `*` stands for any characters, `?` for one.
    pub fn of(identity: Option<Arc<str>>, patterns: &[impl AsRef<str>]) -> Self {
        let devices = patterns.iter().map(|pattern| WildMatch::new(pattern.as_ref())).collect();
        Self { identity, devices: Some(devices) }
    }

    /// Whether this device is in it.
    pub fn covers(&self, id: &DeviceId) -> bool {
        let matches = |patterns: &Arc<[WildMatch]>| patterns.iter().any(|pattern| pattern.matches(id.as_str()));
        self.devices.as_ref().is_none_or(matches)
    }
}

impl Peer {
    /// A peer of which nothing is known but its role: for tests and transports without addresses.
    pub fn anonymous(role: Role) -> Self {
        Self {
            role,
            address: None,
            since: SystemTime::now(),
            request: None,
            certificate: None,
            grant: Grant::default(),
            hears_errors: true,
            max_message: MAX_DEVICE_MESSAGE,
        }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.address {
            Some(address) => write!(f, "{address}"),
            None => f.write_str("unknown address"),
        }
    }
}
