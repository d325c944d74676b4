//! Observes the hub for Python: wakes waiting coroutines, and has memory returned to the system.

use std::sync::Arc;

use super::event_queue::EventQueue;
use super::memory::PeakCounter;
use crate::core::hub::{Client, Device, Observer};
use crate::core::peer::Peer;
use crate::protocol::DeviceId;

/// Pushes changes of the hub to the event queue.
pub(super) struct HubObserver {
    pub(super) events: Arc<EventQueue>,
    pub(super) peak: PeakCounter,
}

impl HubObserver {
    fn peer_added(&self) {
        self.peak.increment();
        self.events.mark_changed();
    }

    fn peer_removed(&self) {
        if self.peak.decrement() {
            self.events.many_left();
        }
        self.events.mark_changed();
    }
}

impl Observer for HubObserver {
    fn device_registered(&self, _: &Device) {
        self.peer_added();
    }

    fn device_left(&self, _: &Device) {
        self.peer_removed();
    }

    fn client_connected(&self, _: &Device, _: &Client) {
        self.peer_added();
    }

    fn client_left(&self, _: &Device, _: &Client) {
        self.peer_removed();
    }

    fn client_waiting(&self, _: &DeviceId, _: &Peer) {
        self.events.mark_changed();
    }

    fn client_stopped_waiting(&self, _: &DeviceId, _: &Peer) {
        self.events.mark_changed();
    }

    fn cluster_changed(&self) {
        self.events.mark_changed();
    }

    fn recorded(&self) {
        self.events.mark_changed();
    }
}
