//! Where a request came from, and the upgrade that its endpoint has agreed to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;

use crate::access::connection_limits::Permit;
use crate::core::peer::Peer;
use crate::protocol::DeviceId;

/// What an endpoint leaves behind when it agrees to an upgrade; the connection's task goes on with it.
pub(super) struct Upgrade {
    pub(super) transport: OnUpgrade,
    pub(super) peer: Peer,
    /// The device that the request names, where its path does.
    pub(super) device: Option<DeviceId>,
    /// When the endpoint agreed. Deadlines count from here: the 101 may reach the peer before the task goes on.
    pub(super) agreed_at: Instant,
}

/// Travels with each request, so that endpoints know where it came from and where to leave an [`Upgrade`].
#[derive(Clone)]
pub(super) struct ConnectInfo {
    pub(super) address: SocketAddr,
    /// Whom the TLS certificate of its sender is for.
    pub(super) certificate: Option<Arc<str>>,
    pub(super) upgrade: Arc<Mutex<Option<Upgrade>>>,
    /// For requests that take their time, and are meant to.
    pub(super) permit: Arc<Permit>,
}
