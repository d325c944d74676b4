//! The TLS tickets of connections to one other node.
//!
//! The store of rustls keeps eight for each server. A burst makes more connections at a time, and each takes a ticket.

use std::collections::VecDeque;
use std::fmt;

use parking_lot::Mutex;
use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// The tickets of one other node.
pub(super) struct Tickets {
    kept: Newest<Tls13ClientSessionValue>,
}

impl Tickets {
    pub(super) fn new(most: usize) -> Self {
        Self { kept: Newest::new(most) }
    }
}

/// The newest of many values. Each is taken once.
struct Newest<T> {
    /// The most that are kept.
    most: usize,
    all: Mutex<VecDeque<T>>,
}

impl<T> Newest<T> {
    fn new(most: usize) -> Self {
        Self { most, all: Mutex::default() }
    }

    fn put(&self, value: T) {
        let mut all = self.all.lock();
        if all.len() >= self.most {
            all.pop_front();
        }
        all.push_back(value);
    }

    fn take(&self) -> Option<T> {
        self.all.lock().pop_back()
    }
}

impl fmt::Debug for Tickets {
    /// Tells no ticket: each has the keys of a connection.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("most", &self.kept.most).finish_non_exhaustive()
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
        self.kept.put(ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.kept.take()
    }
}

#[cfg(test)]
mod tests {
    use crate::server::nodes::tickets::Newest;

    #[test]
    fn newest_are_kept_and_each_is_taken_once() {
        let newest = Newest::new(2);
        (1..=100).for_each(|number| newest.put(number));
        assert_eq!(newest.all.lock().len(), 2);
        assert_eq!([newest.take(), newest.take(), newest.take()], [Some(100), Some(99), None]);
    }
}
