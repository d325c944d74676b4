//! The polled connections of one server, and the way to their task.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::connection::PolledConnection;
use crate::server::catch_panic::CatchPanic;

/// The work of the keeper for one connection.
pub(super) type Work = CatchPanic<Pin<Box<dyn Future<Output = ()> + Send>>>;

/// There are too many polled connections.
pub(super) struct Full;

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

    /// Registers a connection, unless there are `limit` already.
    pub(super) fn register(
        self: &Arc<Self>,
        id: &str,
        connection: &Arc<PolledConnection>,
        limit: usize,
    ) -> Result<Registration, Full> {
        let mut registry = self.0.lock();
        if registry.connections.len() >= limit {
            return Err(Full);
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
