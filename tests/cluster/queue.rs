//! The queue of all events, in the order of their times. Events at one time keep the order in which they were added.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Key in the heap: time, number, and place of the event. Events are large, and a heap moves its items often.
type Key = (Duration, u64, usize);

pub(crate) struct Queue<T> {
    heap: BinaryHeap<Reverse<Key>>,
    events: Vec<Option<T>>,
    free: Vec<usize>,
    last: u64,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), events: Vec::new(), free: Vec::new(), last: 0 }
    }

    pub(crate) fn push(&mut self, at: Duration, event: T) {
        self.last += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[place] = Some(event);
        self.heap.push(Reverse((at, self.last, place)));
    }

    /// Takes the next event that is due by `until`, with its time.
    pub(crate) fn pop(&mut self, until: Duration) -> Option<(Duration, T)> {
        let Reverse((at, ..)) = self.heap.peek()?;
        if *at > until {
            return None;
        }
        let Reverse((at, _, place)) = self.heap.pop()?;
        self.free.push(place);
        Some((at, self.events[place].take()?))
    }
}
