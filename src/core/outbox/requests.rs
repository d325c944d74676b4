//! Requests to the task that drains an outbox, and the reports of that task.

use std::sync::mpsc;

use tokio::sync::oneshot;

use super::Outbox;

impl Outbox {
    /// Asks the task to let its session recheck its state.
    pub fn wake_session(&self) {
        let mut state = self.state.lock();
        state.signals.request_recheck();
        state.wake();
    }

    /// Calls [`Outbox::wake_session`] and drops `waiter` when the task has rechecked and done all that was due, or has
    /// ended.
    pub fn wake_session_and_notify(&self, waiter: mpsc::Sender<()>) {
        let mut state = self.state.lock();
        if !state.drained {
            state.signals.add_waiter(waiter);
            state.wake();
        }
    }

    /// Reports that the task has rechecked, and done all that was due.
    pub fn rechecked(&self) {
        self.state.lock().signals.drop_waiters();
    }

    /// Asks the task to ping its peer.
    pub fn ping(&self) {
        let mut state = self.state.lock();
        state.signals.request_ping();
        state.wake();
    }

    /// Asks the task to ping its peer. The receiver gets `()` on the pong, or an error when the outbox closes.
    pub fn probe(&self) -> oneshot::Receiver<()> {
        let (pong, answer) = oneshot::channel();
        let mut state = self.state.lock();
        if state.end.is_none() {
            state.signals.add_probe(pong);
            state.wake();
        }
        answer
    }

    /// Reports a pong of the peer.
    pub fn alive(&self) {
        self.state.lock().signals.answer_probes();
    }
}
