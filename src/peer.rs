//! Who is at the other end of a connection, as far as the transport and the hooks have told. Facts only.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// `/register_device`
    Device,
    /// `/connect_client`
    Client,
    /// Any other request.
    Http,
}

impl Role {
    /// `device`, `client` or `http`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Client => "client",
            Self::Http => "http",
        }
    }
}

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
    /// What `authorize` found out about it, as JSON text.
    pub identity: Option<Arc<str>>,
}

impl Peer {
    /// A peer of which nothing is known but its role: for tests and transports without addresses.
    pub fn anonymous(role: Role) -> Self {
        Self { role, address: None, since: SystemTime::now(), request: None, certificate: None, identity: None }
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
