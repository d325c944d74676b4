//! Passes a connection of a peer on to the server behind a proxy.
//!
//! One task per connection reads both sides. All bytes go on as they came, the masks of the peer's frames included: pings,
//! close codes, binary messages, fragments, and frames that break RFC 6455. Only a text that a fault has changed, and a
//! close frame of this server, are frames of its own. A side that takes nothing stops the reading of the other one.
//!
//! - [`splitter`] finds messages and control frames in the bytes of one direction.
//! - [`direction`] reads one side and writes the other.
//! - [`Tap`] reads the messages, for hub, journal and ledger.

mod direction;
mod splitter;
pub(in crate::server) mod stream;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use self::direction::{Direction, ReadEnd};
use self::splitter::Piece;
use self::stream::UpstreamStream;
use crate::core::outbox::{End, Outbox, Outgoing};
use crate::core::peer::{Peer, Role};
use crate::core::proxied::tap::{Books, Passing, Tap};
use crate::observe::incidents::Incident;
use crate::protocol::DeviceId;
use crate::protocol::refusal::Refusal;
use crate::server::settings::Settings;
use crate::server::shared::Shared;
use crate::server::ws::transport::Transport;

/// Rounds in one poll, before the task yields to others.
const ROUNDS: usize = 16;

/// An upgrade that the server behind the proxy has accepted.
#[derive(Debug, Clone)]
pub(in crate::server) struct Proxied {
    /// Resolves to the connection to the server.
    pub(in crate::server) upstream: OnUpgrade,
    /// The device that the path names.
    pub(in crate::server) device: Option<DeviceId>,
}

/// Serves one connection until both sides have ended, or one of them takes nothing.
pub(super) async fn serve<S: Transport>(
    shared: Arc<Shared>,
    stream: S,
    read_ahead: Bytes,
    peer: Peer,
    proxied: Proxied,
) {
    let Some(parts) =
        proxied.upstream.await.ok().and_then(|upstream| upstream.downcast::<TokioIo<UpstreamStream>>().ok())
    else {
        return;
    };
    let connection =
        Connection::new(&shared, (stream, read_ahead), (parts.io.into_inner(), parts.read_buf), peer, proxied.device);
    connection.run().await;
}

/// A connection of a peer, and the one to the server that belongs to it.
struct Connection<S> {
    shared: Arc<Shared>,
    settings: Arc<Settings>,
    peer: S,
    upstream: UpstreamStream,
    up: Direction,
    down: Direction,
    /// `None` where the messages are not those of the signaling protocol.
    tap: Option<Tap>,
    /// Stands for the peer in the hub.
    outbox: Arc<Outbox>,
    /// The end that came through the outbox was passed on.
    is_ended: bool,
    /// The time since which one side, or both, are about to end.
    closing_since: Option<Instant>,
    /// The time at which the grant of the peer expires.
    expires: Option<Instant>,
}

impl<S: Transport> Connection<S> {
    fn new(
        shared: &Arc<Shared>,
        (stream, read_ahead): (S, Bytes),
        (upstream, upstream_ahead): (UpstreamStream, Bytes),
        peer: Peer,
        device: Option<DeviceId>,
    ) -> Self {
        let settings = shared.settings();
        let (max_text, window) = (settings.limits.max_message_size, settings.limits.backpressure.client_window_bytes);
        let (outbox, expires) = (Arc::new(Outbox::new(&settings.budget)), peer.expires);
        let tap = (peer.role != Role::Http).then(|| {
            let books = Books {
                hub: Arc::clone(&shared.hub),
                relay: Arc::clone(&shared.relay),
                peers: Arc::clone(&shared.proxied),
                budget: Arc::clone(&settings.budget),
            };
            Tap::new(books, Arc::new(peer), Arc::clone(&outbox), device)
        });
        Self {
            shared: Arc::clone(shared),
            peer: stream,
            upstream,
            up: Direction::new(true, max_text, window, &read_ahead),
            down: Direction::new(false, max_text, window, &upstream_ahead),
            tap,
            outbox,
            is_ended: false,
            closing_since: None,
            expires,
            settings,
        }
    }

    async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let entry = shared.hub.add_connection(&self.outbox);
        loop {
            let due = self.due();
            let timer = async {
                match due {
                    Some(due) => shared.clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            // `Some(false)` where a deadline has come nearer meanwhile.
            let polled = poll_fn(|cx| match self.poll(cx) {
                Poll::Ready(()) => Poll::Ready(true),
                Poll::Pending if self.due() != due => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            });
            let is_over = tokio::select! {
                biased;
                is_over = polled => is_over,
                () = timer => self.on_deadline(shared.clock.now()),
            };
            if is_over {
                break;
            }
        }
        shared.hub.remove_connection(entry);
    }

    /// Runs both directions until they are pending. Ready when the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_outbox(cx);
        for _ in 0..ROUNDS {
            let now = self.shared.clock.now();
            let has_read = self.poll_peer(cx, now) | self.poll_upstream(cx, now);
            let ledger = self.shared.relay.ledger();
            let has_written = self.up.poll_write(cx, &mut self.upstream, ledger, now)
                | self.down.poll_write(cx, &mut self.peer, ledger, now);
            if self.is_over(now) {
                return Poll::Ready(());
            }
            if !has_read && !has_written {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads the peer. Returns whether it has sent something.
    fn poll_peer(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let Poll::Ready(piece) = self.up.poll_read(cx, &mut self.peer) else { return false };
        let lane = &self.up.lane;
        match piece {
            Some(Piece::Text(text, frames)) => {
                if !self
                    .tap
                    .as_mut()
                    .is_some_and(|tap| tap.on_peer(&Passing { text: &text, frames: &frames, lane, now }))
                {
                    lane.push(frames);
                }
            }
            Some(Piece::Close(_, frame)) => {
                self.up.is_closing = true;
                lane.push(frame);
                self.peer_left();
            }
            Some(Piece::Control(frame)) => lane.push(frame),
            Some(Piece::Part(part, ends_frame, ends_message)) => lane.push_part(part, ends_frame, ends_message),
            None => {
                self.peer_left();
                return false;
            }
        }
        true
    }

    /// Reads the server. Returns whether it has sent something.
    fn poll_upstream(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let Poll::Ready(piece) = self.down.poll_read(cx, &mut self.upstream) else { return false };
        let lane = &self.down.lane;
        match piece {
            Some(Piece::Text(text, frames)) => {
                if !self
                    .tap
                    .as_mut()
                    .is_some_and(|tap| tap.on_upstream(&Passing { text: &text, frames: &frames, lane, now }))
                {
                    lane.push(frames);
                }
            }
            Some(Piece::Close(payload, frame)) => {
                self.down.is_closing = true;
                lane.push(frame);
                self.ended(told(&payload));
            }
            Some(Piece::Control(frame)) => lane.push(frame),
            Some(Piece::Part(part, ends_frame, ends_message)) => lane.push_part(part, ends_frame, ends_message),
            None => {
                let how = if self.down.read_end == Some(ReadEnd::Lost) { End::Reset } else { End::Drop };
                self.ended(how.to_string());
                return false;
            }
        }
        true
    }

    /// Takes the end that the server, or a person at the page, has decided.
    ///
    /// The hub also queues messages, and closes peers that it replaces: the server behind the proxy decides on those.
    fn poll_outbox(&mut self, cx: &mut Context<'_>) {
        while !self.is_ended {
            match self.outbox.poll_next(cx, true) {
                Poll::Ready(Outgoing::Ping) => self.outbox.alive(),
                Poll::Ready(Outgoing::Recheck) => self.outbox.rechecked(),
                Poll::Ready(Outgoing::Message { .. } | Outgoing::Closing) => {}
                Poll::Ready(Outgoing::End(end)) => {
                    self.is_ended = true;
                    let is_left_to_server =
                        matches!(self.outbox.refusal(), Some(Refusal::Replaced(_) | Refusal::DeviceDisconnected));
                    if !is_left_to_server || self.shared.stopping.is_cancelled() {
                        self.ended(end.to_string());
                        self.up.lane.end(end.clone());
                        self.down.lane.end(end);
                    }
                }
                Poll::Pending => return,
            }
        }
    }

    fn peer_left(&mut self) {
        if let Some(tap) = &mut self.tap {
            tap.on_peer_left();
        }
    }

    fn ended(&mut self, how: String) {
        if let Some(tap) = &mut self.tap {
            tap.on_ended(how);
        }
    }

    /// Returns whether nothing is left to do. Notes whether an end has begun.
    fn is_over(&mut self, now: Instant) -> bool {
        if let Some(end) = self.up.ended.as_ref().or(self.down.ended.as_ref()) {
            let how = end.to_string();
            self.ended(how);
        }
        if self.up.ended == Some(End::Reset) || is_lost(&self.up) {
            self.upstream.reset_on_close();
            return true;
        }
        if self.down.ended == Some(End::Reset) || is_lost(&self.down) {
            self.peer.reset_on_close();
            return true;
        }
        let has_ended = |it: &Direction| it.read_end.is_some() || it.write_closed;
        let is_closing = (self.up.is_closing && self.down.is_closing) || has_ended(&self.up) || has_ended(&self.down);
        if is_closing {
            self.closing_since = self.closing_since.or(Some(now));
        }
        let is_done = |it: &Direction| it.read_end.is_some() && it.write_closed;
        is_done(&self.up) && is_done(&self.down)
    }

    /// The next deadline.
    fn due(&self) -> Option<Instant> {
        let limits = &self.settings.limits;
        let is_stopping = self.shared.stopping.is_cancelled();
        let within = |limit: Duration| if is_stopping { limit.min(limits.goodbye_timeout) } else { limit };
        let after = |since: Option<Instant>, limit| since.and_then(|since| since.checked_add(within(limit)));
        let stuck = [self.up.stuck_since, self.down.stuck_since].into_iter().flatten().min();
        let closed = after(self.closing_since, limits.close_timeout);
        [after(stuck, limits.write_timeout), closed, self.expires].into_iter().flatten().min()
    }

    /// Handles a deadline. Returns whether it has passed: the connection ends.
    fn on_deadline(&mut self, now: Instant) -> bool {
        if self.expires.is_some_and(|expires| expires <= now) {
            self.expires = None;
            // The end is passed on to both sides, as that of a peer that is disconnected at the page.
            self.outbox.refuse(&Refusal::Expired);
            return false;
        }
        let has_passed = self.due().is_some_and(|due| due <= now);
        if has_passed && (self.up.stuck_since.is_some() || self.down.stuck_since.is_some()) {
            self.shared.incidents.count(Incident::SlowConsumer);
            self.ended(End::slow_consumer().to_string());
            self.peer.reset_on_close();
            self.upstream.reset_on_close();
        }
        has_passed
    }
}

impl<S> Drop for Connection<S> {
    /// The server may end the task at any point.
    fn drop(&mut self) {
        let ledger = self.shared.relay.ledger();
        self.up.close(ledger);
        self.down.close(ledger);
        self.tap = None;
        let _messages_of_the_hub = self.outbox.drain();
        self.outbox.rechecked();
    }
}

/// Whether the side that is read was lost, and all that came from it is written.
fn is_lost(direction: &Direction) -> bool {
    direction.read_end == Some(ReadEnd::Lost) && direction.write_closed
}

/// The code and the reason of a close frame, for the journal.
fn told(payload: &[u8]) -> String {
    match payload.split_first_chunk::<2>() {
        Some((code, reason)) => format!("{} {}", u16::from_be_bytes(*code), String::from_utf8_lossy(reason)),
        None => String::from("1005"),
    }
}
