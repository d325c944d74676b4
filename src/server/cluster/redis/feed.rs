//! The feed: changes that the engine pushes, in a queue with a limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::mpsc::{self, OwnedPermit, Receiver, Sender};

use super::changes;
use super::signer::Signer;
use crate::server::cluster::engine::Feed;

/// Longest queue of events that the node has not taken yet.
const MAX_EVENTS: usize = 4_096;

/// Receives the pushes of one connection.
pub(super) struct Pushes {
    channel: String,
    signer: Arc<Signer>,
    /// Bytes since the last whole value of the engine.
    unread: Arc<AtomicUsize>,
    /// `None` once the connection is lost.
    queue: Mutex<Option<Queue>>,
}

struct Queue {
    sender: Sender<Feed>,
    /// The place of a [`Feed::Gap`]. It is taken while one is in a queue that has been full since.
    gap: Option<OwnedPermit<Feed>>,
}

impl Pushes {
    /// Creates the receiver of pushes on `channel`, and its queue.
    pub(super) fn new(channel: &str, signer: Arc<Signer>, unread: Arc<AtomicUsize>) -> (Arc<Self>, Receiver<Feed>) {
        let (sender, receiver) = mpsc::channel(MAX_EVENTS);
        let gap = sender.clone().try_reserve_owned().ok();
        let queue = Mutex::new(Some(Queue { sender, gap }));
        (Arc::new(Self { channel: channel.to_owned(), signer, unread, queue }), receiver)
    }

    /// Handles a push.
    pub(super) fn on_push(&self, push: &PushInfo) {
        self.unread.store(0, Relaxed);
        match (&push.kind, push.data.as_slice()) {
            (PushKind::Disconnection, _) => self.close(),
            (PushKind::Message, [Value::BulkString(channel), Value::BulkString(payload)])
                if channel == self.channel.as_bytes() =>
            {
                // If it was a change of the registry, the next one or the next renewal shows that one is missing.
                let unsigned = |_| Feed::Unsigned(format!("a change on the channel {}", self.channel));
                self.push(changes::read(&self.signer, payload).map_or_else(unsigned, Feed::Delta));
            }
            _ => {}
        }
    }

    /// Adds an event. If the queue is full, changes are missing.
    pub(super) fn push(&self, event: Feed) {
        let mut guard = self.queue.lock();
        let Some(queue) = guard.as_mut() else { return };
        if queue.gap.is_none() {
            // Without a place, the gap before has not been taken yet, and speaks for this event as well.
            let Ok(permit) = queue.sender.clone().try_reserve_owned() else { return };
            queue.gap = Some(permit);
        }
        if queue.sender.try_send(event).is_err()
            && let Some(gap) = queue.gap.take()
        {
            gap.send(Feed::Gap);
        }
    }

    /// Ends the feed.
    pub(super) fn close(&self) {
        self.queue.lock().take();
    }
}
