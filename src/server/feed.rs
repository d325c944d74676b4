//! Changes of peers, for streams of the control API. Without a stream, nothing is rendered.

use std::sync::{Arc, OnceLock};

use serde::Serialize;
use tokio::sync::broadcast;

use crate::protocol::DeviceId;

/// The events that wait for a stream that is slow. No setting: a stream that has lost some says how many.
const KEPT: usize = 1024;

/// A change of a device, or of a client of it.
#[derive(Clone)]
pub(super) struct FeedEvent {
    /// The device.
    pub(super) device: DeviceId,
    /// The event as a JSON object.
    pub(super) json: Arc<str>,
}

/// Tells streams of changes. The channel is made for the first stream.
#[derive(Default)]
pub(super) struct Feed(OnceLock<broadcast::Sender<FeedEvent>>);

impl Feed {
    /// Receives the events from now on.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<FeedEvent> {
        self.0.get_or_init(|| broadcast::Sender::new(KEPT)).subscribe()
    }

    /// Tells the streams, if there are any.
    pub(super) fn tell<T: Serialize>(&self, device: &DeviceId, event: impl FnOnce() -> T) {
        let Some(sender) = self.0.get().filter(|sender| sender.receiver_count() > 0) else { return };
        let json = serde_json::to_string(&event()).unwrap_or_default().into();
        let _has_no_stream = sender.send(FeedEvent { device: device.clone(), json });
    }
}
