//! What a server does for those who watch its relay: tells a journal the time and others of its entries, and lets go
//! what faults hold back when its time has come.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use crate::core::hub::Observer;
use crate::observe::journal::JournalObserver;
use crate::server::events::Changes;
use crate::server::shared::Shared;
use crate::server::time::clock::Clock;

/// Whom a server's journal turns to.
pub(super) struct JournalHooks {
    pub(super) clock: Arc<Clock>,
    pub(super) changes: Arc<Changes>,
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

/// Lets go what faults hold back, each when its time has come, until the server is over.
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
    /// Waits until the relay's next release is at another time than this.
    async fn next_release_changed(&self, known: Option<Instant>) {
        poll_fn(|cx| {
            let next = self.relay.release(cx, self.clock.now());
            if next == known { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }
}
