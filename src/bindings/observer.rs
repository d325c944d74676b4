//! The observer of a server's hub, for Python: wakes waiting coroutines, and has memory given back.

use std::sync::Arc;

use super::event_queue::EventQueue;
use super::memory::PeakCounter;
use crate::core::hub::{Client, Device, Observer};

/// News for waiting coroutines, and for who gives memory back.
pub(super) struct HubObserver {
    pub(super) events: Arc<EventQueue>,
    pub(super) peak: PeakCounter,
}

impl HubObserver {
    fn somebody_came(&self) {
        self.peak.rise();
        self.events.ring();
    }

    fn somebody_left(&self) {
        if self.peak.fall() {
            self.events.many_left();
        }
        self.events.ring();
    }
}

impl Observer for HubObserver {
    fn device_registered(&self, _: &Device) {
        self.somebody_came();
    }
    fn device_left(&self, _: &Device) {
        self.somebody_left();
    }
    fn client_connected(&self, _: &Device, _: &Client) {
        self.somebody_came();
    }
    fn client_left(&self, _: &Device, _: &Client) {
        self.somebody_left();
    }
    fn recorded(&self) {
        self.events.ring();
    }
}
