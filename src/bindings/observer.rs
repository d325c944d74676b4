//! The observer of a server's hub, for Python: wakes waiting coroutines, and has memory given back.

use std::sync::Arc;

use super::event_queue::Mailroom;
use super::memory::Tide;
use crate::core::hub::{Client, Device, Observer};

/// News for waiting coroutines, and for who gives memory back.
pub(super) struct Doorbell {
    pub(super) mailroom: Arc<Mailroom>,
    pub(super) tide: Tide,
}

impl Doorbell {
    fn somebody_came(&self) {
        self.tide.rise();
        self.mailroom.ring();
    }

    fn somebody_left(&self) {
        if self.tide.fall() {
            self.mailroom.many_left();
        }
        self.mailroom.ring();
    }
}

impl Observer for Doorbell {
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
        self.mailroom.ring();
    }
}
