//! The one task that runs all polled connections of a server: it polls answers of hooks, and keeps deadlines.
//!
//! It starts with the first connection and ends when the server stops, with the last one. Each connection has a waker of its own, so a message or a
//! deadline polls that connection only. A panic ends only its own connection.

use std::future::poll_fn;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc::UnboundedReceiver;

use super::registry::{Registration, Work};
use crate::server::catch_panic::CatchPanic;
use crate::server::shared::Shared;

/// Creates the work for one connection.
pub(super) fn work(registration: Registration) -> Work {
    let connection = Arc::clone(&registration.connection);
    CatchPanic::new(Box::pin(keep(registration)), &connection.shared.incidents, connection.peer.address)
}

/// Runs the connections that come, until the server stops and there are none.
pub(super) async fn run(shared: Arc<Shared>, mut new: UnboundedReceiver<Work>) {
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(work) = new.recv() => running.push(work),
            Some(()) = running.next() => {}
            () = shared.stopping.cancelled(), if running.is_empty() => return,
        }
    }
}

/// Runs the session, then keeps the connection until its messages are fetched or its client is gone.
async fn keep(registration: Registration) {
    let connection = &registration.connection;
    let shared = &connection.shared;
    let session = Box::pin(poll_fn(|cx| connection.poll_session(cx)));
    tokio::select! {
        biased;
        () = shared.over.cancelled() => return,
        () = session => {}
    }
    while let Some(left) = connection.time_left() {
        if shared.clock.timeout(left, shared.stopping.cancelled()).await.is_some() {
            return;
        }
    }
}
