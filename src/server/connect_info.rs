//! The origin of a request, and the upgrade that its endpoint accepted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;

use crate::access::connection_limits::Permit;
use crate::access::origin_policy::Scheme;
use crate::access::request_rates::ConnectionRequests;
use crate::core::peer::Peer;
use crate::server::ws::open::Purpose;

/// An accepted upgrade. The endpoint stores it in [`ConnectInfo::upgrade`]; the connection's task continues with it.
pub(super) struct Upgrade {
    /// Resolves to the transport once hyper has written the 101.
    pub(super) transport: OnUpgrade,
    /// The peer, after `authorize` accepted it.
    pub(super) peer: Peer,
    /// The purpose of the WebSocket.
    pub(super) purpose: Purpose,
    /// The time at which the endpoint accepted. Deadlines count from here.
    ///
    /// The peer may read the 101 before the connection's task runs again.
    pub(super) agreed_at: Instant,
}

/// Information about the connection. It travels in the extensions of each request.
#[derive(Clone)]
pub(super) struct ConnectInfo {
    /// The address of the sender, or the one that a trusted proxy tells; `None` on a Unix socket.
    pub(super) address: Option<SocketAddr>,
    /// Whether a trusted proxy has told the address.
    pub(super) is_forwarded: bool,
    /// The scheme of the listener, or the one that a trusted proxy tells.
    pub(super) scheme: Scheme,
    /// The host and port that a trusted proxy tells, instead of `Host`.
    pub(super) host: Option<String>,
    /// The subject of the sender's TLS client certificate. The fingerprint on the listener for nodes.
    pub(super) certificate: Option<Arc<str>>,
    /// The slot in which an endpoint stores an accepted upgrade.
    pub(super) upgrade: Arc<Mutex<Option<Upgrade>>>,
    /// The rate of the requests of this connection.
    pub(super) requests: Arc<ConnectionRequests>,
    /// The connection's permit.
    pub(super) permit: Arc<Permit>,
}
