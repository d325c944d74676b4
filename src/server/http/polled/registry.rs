//! The polled connections of one server, and the way to their task.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

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
pub(crate) struct Polled(Mutex<Registry>);

/// The mutable state of [`Polled`].
#[derive(Default)]
struct Registry {
    /// The connections, by connection id.
    connections: HashMap<String, Arc<PolledConnection>>,
    /// Hands connections to the keeper. `None` while it does not run.
    keeper: Option<UnboundedSender<Work>>,
}

impl Polled {
    /// Finds a connection.
    pub(in crate::server) fn find(&self, id: &str) -> Option<Arc<PolledConnection>> {
        self.0.lock().connections.get(id).cloned()
    }

    /// Registers a connection, unless there are `limit` already, or a party of its client has its share of them.
    pub(super) fn register(
        self: &Arc<Self>,
        id: &str,
        connection: &Arc<PolledConnection>,
        limit: usize,
    ) -> Result<Registration, Full> {
        let mut registry = self.0.lock();
        if registry.connections.len() >= limit {
            return Err(Full(None));
        }
        let others = registry.connections.values().map(|connection| &*connection.peer);
        if let Some(party) = without_room(&connection.peer, others, limit) {
            return Err(Full(Some(party)));
        }
        registry.connections.insert(id.to_owned(), Arc::clone(connection));
        drop(registry);
        Ok(Registration { polled: Arc::clone(self), id: id.to_owned(), connection: Arc::clone(connection) })
    }

    /// Hands a connection to the keeper, and starts it if it does not run.
    pub(super) fn hand_over(&self, work: Work, start: impl FnOnce(UnboundedReceiver<Work>)) {
        let mut registry = self.0.lock();
        let keeper = registry.keeper.get_or_insert_with(|| {
            let (keeper, new) = unbounded_channel();
            start(new);
            keeper
        });
        // The keeper runs: it ends only in `retire`, under the same lock.
        let _delivered = keeper.send(work);
    }

    /// Lets the keeper end, unless a connection waits for it.
    pub(super) fn retire(&self, new: &UnboundedReceiver<Work>) -> bool {
        let mut registry = self.0.lock();
        let ends = new.is_empty();
        if ends {
            registry.keeper = None;
        }
        ends
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
        self.polled.0.lock().connections.remove(&self.id);
        self.connection.close();
    }
}
