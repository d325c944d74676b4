//! The polled connections of one server, and the way to their task.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::connection::PolledConnection;
use crate::core::party::{Party, without_room};
use crate::server::catch_panic::CatchPanic;

/// The work of the keeper for one connection.
pub(super) type Work = CatchPanic<Pin<Box<dyn Future<Output = ()> + Send>>>;

/// There are too many polled connections: in all, or of one party.
pub(super) struct Full(pub(super) Option<Party>);

/// The polled connections of one server.
#[derive(Default)]
pub(crate) struct Polled {
    /// The connections, by connection id.
    connections: Mutex<HashMap<String, Arc<PolledConnection>>>,
    /// Hands connections to the keeper.
    keeper: OnceLock<UnboundedSender<Work>>,
}

impl Polled {
    /// Finds a connection.
    pub(in crate::server) fn find(&self, id: &str) -> Option<Arc<PolledConnection>> {
        self.connections.lock().get(id).cloned()
    }

    /// Registers a connection, unless there are `limit` already, or a party of its client has its share of them.
    pub(super) fn register(
        self: &Arc<Self>,
        id: &str,
        connection: &Arc<PolledConnection>,
        limit: usize,
    ) -> Result<Registration, Full> {
        let mut connections = self.connections.lock();
        if connections.len() >= limit {
            return Err(Full(None));
        }
        let others = connections.values().map(|connection| &*connection.peer);
        if let Some(party) = without_room(&connection.peer, others, limit) {
            return Err(Full(Some(party)));
        }
        connections.insert(id.to_owned(), Arc::clone(connection));
        Ok(Registration { polled: Arc::clone(self), id: id.to_owned(), connection: Arc::clone(connection) })
    }

    /// Hands a connection to the keeper, and starts it with the first one.
    pub(super) fn hand_over(&self, work: Work, start: impl FnOnce(UnboundedReceiver<Work>)) {
        let keeper = self.keeper.get_or_init(|| {
            let (keeper, new) = unbounded_channel();
            start(new);
            keeper
        });
        // If the server has stopped, the keeper has ended, and the connection ends with its work.
        let _ended = keeper.send(work);
    }
}

/// The entry in [`Polled`]. Dropping it removes the entry and settles the ledger.
pub(super) struct Registration {
    /// The map of connections.
    polled: Arc<Polled>,
    /// The connection id.
    id: String,
    /// The registered connection.
    pub(super) connection: Arc<PolledConnection>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.polled.connections.lock().remove(&self.id);
        self.connection.close();
    }
}
