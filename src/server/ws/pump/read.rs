//! The reading side of the pump.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use tokio::io::ReadBuf;
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};

use super::{Pump, Reuse};
use crate::core::driver::{BURST, Closed, Edge, Phase};
use crate::core::outbox::End;
use crate::core::session::Session;
use crate::server::throttle::Sent;
use crate::server::ws::close::ReadFailure;
use crate::server::ws::io_buffer::IoBuffer;
use crate::server::ws::stream::Received;
use crate::server::ws::transport::Transport;

impl<S, P> Pump<S, P>
where
    S: Transport,
    P: Session + Unpin,
{
    /// Reads from the socket. Returns true if there may be more to do.
    pub(in crate::server) fn read(&mut self, cx: &mut TaskContext<'_>, buffer: &mut IoBuffer) -> bool {
        let before = self.session.driver.phase();
        if self.read_closed || matches!(before, Phase::ShuttingDown(_)) {
            // Texts that wait for an answer are handled before the end behind them.
            self.session.wants_read(cx);
            return self.drain_input(cx, buffer) || self.session.driver.phase() != before;
        }
        for _ in 0..BURST {
            if self.read_closed || self.session.driver.phase() == Phase::Done {
                return true;
            }
            if !self.session.wants_read(cx) {
                return false;
            }
            let next = self.socket.poll_read(cx, buffer);
            let bytes_read = self.socket.take_bytes_read();
            if bytes_read > 0 {
                self.count_first_bytes(bytes_read);
                self.count(Sent::Bytes(bytes_read));
            }
            let Poll::Ready(next) = next else { return self.session.driver.phase() != before };
            match next {
                Some(Ok(received)) => self.on_received(&received),
                Some(Err(error)) => self.on_read_error(&error),
                None => {
                    self.session.driver.handle_closed(Closed::Fin, &mut self.session.edge);
                    return true;
                }
            }
        }
        self.yields = self.session.driver.should_yield();
        true
    }

    /// Handles one input.
    fn on_received(&mut self, received: &Received<'_>) {
        let now = self.session.edge.now();
        self.session.driver.handle_input(now);
        match received {
            Received::Message(Message::Close(_)) => {}
            Received::Message(Message::Ping(_)) => self.session.count_ping(),
            // Pongs count as messages: other peers can make the server ping this one often.
            _ => self.count(Sent::Message),
        }
        match received {
            Received::Text(text) => self.on_text(text),
            Received::Message(Message::Text(text)) => self.on_text(text),
            // tungstenite has queued the pong. It goes out with the next flush.
            Received::Message(Message::Ping(_)) => self.dirty = true,
            Received::Message(Message::Pong(_)) => self.session.driver.handle_pong(),
            Received::Message(Message::Close(frame)) => {
                self.dirty = true;
                // The node that has dialed is the one of the client.
                if self.reuse == Reuse::Wanted && S::IS_CLIENT != self.session.driver.is_open() {
                    self.reuse = Reuse::Agreed;
                }
                if let Some(frame) = frame {
                    self.session.driver.handle_close_frame(frame.code.into(), &frame.reason);
                }
                self.session.driver.handle_closed(Closed::Frame, &mut self.session.edge);
            }
            Received::Message(Message::Binary(_) | Message::Frame(_)) if self.session.driver.is_open() => {
                self.session.driver.handle_binary();
            }
            Received::Message(Message::Binary(_) | Message::Frame(_)) => {}
        }
    }

    /// Counts an input against the rates of a peer. Another node has counted its own.
    #[inline]
    fn count(&mut self, sent: Sent) {
        if !S::IS_CLIENT {
            self.session.count(sent);
        }
    }

    /// Passes a text to the session, or queues it while the session waits for an answer.
    fn on_text(&mut self, text: &str) {
        if !self.session.driver.is_open() {
            return;
        }
        let is_first = self.first_bytes.is_some() && !self.session.driver.session().holds_texts();
        if is_first && text.len() > self.session.edge.settings.limits.max_first_message {
            self.session.driver.handle_violation(End::message_too_big());
            return;
        }
        self.session.feed(text);
        if is_first && self.session.driver.session().is_introduced() {
            self.first_bytes = None;
        }
    }

    /// Handles a read error, after which the WebSocket is not read any more. A violation is answered before the close.
    fn on_read_error(&mut self, error: &WebSocketError) {
        self.read_closed = true;
        match ReadFailure::of(error) {
            ReadFailure::Lost(closed) => self.on_lost(error, closed),
            ReadFailure::Close(end) => self.session.driver.handle_violation(end),
            ReadFailure::Refuse(refusal) => self.session.driver.refuse(&refusal),
        }
    }

    /// Shuts the transport down and discards input until the peer closes.
    ///
    /// Closing a socket with unread input resets the connection, and the peer would lose the close frame.
    fn drain_input(&mut self, cx: &mut TaskContext<'_>, buffer: &mut IoBuffer) -> bool {
        let Phase::ShuttingDown(_) = self.session.driver.phase() else { return false };
        if self.reuse == Reuse::Agreed && !self.read_closed {
            match self.socket.poll_flush(cx, buffer) {
                Poll::Pending => return false,
                Poll::Ready(Ok(())) => self.reuse = Reuse::Ready,
                Poll::Ready(Err(_)) => {}
            }
            self.session.driver.abort();
            return true;
        }
        // Both close frames were exchanged, so no input is left. Dropping the transport closes it.
        if !self.read_closed && !S::SENDS_CLOSE_NOTIFY {
            self.session.driver.abort();
            return true;
        }
        match Pin::new(self.socket.transport()).poll_shutdown(cx) {
            Poll::Ready(Ok(())) if self.read_closed => {}
            Poll::Ready(_) => {
                self.session.driver.abort();
                return true;
            }
            Poll::Pending => return false,
        }
        let mut scratch = [0; 2048];
        let mut scratch = ReadBuf::new(&mut scratch);
        match Pin::new(self.socket.transport()).poll_read(cx, &mut scratch) {
            Poll::Pending => return false,
            Poll::Ready(Ok(())) if !scratch.filled().is_empty() => {}
            Poll::Ready(_) => self.session.driver.abort(),
        }
        true
    }

    /// Counts the bytes received before the first message is complete, fragments and pings included.
    ///
    /// Twice the limit of the first message is enough for all of it.
    fn count_first_bytes(&mut self, bytes_read: u32) {
        let Some(first) = &mut self.first_bytes else { return };
        *first = first.saturating_add(bytes_read as usize);
        if *first > self.session.edge.settings.limits.max_first_message * 2 {
            self.session.driver.handle_violation(End::message_too_big());
        }
    }
}
