//! The turns of clients to be connected to one other node.
//!
//! A burst of clients would have each of its connections time out on a node that is busy, and all of them made again.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::Unreachable;
use crate::config::Limits;

/// The turns to connect to one other node. Those that wait get theirs in the order of their arrival.
pub(super) struct Dials {
    turns: Semaphore,
    /// The number of turns that there are.
    most: Mutex<usize>,
    waiting: AtomicUsize,
}

impl Default for Dials {
    fn default() -> Self {
        Self { turns: Semaphore::new(0), most: Mutex::new(0), waiting: AtomicUsize::new(0) }
    }
}

/// A place in the queue, until it is dropped.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Dials {
    /// Waits for a turn, which lasts until the permit is dropped. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// [`Unreachable::Queue`] if too many wait.
    pub(super) async fn turn(&self, limits: &Limits) -> Result<SemaphorePermit<'_>, Unreachable> {
        self.resize(limits.max_node_dials);
        // There is none while others wait: a permit that is freed goes to the first of them.
        if let Ok(permit) = self.turns.try_acquire() {
            return Ok(permit);
        }
        let place = Place(&self.waiting);
        if self.waiting.fetch_add(1, Relaxed) >= limits.max_node_dial_queue {
            return Err(Unreachable::Queue);
        }
        let permit = self.turns.acquire().await;
        drop(place);
        permit.map_err(|_| Unreachable::Queue)
    }

    /// Takes over the number of turns, which a reload may have changed. Turns that are taken go on.
    fn resize(&self, wanted: usize) {
        let wanted = wanted.min(Semaphore::MAX_PERMITS);
        let mut most = self.most.lock();
        if wanted > *most {
            self.turns.add_permits(wanted - *most);
            *most = wanted;
        } else if wanted < *most {
            *most -= self.turns.forget_permits(*most - wanted);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use crate::server::nodes::dials::*;

    fn limits(most: usize, queue: usize) -> Limits {
        Limits { max_node_dials: most, max_node_dial_queue: queue, ..Limits::default() }
    }

    #[test]
    fn turns_are_given_in_the_order_of_arrival() {
        let (dials, limits) = (Dials::default(), limits(2, 3));
        let mut turns: Vec<_> = (0..2).map(|_| dials.turn(&limits).now_or_never().unwrap().unwrap()).collect();
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(dials.turn(&limits))).collect();
        assert!(waiting.iter_mut().all(|turn| turn.as_mut().now_or_never().is_none()));
        for _ in 0..3 {
            drop(turns.remove(0));
            // A newcomer does not overtake those that wait, and those behind the first still wait.
            assert!(waiting.iter_mut().skip(1).all(|turn| turn.as_mut().now_or_never().is_none()));
            turns.push(waiting.remove(0).now_or_never().unwrap().unwrap());
        }
        assert_eq!(dials.waiting.load(Relaxed), 0);
    }

    #[test]
    fn queue_is_bounded_and_left_by_those_that_give_up() {
        let (dials, limits) = (Dials::default(), limits(1, 2));
        let turn = dials.turn(&limits).now_or_never().unwrap().unwrap();
        let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(dials.turn(&limits))).collect();
        assert!(waiting.iter_mut().all(|turn| turn.as_mut().now_or_never().is_none()));
        for _ in 0..3 {
            assert!(matches!(dials.turn(&limits).now_or_never(), Some(Err(Unreachable::Queue))));
        }
        drop(waiting.remove(0));
        let mut next = Box::pin(dials.turn(&limits));
        assert!(next.as_mut().now_or_never().is_none());
        drop(turn);
        assert!(next.as_mut().now_or_never().is_none());
        drop(waiting.remove(0).now_or_never().unwrap().unwrap());
        assert!(next.now_or_never().unwrap().is_ok());
    }

    #[test]
    fn reload_changes_the_number_of_turns() {
        let dials = Dials::default();
        let take = |most| dials.turn(&limits(most, 1)).now_or_never().map(Result::unwrap);
        let turns: Vec<_> = (0..3).map(|_| take(3).unwrap()).collect();
        // Those that are taken go on, and those that are freed are not given again.
        assert!(take(1).is_none());
        drop(turns);
        assert!(take(1).is_some());
        let one = take(1).unwrap();
        assert!(take(1).is_none());
        let two = take(2).unwrap();
        assert!(take(2).is_none());
        drop((one, two));
    }
}
