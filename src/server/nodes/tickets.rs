//! The TLS tickets of connections to one other node.
//!
//! The store of rustls keeps eight for each server. A burst makes more connections at a time, and each takes a ticket.

use std::collections::VecDeque;
use std::fmt;

use parking_lot::Mutex;
use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// The tickets of one other node, the oldest first.
pub(super) struct Tickets {
    /// The most that are kept.
    most: usize,
    kept: Mutex<VecDeque<Tls13ClientSessionValue>>,
}

impl Tickets {
    pub(super) fn new(most: usize) -> Self {
        Self { most, kept: Mutex::default() }
    }
}

impl fmt::Debug for Tickets {
    /// Tells no ticket: each has the keys of a connection.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("most", &self.most).finish_non_exhaustive()
    }
}

impl ClientSessionStore for Tickets {
    /// Nodes have the same program, and the same first choice of a group.
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    /// Nodes speak TLS 1.3 only.
    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut kept = self.kept.lock();
        if kept.len() >= self.most {
            kept.pop_front();
        }
        kept.push_back(ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.kept.lock().pop_back()
    }
}
