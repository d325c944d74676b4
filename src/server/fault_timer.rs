//! The server's part in journal and faults: a clock for the journal, and a task that releases delayed forwards on time.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use crate::core::hub::Observer;
use crate::observe::journal::JournalObserver;
use crate::server::events::Changes;
use crate::server::shared::Shared;
use crate::server::time::clock::Clock;

/// Gives the journal the server's clock, and tells waiters and the observer of new entries.
pub(super) struct JournalHooks {
    /// The clock that dates entries.
    pub(super) clock: Arc<Clock>,
    /// Marked for each new entry.
    pub(super) changes: Arc<Changes>,
    /// Told of each new entry.
    pub(super) observer: Arc<dyn Observer>,
}

impl JournalObserver for JournalHooks {
    fn now(&self) -> f64 {
        self.clock.unix_now()
    }

    fn recorded(&self) {
        self.changes.mark();
        self.observer.recorded();
    }
}

/// Releases forwards that faults hold back, each at its deadline, until the server stops.
pub(super) async fn release_when_due(shared: Arc<Shared>) {
    let mut due: Option<Instant> = None;
    loop {
        let timer = async {
            match due {
                Some(due) => shared.clock.sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.stopping.cancelled() => return,
            () = timer => {}
            () = shared.next_release_changed(due) => {}
        }
        due = poll_fn(|cx| Poll::Ready(shared.relay.release(cx, shared.clock.now()))).await;
    }
}

impl Shared {
    /// Waits until the relay's next release is no longer at `known`.
    async fn next_release_changed(&self, known: Option<Instant>) {
        poll_fn(|cx| {
            let next = self.relay.release(cx, self.clock.now());
            if next == known { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }
}
