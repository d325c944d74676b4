//! The turns of clients to be connected to one other node, and the control connection that they share.
//!
//! A burst of clients would have each of its connections time out on a node that is busy, and all of them made again.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

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

/// The control connection to another node, which all clients there share.
#[derive(Default)]
pub(super) struct Control {
    state: AsyncMutex<ControlState>,
    /// The number of attempts that have begun.
    attempts: AtomicUsize,
}

#[derive(Default)]
struct ControlState {
    /// Cancelled when the connection is lost.
    connection: Option<CancellationToken>,
    /// The last attempt that has failed, and why.
    failed: Option<(usize, Unreachable)>,
}

impl Control {
    /// Returns the connection, which `make` makes if there is none. The token is cancelled when it is lost.
    ///
    /// One attempt is enough for all that wait for it: those to a silent node take seconds.
    ///
    /// # Errors
    /// That of the attempt.
    pub(super) async fn get(
        &self,
        make: impl Future<Output = Result<CancellationToken, Unreachable>>,
    ) -> Result<CancellationToken, Unreachable> {
        let before = self.attempts.load(Relaxed);
        let mut state = self.state.lock().await;
        if let Some(token) = state.connection.as_ref().filter(|token| !token.is_cancelled()) {
            return Ok(token.clone());
        }
        if let Some((_, error)) = state.failed.as_ref().filter(|(attempt, _)| *attempt >= before) {
            return Err(error.clone());
        }
        let attempt = self.attempts.fetch_add(1, Relaxed);
        let token = make.await.inspect_err(|error| state.failed = Some((attempt, error.clone())))?;
        *state = ControlState { connection: Some(token.clone()), failed: None };
        Ok(token)
    }

    /// Whether an attempt to make the connection is under way.
    pub(super) fn is_being_made(&self) -> bool {
        self.state.try_lock().is_err()
    }

    /// Ends the connection. While it is made, there is none to end.
    pub(super) fn close(&self) {
        if let Ok(state) = self.state.try_lock()
            && let Some(token) = &state.connection
        {
            token.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::Poll;
    use std::time::Duration;

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

    /// The number of clients that come at once.
    const CLIENTS: usize = 300;

    /// Turns at a time.
    const MOST: usize = 16;

    type Turn<'a> = Pin<Box<dyn Future<Output = Result<SemaphorePermit<'a>, Unreachable>> + 'a>>;

    /// A client, with the second in which it began to be so.
    enum State<'a> {
        Queued(Turn<'a>, u64),
        Dials { since: u64, _turn: SemaphorePermit<'a> },
        Pauses(u64),
        Served,
    }

    /// Clients of a node that answers no dial for a time.
    struct Storm<'a> {
        dials: &'a Dials,
        limits: &'a Limits,
        clients: Vec<State<'a>>,
        /// The seconds in which dials were begun.
        begun: Vec<u64>,
    }

    impl Storm<'_> {
        /// Lets one second pass. A dial takes `takes` seconds, and then succeeds or not. A client leaves the queue after 5 s,
        /// and comes again after a pause of one.
        fn pass(&mut self, now: u64, takes: u64, succeeds: bool) {
            let (dials, limits) = (self.dials, self.limits);
            for client in &mut self.clients {
                *client = match std::mem::replace(client, State::Served) {
                    State::Dials { since, .. } if now >= since + takes && succeeds => State::Served,
                    State::Dials { since, .. } if now >= since + takes => State::Pauses(now),
                    State::Queued(_, since) if now >= since + 5 => State::Pauses(now),
                    State::Pauses(since) if now > since => State::Queued(Box::pin(dials.turn(limits)), now),
                    other => other,
                };
            }
            for client in &mut self.clients {
                if let State::Queued(turn, _) = client
                    && let Some(permit) = turn.as_mut().now_or_never()
                {
                    *client = State::Dials { since: now, _turn: permit.unwrap() };
                    self.begun.push(now);
                }
            }
            let under_way = self.clients.iter().filter(|client| matches!(client, State::Dials { .. })).count();
            let queued = self.clients.iter().filter(|client| matches!(client, State::Queued(..))).count();
            assert!(under_way <= MOST, "{under_way}");
            assert_eq!(self.dials.waiting.load(Relaxed), queued);
        }
    }

    #[test]
    fn clients_of_a_node_that_was_overloaded_are_served_with_one_dial_each() {
        let (dials, limits) = (Dials::default(), limits(MOST, CLIENTS));
        let clients = (0..CLIENTS).map(|_| State::Pauses(0)).collect();
        let mut storm = Storm { dials: &dials, limits: &limits, clients, begun: Vec::new() };
        // For ten minutes each dial times out after 4 s.
        for now in 1..=600 {
            storm.pass(now, 4, false);
        }
        assert!(storm.begun.len() <= MOST * (600 / 4 + 1), "{}", storm.begun.len());
        assert!((1..=600).all(|now| storm.begun.iter().filter(|begun| **begun == now).count() <= MOST));
        // Then each takes a second.
        let before = storm.begun.len();
        let rounds = u64::try_from(CLIENTS.div_ceil(MOST)).unwrap();
        for now in 601..=601 + 2 * rounds {
            storm.pass(now, 1, true);
        }
        assert!(storm.clients.iter().all(|client| matches!(client, State::Served)));
        assert!(storm.begun.len() - before <= CLIENTS, "{}", storm.begun.len() - before);
    }

    /// An attempt, which ends when the test says so. Counts those that are under way.
    async fn attempt(
        under_way: &AtomicUsize,
        begun: &AtomicUsize,
        outcome: &Mutex<Option<Result<CancellationToken, Unreachable>>>,
    ) -> Result<CancellationToken, Unreachable> {
        assert_eq!(under_way.fetch_add(1, Relaxed), 0);
        let _ends = Place(under_way);
        begun.fetch_add(1, Relaxed);
        std::future::poll_fn(|_| outcome.lock().clone().map_or(Poll::Pending, Poll::Ready)).await
    }

    #[test]
    fn one_attempt_for_the_control_connection_serves_all_that_wait() {
        let (control, under_way, begun) = (Control::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        let outcome = Mutex::new(None);
        for round in 1..=10 {
            *outcome.lock() = None;
            let ask = || Box::pin(control.get(attempt(&under_way, &begun, &outcome)));
            let mut waiting: Vec<_> = (0..CLIENTS).map(|_| ask()).collect();
            assert!(waiting.iter_mut().all(|one| one.as_mut().now_or_never().is_none()));
            // The one that makes the attempt leaves, and the next one begins another.
            drop(waiting.remove(0));
            assert!(waiting.iter_mut().all(|one| one.as_mut().now_or_never().is_none()));
            // Those that come while it is under way are told by the next one.
            let mut late: Vec<_> = (0..CLIENTS).map(|_| ask()).collect();
            assert!(late.iter_mut().all(|one| one.as_mut().now_or_never().is_none()));
            *outcome.lock() = Some(Err(Unreachable::Silent(Duration::from_secs(4))));
            for one in waiting.iter_mut().chain(&mut late) {
                assert!(matches!(one.as_mut().now_or_never(), Some(Err(Unreachable::Silent(_)))));
            }
            assert_eq!(begun.load(Relaxed), 3 * round);
        }
        // After the overload all have the connection of one attempt.
        *outcome.lock() = Some(Ok(CancellationToken::new()));
        for _ in 0..CLIENTS {
            assert!(control.get(attempt(&under_way, &begun, &outcome)).now_or_never().unwrap().is_ok());
        }
        assert_eq!(begun.load(Relaxed), 31);
        // One that is lost is made again.
        control.close();
        *outcome.lock() = Some(Ok(CancellationToken::new()));
        assert!(control.get(attempt(&under_way, &begun, &outcome)).now_or_never().unwrap().is_ok());
        assert_eq!(begun.load(Relaxed), 32);
    }
}
