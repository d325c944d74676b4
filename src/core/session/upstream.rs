//! The session of a connection to the node of a device, for one client of this node.
//!
//! The other node sends what it sends to a client of its own: first the device info, then the messages of the device and
//! errors. This session passes them on to the outbox of the client.

use std::sync::Arc;
use std::time::Instant;

use super::{Answer, Context, Session, Step};
use crate::core::outbox::{End, Outbox, Passage};
use crate::core::upstream::{Link, Stage};
use crate::observe::cluster::{Direction, Ending};
use crate::protocol::refusal::Refusal;
use crate::protocol::{Text, inbound, outbound};

/// Close code between nodes: the device is not on this node.
pub const NOT_HERE: u16 = 4404;

/// Answer of the other node to the request for a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// The `device_info` message of the device, unfiltered.
    Found(Text),
    /// The device is not there.
    NotHere,
    /// The client is refused, or the device has left. The client gets the same end.
    Ended {
        /// Error message.
        last: Option<Text>,
        /// End of the connection.
        end: End,
    },
}

impl Opened {
    /// Returns the answer to [`super::Question::Locate`]. `found` creates the client's end from the device info at once, so
    /// that the connection closes where the client has left meanwhile.
    pub fn answer(self, found: impl FnOnce(Text) -> Answer) -> Answer {
        match self {
            Self::Found(info) => found(info),
            Self::NotHere => Answer::Nowhere,
            Self::Ended { last, end } => Answer::Ended { last, end },
        }
    }
}

/// Callback for the answer of the other node. Dropped if the connection is lost before.
pub type OnOpened = Box<dyn FnOnce(Opened) + Send>;

/// Session of a connection to another node. See [`Session`].
pub struct UpstreamSession {
    context: Context,
    link: Link,
    /// Outbox of the client.
    client: Arc<Outbox>,
    /// Called with the answer of the other node, once.
    on_opened: Option<OnOpened>,
    /// Error of the other node before the device info.
    refused: Option<Text>,
    /// Close frame of the other node.
    closed: Option<End>,
    left: bool,
}

impl UpstreamSession {
    /// Creates the session. The outbox of `context` is the one of the stand-in for the device.
    pub fn new(context: Context, link: Link, client: Arc<Outbox>, on_opened: OnOpened) -> Self {
        Self { context, link, client, on_opened: Some(on_opened), refused: None, closed: None, left: false }
    }

    /// Handles the first text: the device info, or an error that a close frame follows.
    fn on_first(&mut self, on_opened: OnOpened, text: &str) {
        let message = Text::from(text.to_owned());
        if outbound::type_of(&message) == "device_info" {
            on_opened(Opened::Found(message));
        } else {
            self.refused = Some(message);
            self.on_opened = Some(on_opened);
        }
    }

    /// Passes a message on to the client.
    fn pass_on(&self, text: &str, now: Instant) {
        let message = Text::from(text.to_owned());
        if outbound::type_of(&message) != "device_msg" {
            return self.client.push(message);
        }
        self.link.counts().count_bytes(Direction::In, text.len());
        self.link.counts().count_messages(Direction::In, 1);
        let ledger = self.context.relay.ledger();
        ledger.count_accepted();
        if self.client.push_forward(message, Passage::Direct, now).is_err() {
            ledger.count_gone(1);
        }
    }

    /// Ends the client, if it has the device info and has not left.
    fn on_lost(&self, by_other_node: bool, end: Option<End>) {
        let stage = self.link.lose();
        self.link.counts().count_end(match stage {
            Stage::Left => Ending::ClientLeft,
            _ if by_other_node => Ending::Closed,
            _ => Ending::Lost,
        });
        match end {
            _ if stage != Stage::Started => {}
            Some(end) => self.client.close(None, end),
            None => self.client.refuse(&Refusal::DeviceDisconnected),
        }
    }

    /// Returns the end of the client's connection.
    ///
    /// A node that stops closes with 1001. To a client of another node, its device has left.
    fn end_of_client(&mut self) -> Option<End> {
        self.closed.take().filter(|end| !matches!(end, End::Close { code: 1001 | NOT_HERE, .. }))
    }
}

impl Session for UpstreamSession {
    fn on_text(&mut self, text: &str, now: Instant) -> Step {
        if self.left {
            return Step::Done;
        }
        // Another node can do no more than a device: what a client gets is JSON.
        if inbound::bare_payload(text).is_err() {
            self.disconnect(&Refusal::InvalidJson);
            return Step::Done;
        }
        match self.on_opened.take() {
            Some(on_opened) => self.on_first(on_opened, text),
            None if self.link.is_started() => self.pass_on(text, now),
            // Its client has left, or has not got the device info.
            None => {}
        }
        Step::Done
    }

    fn on_answer(&mut self, _: Answer, _: Instant) -> Step {
        Step::Done
    }

    fn holds_texts(&self) -> bool {
        self.on_opened.is_none() && self.link.holds_texts()
    }

    fn on_recheck(&mut self, _: Instant) -> Step {
        Step::Done
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn on_written(&self, forwards: u64) {
        self.link.counts().count_messages(Direction::Out, forwards);
    }

    fn on_gone(&self, forwards: u64) {
        self.link.counts().count_gone(forwards);
    }

    fn on_close_frame(&mut self, code: u16, reason: &str) {
        self.closed = Some(End::Close { code, reason: reason.to_owned().into() });
        // The client looks for the device again once the hook has answered, and does not hear why this way has ended.
        if self.holds_texts() {
            self.link.lose();
        }
    }

    fn leave(&mut self) {
        if std::mem::replace(&mut self.left, true) {
            return;
        }
        let closed_with = match &self.closed {
            Some(End::Close { code, .. }) => Some(*code),
            _ => None,
        };
        let end = self.end_of_client();
        if let Some(on_opened) = self.on_opened.take() {
            match (closed_with, end) {
                (Some(NOT_HERE), _) => on_opened(Opened::NotHere),
                (_, Some(end)) => on_opened(Opened::Ended { last: self.refused.take(), end }),
                // Lost: the caller notices that the callback is dropped.
                _ => {}
            }
        } else {
            self.on_lost(closed_with.is_some(), end);
        }
        self.context.outbox.close(None, End::close(1000, "connection of the client has ended"));
    }

    fn disconnect(&mut self, refusal: &Refusal) {
        self.context
            .outbox
            .close(None, End::Close { code: refusal.close_code().unwrap_or(1000), reason: refusal.text() });
        self.leave();
    }

    fn context(&self) -> &Context {
        &self.context
    }

    fn is_introduced(&self) -> bool {
        true
    }
}

impl Drop for UpstreamSession {
    fn drop(&mut self) {
        self.leave();
    }
}
