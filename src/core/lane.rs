//! The queue of one direction of a connection between a peer and another server.
//!
//! The task of the connection pushes all that it reads from one side, and writes all that it takes to the other side. It
//! does not read while much waits here. A fault that has held forwards pushes them later, from another task.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::core::hub::Forwarded;
use crate::core::outbox::End;
use crate::protocol::Text;
use crate::sync::Mutex;

/// Queue of one direction.
#[derive(Debug, Default)]
pub struct Lane(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Item>,
    /// Forwards that wait for the end of a message which passes in parts.
    behind: VecDeque<Item>,
    /// Bytes of both.
    bytes: usize,
    /// The last part of a message has not come yet.
    in_message: bool,
    /// The last byte of a frame has not come yet.
    in_frame: bool,
    /// End that was decided here. Nothing is queued behind it.
    end: Option<End>,
    /// The connection is over.
    closed: bool,
    waker: Option<Waker>,
}

/// Something to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Bytes as they came: whole frames, or a part of a long one.
    Frames(Bytes),
    /// A text that a fault has changed. It is written as one frame.
    Text(Text),
}

/// Entry of the queue.
#[derive(Debug, PartialEq, Eq)]
pub struct Item {
    /// Bytes or text to write.
    pub content: Content,
    /// Whether the ledger counts it as a forward.
    pub is_forward: bool,
}

/// Next action of the task that writes.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Write this.
    Item(Item),
    /// End the side in this way. This is the last action.
    End(End),
}

impl From<Bytes> for Content {
    fn from(frames: Bytes) -> Self {
        Self::Frames(frames)
    }
}

impl Content {
    fn len(&self) -> usize {
        match self {
            Self::Frames(frames) => frames.len(),
            Self::Text(text) => text.len(),
        }
    }
}

impl State {
    fn is_over(&self) -> bool {
        self.closed || self.end.is_some()
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Lane {
    /// Queues frames that are no forward: whole messages and control frames.
    pub fn push(&self, frames: Bytes) {
        let mut state = self.0.lock();
        if !state.is_over() {
            state.bytes += frames.len();
            state.queue.push_back(Item { content: frames.into(), is_forward: false });
        }
    }

    /// Queues a part of a message. Forwards wait until its last part is queued.
    pub fn push_part(&self, part: Bytes, ends_frame: bool, ends_message: bool) {
        self.push(part);
        let mut state = self.0.lock();
        (state.in_frame, state.in_message) = (!ends_frame, !ends_message);
        if ends_message {
            let mut behind = std::mem::take(&mut state.behind);
            state.queue.append(&mut behind);
        }
    }

    /// Queues a forward. `is_counted`: whether the ledger counts it.
    pub fn push_forward(&self, content: Content, is_counted: bool) -> Forwarded {
        let mut state = self.0.lock();
        if state.is_over() {
            return Forwarded::Gone;
        }
        state.bytes += content.len();
        let item = Item { content, is_forward: is_counted };
        if state.in_message {
            state.behind.push_back(item);
        } else {
            state.queue.push_back(item);
        }
        state.wake();
        Forwarded::Queued(state.queue.len())
    }

    /// Ends the side that this lane leads to, behind all that is queued. Only the first call has an effect.
    ///
    /// A close frame cannot stand within a frame: such a side is dropped.
    pub fn end(&self, end: End) {
        let mut state = self.0.lock();
        if !state.is_over() {
            state.end = Some(if state.in_frame { End::Drop } else { end });
            state.wake();
        }
    }

    /// Returns the next action, or stores the waker if there is none.
    pub fn poll_next(&self, cx: &Context<'_>) -> Poll<Next> {
        let mut state = self.0.lock();
        // Without the last part, forwards behind a message can only be counted as gone.
        if let Some(item) = state.queue.pop_front() {
            state.bytes -= item.content.len();
            return Poll::Ready(Next::Item(item));
        }
        if let Some(end) = &state.end {
            return Poll::Ready(Next::End(end.clone()));
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Returns the bytes that wait.
    pub fn bytes(&self) -> usize {
        self.0.lock().bytes
    }

    /// Returns whether an end was decided here.
    pub fn is_ended(&self) -> bool {
        self.0.lock().end.is_some()
    }

    /// Discards the queue, and all that is pushed from now on. Returns the number of forwards that were not written.
    pub fn close(&self) -> u64 {
        let mut state = self.0.lock();
        (state.closed, state.waker, state.bytes) = (true, None, 0);
        let behind = std::mem::take(&mut state.behind);
        let rest = std::mem::take(&mut state.queue).into_iter().chain(behind);
        rest.filter(|item| item.is_forward).count() as u64
    }
}
