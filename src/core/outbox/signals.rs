//! Requests to the task that drains an outbox, besides messages: recheck the session, ping the peer.

use std::sync::mpsc;

use tokio::sync::oneshot;

/// Requests that the task has not taken yet, and the callers that wait for their results.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// The session has to recheck the state that it waits for.
    recheck: bool,
    ping: bool,
    /// Each sender is notified on a pong, and dropped when the outbox closes.
    probes: Vec<oneshot::Sender<()>>,
    /// Dropped once the task has rechecked, or has ended.
    waiters: Vec<mpsc::Sender<()>>,
}

impl Signals {
    pub(super) fn request_recheck(&mut self) {
        self.recheck = true;
    }

    pub(super) fn take_recheck(&mut self) -> bool {
        std::mem::take(&mut self.recheck)
    }

    pub(super) fn request_ping(&mut self) {
        self.ping = true;
    }

    pub(super) fn take_ping(&mut self) -> bool {
        std::mem::take(&mut self.ping)
    }

    pub(super) fn add_probe(&mut self, pong: oneshot::Sender<()>) {
        self.ping = true;
        self.probes.push(pong);
    }

    pub(super) fn answer_probes(&mut self) {
        for probe in self.probes.drain(..) {
            let _receiver_gave_up = probe.send(());
        }
    }

    pub(super) fn drop_probes(&mut self) {
        self.probes.clear();
    }

    pub(super) fn add_waiter(&mut self, waiter: mpsc::Sender<()>) {
        self.recheck = true;
        self.waiters.push(waiter);
    }

    pub(super) fn drop_waiters(&mut self) {
        self.waiters.clear();
    }
}
