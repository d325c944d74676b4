//! Polled clients (docs/protocol.md 5.3). For each, a [`PolledConnection`] has the session, which requests call, and the
//! messages that wait. One task, the [`keeper`], does what no request does.
//!
//! A message is kept until the client acknowledges it by asking for a later one. A client that has not polled for
//! `polled_timeout` is gone (docs/protocol.md 5.3.30).

mod connection;
mod forward;
mod keeper;
mod kept;
mod registry;

use std::fmt::Write as _;
use std::sync::Arc;

pub(in crate::server) use self::connection::PolledConnection;
pub(in crate::server) use self::kept::{PollError, PollQuery};
use self::registry::Full;
pub(crate) use self::registry::Polled;
use crate::core::party::Party;
use crate::core::peer::Peer;
use crate::core::session::{ClientSession, Rules};
use crate::protocol::refusal::Refusal;
use crate::protocol::{DeviceId, Text};
use crate::server::cluster::handle::Cluster;
use crate::server::session_driver::SessionDriver;
use crate::server::shared::Shared;

/// Opens a polled connection, and waits for the device info.
///
/// Returns the connection id and the message `{"device_info":…}`.
pub(in crate::server) async fn connect(
    shared: &Arc<Shared>,
    polled: &Arc<Polled>,
    peer: Peer,
    device: DeviceId,
) -> Result<(String, Text), ConnectError> {
    let id = new_id(shared.cluster.as_deref()).ok_or(ConnectError::Failed)?;
    let (settings, mut context) = (shared.settings(), shared.context(peer));
    let timeout = settings.limits.polled_timeout;
    // The client takes messages by its requests: it is slow by the time that it has for them (docs/protocol.md 4.3.10).
    context.rules = Arc::new(Rules { write_timeout: timeout, ..(*context.rules).clone() });
    let (peer, outbox) = (Arc::clone(&context.peer), Arc::clone(&context.outbox));
    let connection = Arc::new(PolledConnection::new(shared, peer, outbox, device.clone()));
    let registered = polled.register(&id, &connection, settings.limits.max_polled);
    let registration = registered.map_err(|Full(party)| ConnectError::Full(party))?;
    let now = shared.clock.now();
    let (session, first) = ClientSession::of_device(context, device.clone(), now);
    let mut session = SessionDriver::new(Arc::clone(shared), session, false, now);
    session.handle_step(first);
    connection.begin(session);
    polled.hand_over(keeper::work(registration), |new| {
        drop(shared.tasks.spawn(keeper::run(Arc::clone(shared), new)));
    });
    // A client that disconnects before the device info has left.
    let mut cancel = CancelOnDrop(Some(Arc::clone(&connection)));
    // A pending request does not show whether its client is still there, so it waits no longer than `polled_timeout`.
    let first = shared.clock.timeout(timeout, connection.first_message()).await;
    let info = match first {
        Some(Some(info)) => info,
        Some(None) => return Err(ConnectError::of(&connection)),
        None => return Err(ConnectError::Refused(Refusal::DeviceNotFound(device))),
    };
    cancel.0 = None;
    Ok((id, info))
}

/// The reason why no polled connection was opened.
pub(in crate::server) enum ConnectError {
    /// The session refused the client.
    Refused(Refusal),
    /// The server stops.
    Stopping,
    /// There are too many polled connections: in all, or of one party.
    Full(Option<Party>),
    /// The system's random source failed, or a bug ended the session.
    Failed,
}

impl ConnectError {
    /// The reason why the session ended before it had the device info.
    fn of(connection: &PolledConnection) -> Self {
        match connection.outbox.refusal() {
            Some(refusal) => Self::Refused(refusal),
            None if connection.shared.drain.no_more.is_cancelled() => Self::Stopping,
            None => Self::Failed,
        }
    }
}

/// 128 bits from the system's random source (docs/protocol.md 5.3.29): the id is the client's only credential.
///
/// In a cluster, the tag of the node stands before them, so that each node knows which one has the connection.
fn new_id(cluster: Option<&Cluster>) -> Option<String> {
    let mut secret = [0; 16];
    rustls::crypto::ring::default_provider().secure_random.fill(&mut secret).ok()?;
    let tag = cluster.map(|cluster| cluster.incarnation.tag() + ".").unwrap_or_default();
    Some(secret.iter().fold(tag, |mut id, byte| {
        let _infallible = write!(id, "{byte:02x}");
        id
    }))
}

/// Ends a connection whose HTTP client disconnected before it got the connection id.
struct CancelOnDrop(Option<Arc<PolledConnection>>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.cancel();
        }
    }
}
