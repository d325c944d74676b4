//! Catches a panic in a connection's task, so that it ends only that connection.
//!
//! The panic is counted and logged. The listener and all other connections continue.

use std::future::Future;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::observe::incidents::{Incident, Incidents};

/// Wraps the task of one connection and catches its panics.
pub(super) struct CatchPanic<T> {
    /// The task that is polled.
    task: T,
    /// Counts the panic.
    incidents: Arc<Incidents>,
    /// The peer's address for the log; `None` for a local socket.
    address: Option<SocketAddr>,
}

impl<T> CatchPanic<T> {
    /// Wraps a task.
    pub(super) fn new(task: T, incidents: &Arc<Incidents>, address: Option<SocketAddr>) -> Self {
        Self { task, incidents: Arc::clone(incidents), address }
    }
}

impl<T: Future<Output = ()> + Unpin> Future for CatchPanic<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let task = Pin::new(&mut self.task);
        // Unwind safety: the task may be left in any state, but it is dropped and never polled again.
        match catch_unwind(AssertUnwindSafe(|| task.poll(cx))) {
            Ok(poll) => poll,
            Err(panic) => {
                let message = panic.downcast_ref::<&str>().map(|message| (*message).to_owned());
                let message = message.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                let peer = peer_name(self.address);
                tracing::error!(
                    event = "bug",
                    peer,
                    reason = message,
                    "a bug in cuttlefish-signaling ended the connection of {peer}: {message}"
                );
                self.incidents.count(Incident::Panic);
                Poll::Ready(())
            }
        }
    }
}

/// Returns the address as the log names it.
pub(super) fn peer_name(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "a local peer".into(), |address| address.to_string())
}
