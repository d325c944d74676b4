//! The reading side of the pump.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Instant;

use tokio::io::ReadBuf;
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};

use super::{Phase, Pump};
use crate::core::outbox::End;
use crate::core::session::Session;
use crate::observe::incidents::Incident;
use crate::server::throttle::Sent;
use crate::server::ws::close::ReadFailure;
use crate::server::ws::io_buffer::IoBuffer;
use crate::server::ws::stream::Received;
use crate::server::ws::transport::Transport;

/// Inputs in one round, before the other directions get their turn.
const READ_BURST: usize = 32;

impl<S, P> Pump<S, P>
where
    S: Transport,
    P: Session + Unpin,
{
    /// Reads from the socket. Returns true if there may be more to do.
    pub(in crate::server) fn read(&mut self, cx: &mut TaskContext<'_>, buffer: &mut IoBuffer) -> bool {
        if self.read_closed || matches!(self.phase, Phase::ShuttingDown(_)) {
            return self.drain_input(cx);
        }
        let before = self.phase;
        for _ in 0..READ_BURST {
            if self.phase == Phase::Done || self.read_closed {
                return true;
            }
            if self.driver.holds_enough() {
                return false;
            }
            let next = self.socket.poll_read(cx, buffer);
            let bytes_read = self.socket.take_bytes_read();
            if bytes_read > 0 {
                self.count_first_bytes(bytes_read);
                let now = self.now();
                self.driver.spend(Sent::Bytes(bytes_read), now);
            }
            let Poll::Ready(next) = next else { return self.phase != before };
            match next {
                Some(Ok(received)) => self.on_received(&received),
                Some(Err(error)) => self.on_read_error(&error),
                None => {
                    self.driver.session.leave();
                    self.phase = Phase::ShuttingDown(self.now() + self.driver.shared.config.limits.close_timeout);
                    return true;
                }
            }
        }
        true
    }

    /// Handles one input.
    fn on_received(&mut self, received: &Received<'_>) {
        let now = self.now();
        self.last_received = now;
        self.pinged_at = None;
        let sent = match received {
            Received::Message(Message::Close(_)) => None,
            Received::Message(Message::Ping(_)) => Some(Sent::Ping),
            // Pongs count as messages: other peers can make the server ping this one often.
            _ => Some(Sent::Message),
        };
        if sent.is_some_and(|sent| !self.driver.spend(sent, now)) {
            return;
        }
        match received {
            Received::Text(text) => self.on_text(text, now),
            Received::Message(Message::Text(text)) => self.on_text(text, now),
            // tungstenite has queued the pong. It goes out with the next flush.
            Received::Message(Message::Ping(_)) => self.dirty = true,
            Received::Message(Message::Pong(_)) => self.driver.outbox.alive(),
            Received::Message(Message::Close(_)) => {
                self.driver.session.leave();
                self.dirty = true;
                if self.phase == Phase::Open {
                    self.phase = Phase::Closing(now + self.driver.shared.config.limits.close_timeout);
                }
            }
            Received::Message(Message::Binary(_) | Message::Frame(_)) if self.phase == Phase::Open => {
                self.driver.session.handle_binary();
            }
            Received::Message(Message::Binary(_) | Message::Frame(_)) => {}
        }
    }

    /// Passes a text to the session, or queues it while the session waits for an answer.
    fn on_text(&mut self, text: &str, now: Instant) {
        if self.phase != Phase::Open {
            return;
        }
        let is_first = self.first_bytes.is_some() && !self.driver.session.holds_texts();
        if is_first && text.len() > self.driver.shared.config.limits.max_first_message {
            self.close_misbehaving(End::message_too_big());
            return;
        }
        self.driver.feed(text, now);
        if is_first && self.driver.session.is_introduced() {
            self.first_bytes = None;
        }
    }

    /// Handles a read error, after which the WebSocket is not read any more. A violation is answered before the close.
    fn on_read_error(&mut self, error: &WebSocketError) {
        self.read_closed = true;
        match ReadFailure::of(error) {
            ReadFailure::Lost => self.on_transport_error(error),
            ReadFailure::Close(end) => self.close_misbehaving(end),
            ReadFailure::Refuse(refusal) => self.driver.session.disconnect(&refusal),
        }
    }

    /// Shuts the transport down and discards input until the peer closes.
    ///
    /// Closing a socket with unread input resets the connection, and the peer would lose the close frame.
    fn drain_input(&mut self, cx: &mut TaskContext<'_>) -> bool {
        let Phase::ShuttingDown(_) = self.phase else { return false };
        // Both close frames were exchanged, so no input is left. Dropping the transport closes it.
        if !self.read_closed && !S::SENDS_CLOSE_NOTIFY {
            self.phase = Phase::Done;
            return true;
        }
        match Pin::new(self.socket.transport()).poll_shutdown(cx) {
            Poll::Ready(Ok(())) if self.read_closed => {}
            Poll::Ready(_) => {
                self.phase = Phase::Done;
                return true;
            }
            Poll::Pending => return false,
        }
        let mut scratch = [0; 2048];
        let mut scratch = ReadBuf::new(&mut scratch);
        match Pin::new(self.socket.transport()).poll_read(cx, &mut scratch) {
            Poll::Pending => return false,
            Poll::Ready(Ok(())) if !scratch.filled().is_empty() => {}
            Poll::Ready(_) => self.phase = Phase::Done,
        }
        true
    }

    /// Counts the bytes received before the first message is complete, fragments and pings included.
    ///
    /// Twice the limit of the first message is enough for all of it.
    fn count_first_bytes(&mut self, bytes_read: u32) {
        let Some(first) = &mut self.first_bytes else { return };
        *first = first.saturating_add(bytes_read as usize);
        if *first > self.driver.shared.config.limits.max_first_message * 2 {
            self.close_misbehaving(End::message_too_big());
        }
    }

    /// Closes the connection for a violation of RFC 6455 or of a size limit. The close code names it.
    fn close_misbehaving(&mut self, end: End) {
        if !self.driver.outbox.is_closed() {
            self.driver.shared.incidents.count(Incident::Misbehaved);
            self.driver.outbox.close(None, end);
        }
    }
}
