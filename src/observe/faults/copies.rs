//! The copies of one forward that `duplicate` has made: the ledger and the journal count one of them.

use std::sync::Arc;

use crate::sync::Mutex;

/// The copies of one forward, the first one included. All copies share it.
#[derive(Debug, Clone, Default)]
pub struct Copies(Option<Arc<Mutex<Count>>>);

#[derive(Debug)]
struct Count {
    /// Copies that are not lost.
    left: usize,
    /// Whether one of them has been delivered.
    delivered: bool,
}

impl Copies {
    /// Counts one more copy.
    pub(super) fn add(&mut self) {
        let count = self.0.get_or_insert_with(|| Arc::new(Mutex::new(Count { left: 1, delivered: false })));
        count.lock().left += 1;
    }

    /// Returns how many copies are not lost.
    pub fn left(&self) -> usize {
        self.0.as_ref().map_or(1, |count| count.lock().left)
    }

    /// Counts the delivery of a copy. Returns whether it is the first one: that one counts.
    pub fn deliver(&self) -> bool {
        self.0.as_ref().is_none_or(|count| !std::mem::replace(&mut count.lock().delivered, true))
    }

    /// Counts the loss of a copy. Returns whether it was the last one: then the forward is lost.
    pub fn lose(&self) -> bool {
        self.0.as_ref().is_none_or(|count| {
            let mut count = count.lock();
            count.left -= 1;
            count.left == 0
        })
    }
}
