//! The message transport of a polled connection.

use std::io;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Instant;

use super::connection::PolledConnection;
use crate::core::outbox::End;
use crate::protocol::{Text, outbound};
use crate::server::message_pump::{Incoming, MessageTransport};

/// Carries messages between the session and a [`PolledConnection`].
pub(in crate::server) struct PolledTransport(pub(in crate::server) Arc<PolledConnection>);

impl MessageTransport for PolledTransport {
    const COUNTS_FORWARDS: bool = true;

    fn poll_receive(&mut self, cx: &mut TaskContext<'_>) -> Poll<Incoming> {
        let mut state = self.0.state.lock();
        if let Some(text) = state.incoming.pop_front() {
            state.incoming_bytes -= text.len();
            return Poll::Ready(Incoming::Text(text));
        }
        if state.cancelled {
            return Poll::Ready(Incoming::Gone);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_send(&mut self, cx: &mut TaskContext<'_>, text: &Text, forward: bool) -> Poll<io::Result<()>> {
        // An error ends the connection. The answer to the next request reports it, not a message.
        if outbound::type_of(text) == "error" {
            return Poll::Ready(Ok(()));
        }
        let limits = &self.0.shared.config.limits;
        let mut state = self.0.state.lock();
        let (messages, bytes) = state.kept.size();
        if messages >= limits.outbox_messages || bytes + text.len() > limits.outbox_bytes {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.kept.push(text.clone(), forward);
        drop(state);
        self.0.arrived.notify_waiters();
        Poll::Ready(Ok(()))
    }

    fn end(&mut self, _: &End) {
        self.0.end();
    }

    fn deadline(&self) -> Option<Instant> {
        self.0.due()
    }
}
