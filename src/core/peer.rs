//! Facts about the peer of a connection, from the transport and the hooks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use wildmatch::WildMatch;

use super::address;
pub use crate::protocol::Role;
use crate::protocol::candidates::AddressRules;
use crate::protocol::{DeviceId, MAX_DEVICE_MESSAGE};

/// HTTP request that started a connection.
#[derive(Clone, Default)]
pub struct Request {
    /// Path, as received.
    pub path: String,
    /// Query string without `?`; empty if there is none.
    pub query: String,
    /// Header names in lower case with their values, in order. Bytes that are not UTF-8 are replaced.
    pub headers: Vec<(String, String)>,
}

impl std::fmt::Debug for Request {
    /// Leaves out the query and the values of headers, since both may have tokens.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A request in one allocation, for as long as its peer is connected.
pub struct KeptRequest(Box<str>);

/// Stands between the parts of a [`KeptRequest`]. No part of a request contains it: hyper refuses it in paths, queries and headers.
const BETWEEN: char = '\n';

impl KeptRequest {
    /// Packs a request.
    pub fn of(request: &Request) -> Self {
        let headers = || request.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        Self::pack(&request.path, &request.query, headers)
    }

    /// Packs path, query and headers. Bytes of a value that are not UTF-8 are replaced.
    ///
    /// The headers are read twice, so that the text is allocated once.
    pub fn pack<'a, H>(path: &str, query: &str, headers: impl Fn() -> H) -> Self
    where
        H: Iterator<Item = (&'a str, &'a [u8])>,
    {
        let between = BETWEEN.len_utf8();
        let length: usize = headers().map(|(name, value)| 2 * between + name.len() + value.len()).sum();
        let mut text = String::with_capacity(path.len() + between + query.len() + length);
        text.push_str(path);
        let mut add = |part: &str| {
            text.push(BETWEEN);
            text.push_str(part);
        };
        add(query);
        for (name, value) in headers() {
            add(name);
            add(&String::from_utf8_lossy(value));
        }
        Self(text.into())
    }

    /// Unpacks the request.
    pub fn unpack(&self) -> Request {
        let mut parts = self.0.split(BETWEEN).map(str::to_owned);
        let (path, query) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let mut headers = Vec::new();
        while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
            headers.push((name, value));
        }
        Request { path, query, headers }
    }
}

impl std::fmt::Debug for KeptRequest {
    /// Leaves out the query and the values of headers, as [`Request`] does.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.unpack().fmt(f)
    }
}

/// Facts about one peer.
#[derive(Debug)]
pub struct Peer {
    /// Role, by its endpoint.
    pub role: Role,
    /// Network address; `None` on a local socket.
    pub address: Option<SocketAddr>,
    /// Whether it is a program of this machine: it came over a local socket of devices, or from a loopback address without
    /// a sign of a proxy. Its statements about ports of this machine count only then.
    pub is_local: bool,
    /// Time when the connection was accepted.
    pub since: SystemTime,
    /// Its request, kept only if a hook may read it.
    pub request: Option<Arc<KeptRequest>>,
    /// Subject of its TLS certificate, if one was requested: `CN=alice, O=lab`.
    pub certificate: Option<Arc<str>>,
    /// Rights that `authorize` granted.
    pub grant: Grant,
    /// Time at which its connection is closed, since the grant has expired (docs/protocol.md 4.3.18).
    pub expires: Option<Instant>,
    /// Whether it gets error messages.
    ///
    /// A Cuttlefish device does not: it offered the sub-protocol `webrtc-operator` on `/register_device`, or came over
    /// the device socket (docs/protocol.md 4.1.1 and 4.1.2). After an error, it reconnects in a storm, or never
    /// connects again.
    pub hears_errors: bool,
    /// Longest message that it takes, in bytes of text. Used for devices only.
    ///
    /// 65,536 over a WebSocket (docs/protocol.md 2.8). On the device socket, the setting `max_message_size` or the
    /// limit of the system, whichever is smaller (docs/protocol.md 5.1.6).
    pub max_message: usize,
}

/// Rights of a peer, granted by [`crate::access::hooks::Hooks::authorize`].
#[derive(Debug, Clone, Default)]
pub struct Grant {
    /// Identity of the peer, as JSON text.
    pub identity: Option<Arc<str>>,
    /// Devices that it may register as, connect to and list, as patterns of ids; `None` grants all.
    ///
    /// To this peer, any other device appears as not registered.
    pub devices: Option<Arc<[WildMatch]>>,
    /// Addresses at which clients reach it, if it is a device; `None` leaves those of the settings.
    pub advertise: Option<Arc<AddressRules>>,
    /// Whether it may manage these devices on the dashboard: disconnect them and their clients, and export payloads.
    pub manage: bool,
    /// Whether, as a client, it has a device for itself: it connects only to a device without clients, and no other client
    /// connects meanwhile (docs/protocol.md 4.2.12).
    pub exclusive: bool,
    /// Time for which the grant holds; `None` is forever.
    pub valid_for: Option<Duration>,
}

impl Grant {
    /// Creates a grant for devices whose ids match a pattern. `*` stands for any characters, `?` for one.
    pub fn of(identity: Option<Arc<str>>, patterns: &[impl AsRef<str>]) -> Self {
        let devices = patterns.iter().map(|pattern| WildMatch::new(pattern.as_ref())).collect();
        Self { identity, devices: Some(devices), ..Self::default() }
    }

    /// Returns whether the grant covers this device.
    pub fn covers(&self, id: &DeviceId) -> bool {
        let matches = |patterns: &Arc<[WildMatch]>| patterns.iter().any(|pattern| pattern.matches(id.as_str()));
        self.devices.as_ref().is_none_or(matches)
    }
}

impl Peer {
    /// Creates a peer with a role and no other facts, for tests and for transports without addresses.
    pub fn anonymous(role: Role) -> Self {
        Self {
            role,
            address: None,
            is_local: false,
            since: SystemTime::now(),
            request: None,
            certificate: None,
            grant: Grant::default(),
            expires: None,
            hears_errors: true,
            max_message: MAX_DEVICE_MESSAGE,
        }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.address {
            Some(address) => address::write(f, address),
            None => f.write_str("unknown address"),
        }
    }
}
