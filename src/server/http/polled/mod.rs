//! Polled clients (docs/protocol.md 5.3). For each, a [`PolledConnection`] connects its requests with its session,
//! which a [`MessagePump`] drives.
//!
//! A message is kept until the client acknowledges it by asking for a later one. A client that has not polled for
//! `polled_timeout` is gone (docs/protocol.md 5.3.30).

mod connection;
mod kept;
mod transport;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

pub(in crate::server) use self::connection::PolledConnection;
use self::connection::{Phase, State};
pub(in crate::server) use self::kept::{PollError, PollQuery};
use self::transport::PolledTransport;
use crate::core::peer::Peer;
use crate::core::session::ClientSession;
use crate::protocol::refusal::Refusal;
use crate::protocol::{DeviceId, Text};
use crate::server::message_pump::MessagePump;
use crate::server::shared::Shared;

/// The polled connections of one server, by connection id.
#[derive(Default)]
pub(crate) struct Polled(Mutex<HashMap<String, Arc<PolledConnection>>>);

impl Polled {
    /// Finds a connection.
    pub(in crate::server) fn find(&self, id: &str) -> Option<Arc<PolledConnection>> {
        self.0.lock().get(id).cloned()
    }

    /// Registers a connection, unless there are `limit` already.
    fn register(
        self: &Arc<Self>,
        id: &str,
        connection: &Arc<PolledConnection>,
        limit: usize,
    ) -> Result<Registration, ConnectError> {
        let mut connections = self.0.lock();
        if connections.len() >= limit {
            return Err(ConnectError::Full);
        }
        connections.insert(id.to_owned(), Arc::clone(connection));
        drop(connections);
        Ok(Registration { polled: Arc::clone(self), id: id.to_owned(), connection: Arc::clone(connection) })
    }
}

/// Opens a polled connection, and waits for the device info.
///
/// Returns the connection id and the message `{"device_info":…}`.
pub(in crate::server) async fn connect(
    shared: &Arc<Shared>,
    polled: &Arc<Polled>,
    peer: Peer,
    device: DeviceId,
) -> Result<(String, Text), ConnectError> {
    let id = new_id().ok_or(ConnectError::Failed)?;
    let context = shared.context(peer);
    let connection = Arc::new(PolledConnection {
        shared: Arc::clone(shared),
        device: device.clone(),
        outbox: Arc::clone(&context.outbox),
        state: Mutex::new(State { last_seen: Some(shared.clock.now()), ..State::default() }),
        arrived: Notify::new(),
    });
    let registration = polled.register(&id, &connection, shared.config.limits.max_polled)?;
    let address = context.peer.address;
    let (session, first) = ClientSession::of_device(context, device.clone(), shared.clock.now());
    let pump = MessagePump::new(Arc::clone(shared), session, first, PolledTransport(Arc::clone(&connection)));
    drop(shared.spawn(Box::pin(run(pump, registration)), address));
    // A client that disconnects before the device info has left.
    let mut cancel = CancelOnDrop(Some(Arc::clone(&connection)));
    // A pending request does not show whether its client is still there, so it waits no longer than `polled_timeout`.
    let first = shared.clock.timeout(shared.config.limits.polled_timeout, connection.first_message()).await;
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
    /// There are too many polled connections.
    Full,
    /// The system's random source failed.
    Failed,
}

impl ConnectError {
    /// The reason why the session ended before it had the device info.
    fn of(connection: &PolledConnection) -> Self {
        connection.outbox.refusal().map_or(Self::Stopping, Self::Refused)
    }
}

/// 128 bits from the system's random source (docs/protocol.md 5.3.29): the id is the client's only credential.
fn new_id() -> Option<String> {
    let mut secret = [0; 16];
    rustls::crypto::ring::default_provider().secure_random.fill(&mut secret).ok()?;
    Some(secret.iter().fold(String::with_capacity(32), |mut id, byte| {
        let _infallible = write!(id, "{byte:02x}");
        id
    }))
}

/// Runs the session, then keeps the connection until its messages are fetched or its client is gone.
async fn run(pump: MessagePump<PolledTransport, ClientSession>, registration: Registration) {
    let connection = Arc::clone(&registration.connection);
    let shared = &connection.shared;
    if shared.unless_over(Box::pin(pump)).await.is_none() {
        return;
    }
    connection.end();
    while let Some(left) = connection.time_left(shared.clock.now()) {
        let refused = connection.state.lock().phase == Phase::Closed;
        if refused || shared.clock.timeout(left, shared.stopping.cancelled()).await.is_some() {
            return;
        }
    }
}

/// The entry in [`Polled`]. Dropping it removes the entry and settles the ledger.
struct Registration {
    /// The map of connections.
    polled: Arc<Polled>,
    /// The connection id.
    id: String,
    /// The registered connection.
    connection: Arc<PolledConnection>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.polled.0.lock().remove(&self.id);
        self.connection.close();
    }
}

/// Ends a connection whose HTTP client disconnected before it got the connection id.
struct CancelOnDrop(Option<Arc<PolledConnection>>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            let mut state = connection.state.lock();
            state.cancelled = true;
            state.wake();
        }
    }
}
