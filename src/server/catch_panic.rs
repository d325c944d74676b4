//! A panic in one connection ends that connection only: it is counted and logged, and the listener lives.

use std::future::Future;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::observe::incidents::{Incident, Incidents};

/// A connection's task.
pub(super) struct CatchPanic<T> {
    task: T,
    incidents: Arc<Incidents>,
    address: Option<SocketAddr>,
}

impl<T> CatchPanic<T> {
    pub(super) fn new(task: T, incidents: &Arc<Incidents>, address: Option<SocketAddr>) -> Self {
        Self { task, incidents: Arc::clone(incidents), address }
    }
}

impl<T: Future<Output = ()> + Unpin> Future for CatchPanic<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let task = Pin::new(&mut self.task);
        // Whatever the task leaves half done, it is dropped and never polled again.
        match catch_unwind(AssertUnwindSafe(|| task.poll(cx))) {
            Ok(poll) => poll,
            Err(panic) => {
                let message = panic.downcast_ref::<&str>().map(|message| (*message).to_owned());
                let message = message.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                tracing::error!(
                    "a bug in cuttlefish-signaling ended the connection of {}: {message}",
                    peer_name(self.address)
                );
                self.incidents.count(Incident::Panic);
                Poll::Ready(())
            }
        }
    }
}

fn peer_name(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "a local peer".into(), |address| address.to_string())
}
