//! Requests to the task that drains an outbox, besides messages, and the reports of that task.

use std::sync::mpsc;

use tokio::sync::oneshot;

use super::{Outbox, Requests};

impl Outbox {
    fn request<T>(&self, write: impl FnOnce(&mut Requests) -> T) {
        let mut state = self.state.lock();
        write(&mut state.requests);
        self.wake(&mut state);
    }

    /// Asks the task to let its session recheck its state.
    pub fn wake_session(&self) {
        self.request(|requests| requests.recheck = true);
    }

    /// Calls [`Outbox::wake_session`] and drops `waiter` when the task has rechecked and done all that was due, or has
    /// ended.
    pub fn wake_session_and_notify(&self, waiter: mpsc::Sender<()>) {
        let mut state = self.state.lock();
        if !state.drained {
            state.requests.recheck = true;
            state.requests.waiters.push(waiter);
            self.wake(&mut state);
        }
    }

    /// Reports that the task has rechecked, and done all that was due.
    pub fn rechecked(&self) {
        self.state.lock().requests.waiters.clear();
    }

    /// Asks the task to ping its peer.
    pub fn ping(&self) {
        self.request(|requests| requests.ping = true);
    }

    /// Asks the task to ping its peer. The receiver gets `()` on the pong, or an error when the outbox closes.
    pub fn probe(&self) -> oneshot::Receiver<()> {
        let (pong, answer) = oneshot::channel();
        let mut state = self.state.lock();
        if state.end.is_none() {
            state.requests.ping = true;
            state.requests.probes.push(pong);
            self.wake(&mut state);
        }
        answer
    }

    /// Reports a pong of the peer.
    pub fn alive(&self) {
        for probe in self.state.lock().requests.probes.drain(..) {
            let _receiver_gave_up = probe.send(());
        }
    }
}
