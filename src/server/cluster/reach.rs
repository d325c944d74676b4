//! The other nodes that this one cannot reach, by the dials of clients and by looks of its own.
//!
//! A node that is killed or paused is no node any more once its lease has ended, and a dial may fail by chance. So a node
//! counts as one that cannot be reached when its dials have failed for longer than a lease.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::core::cluster::Incarnation;
use crate::core::cluster::registry::Timing;

/// Dials that fail in a row, at least, before a node counts as one that cannot be reached.
const ATTEMPTS: u32 = 3;

/// Nodes at which this one looks in each pause between renewals, at most. All nodes look at one that joins.
const LOOKS: u32 = 20;

/// Time after which a look without an outcome is repeated. It is longer than a dial.
const LOOK: Duration = Duration::from_secs(5);

/// The other nodes with a lease, and whether they can be reached.
#[derive(Default)]
pub(in crate::server) struct Reach(Mutex<HashMap<Incarnation, Seen>>);

/// A node, as the dials to it show it.
struct Seen {
    /// The address at which it is dialled.
    address: String,
    /// The dials that have failed since the last one that has worked.
    failing: Option<Failing>,
    /// Whether it cannot be reached.
    is_unreachable: bool,
    /// The time of the next look at it.
    look_at: Option<Instant>,
    /// The time since which it has other settings than this node.
    differs_since: Option<Instant>,
}

impl Seen {
    fn new(address: &str, look_at: Option<Instant>) -> Self {
        Self { address: address.to_owned(), failing: None, is_unreachable: false, look_at, differs_since: None }
    }
}

/// Dials that have failed in a row.
struct Failing {
    since: Instant,
    attempts: u32,
}

/// A node, and the address at which it is dialled.
pub(in crate::server) struct At<'a> {
    /// This start of the node.
    pub(in crate::server) node: &'a Incarnation,
    /// The address.
    pub(in crate::server) address: &'a str,
    /// Whether it has other settings than this node.
    pub(in crate::server) differs: bool,
}

/// Time for which dials fail before a node counts as one that cannot be reached. It is longer than a lease and the next
/// renewals, so that nodes that have died are none any more.
fn patience(timing: &Timing) -> Duration {
    timing.lease + timing.renew * 4
}

/// Pause between looks at a node to which a dial has failed: on average, so that not all nodes dial it at once.
fn pause(timing: &Timing) -> Duration {
    timing.renew * 2
}

impl Reach {
    /// Takes over the other nodes with a lease. One that is new, or has another address, is looked at soon: the more nodes
    /// there are, the more time they take for it, since all of them look at it. Returns those that have had other settings
    /// than this node for a time.
    pub(in crate::server) fn take_over(&self, others: &[At<'_>], timing: &Timing, now: Instant) -> Vec<Incarnation> {
        let mut all = self.0.lock();
        all.retain(|node, _| others.iter().any(|other| other.node == node));
        let spread = timing.renew * u32::try_from(others.len()).unwrap_or(u32::MAX) / LOOKS;
        let mut differing = Vec::new();
        for At { node, address, differs } in others {
            let is_known = all.get(*node).is_some_and(|seen| seen.address == *address);
            if !is_known {
                let look_at = Some(now + spread.mul_f64(fastrand::f64()));
                all.insert((*node).clone(), Seen::new(address, look_at));
            }
            let Some(seen) = all.get_mut(*node) else { continue };
            seen.differs_since = differs.then(|| seen.differs_since.unwrap_or(now));
            if seen.differs_since.is_some_and(|since| now.saturating_duration_since(since) >= patience(timing)) {
                differing.push((*node).clone());
            }
        }
        differing
    }

    /// Returns the nodes that are to be looked at now, those first that have waited longest.
    pub(in crate::server) fn due(&self, now: Instant) -> Vec<Incarnation> {
        let mut all = self.0.lock();
        let due = all.iter().filter_map(|(node, seen)| Some((seen.look_at.filter(|at| *at <= now)?, node.clone())));
        let mut due: Vec<_> = due.collect();
        due.sort_unstable_by_key(|(at, _)| *at);
        due.truncate(LOOKS as usize);
        for (_, node) in &due {
            if let Some(seen) = all.get_mut(node) {
                seen.look_at = Some(now + LOOK);
            }
        }
        due.into_iter().map(|(_, node)| node).collect()
    }

    /// Begins to count again, when this node was no member: its own network may have been cut.
    pub(in crate::server) fn begin_again(&self, now: Instant) {
        for seen in self.0.lock().values_mut() {
            if seen.failing.take().is_some() {
                seen.look_at = Some(now);
            }
        }
    }

    /// Notes a dial that has worked: no look is needed, also at a node that is new. Returns whether the node could not be
    /// reached before.
    pub(in crate::server) fn worked(&self, node: &Incarnation, address: &str) -> bool {
        let mut all = self.0.lock();
        let seen = all.entry(node.clone()).or_insert_with(|| Seen::new(address, None));
        (seen.failing, seen.look_at) = (None, None);
        std::mem::take(&mut seen.is_unreachable)
    }

    /// Notes a dial that has failed. `is_final`: no further one will work. Returns whether the node counts as one that cannot
    /// be reached from now on.
    pub(in crate::server) fn failed(&self, node: &Incarnation, is_final: bool, timing: &Timing, now: Instant) -> bool {
        let mut all = self.0.lock();
        let Some(seen) = all.get_mut(node) else { return false };
        let failing = seen.failing.get_or_insert(Failing { since: now, attempts: 0 });
        failing.attempts += 1;
        let lasts = now.saturating_duration_since(failing.since);
        let counts = is_final || (failing.attempts >= ATTEMPTS && lasts >= patience(timing));
        // Clients may dial it more often, and do not put it off.
        let look_at = now + pause(timing).mul_f64(0.75 + 0.5 * fastrand::f64());
        seen.look_at = Some(seen.look_at.filter(|at| *at > now).map_or(look_at, |at| at.min(look_at)));
        counts && !std::mem::replace(&mut seen.is_unreachable, true)
    }

    /// Whether a node cannot be reached.
    pub(in crate::server) fn is_unreachable(&self, node: &Incarnation) -> bool {
        self.0.lock().get(node).is_some_and(|seen| seen.is_unreachable)
    }

    /// The number of nodes with a lease that cannot be reached.
    pub(in crate::server) fn unreachable(&self) -> usize {
        self.0.lock().values().filter(|seen| seen.is_unreachable).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nodes of a test, which turns the clock.
    struct Others {
        reach: Reach,
        timing: Timing,
        began: Instant,
    }

    impl Others {
        fn new(count: u64) -> Self {
            let others = Self { reach: Reach::default(), timing: Timing::default(), began: Instant::now() };
            assert!(others.are(0..count, "a:1", false, 0).is_empty());
            others
        }

        fn at(&self, tenths: u64) -> Instant {
            self.began + Duration::from_millis(tenths * 100)
        }

        fn are(&self, starts: std::ops::Range<u64>, address: &str, differs: bool, tenths: u64) -> Vec<Incarnation> {
            let nodes: Vec<_> = starts.map(node).collect();
            let others: Vec<_> = nodes.iter().map(|node| At { node, address, differs }).collect();
            self.reach.take_over(&others, &self.timing, self.at(tenths))
        }

        fn due(&self, tenths: u64) -> usize {
            self.reach.due(self.at(tenths)).len()
        }

        fn fails(&self, tenths: u64) -> bool {
            self.reach.failed(&node(0), false, &self.timing, self.at(tenths))
        }
    }

    fn node(start: u64) -> Incarnation {
        Incarnation::new("b", start).unwrap()
    }

    #[test]
    fn node_whose_dials_fail_for_longer_than_a_lease_cannot_be_reached() {
        let others = Others::new(1);
        assert!((0..100).all(|tenths| !others.fails(tenths)));
        assert_eq!(others.reach.unreachable(), 0);
        // It is told once.
        assert_eq!((100..200).filter(|tenths| others.fails(*tenths)).count(), 1);
        assert!(others.reach.is_unreachable(&node(0)) && others.reach.unreachable() == 1);
        assert!(others.reach.worked(&node(0), "a:1") && !others.reach.worked(&node(0), "a:1"));
        assert_eq!(others.reach.unreachable(), 0);
        // It begins to count again, and two dials in an hour tell nothing.
        assert!(!others.fails(300) && !others.fails(36_000) && others.fails(36_001));
    }

    #[test]
    fn node_without_a_lease_is_none() {
        let others = Others::new(1);
        others.fails(0);
        others.are(1..2, "a:1", false, 70);
        assert!((70..300).all(|tenths| !others.fails(tenths)));
        assert_eq!(others.reach.unreachable(), 0);
    }

    #[test]
    fn node_of_another_version_is_told_at_once() {
        let others = Others::new(1);
        assert!(others.reach.failed(&node(0), true, &others.timing, others.at(0)));
        assert!(!others.reach.failed(&node(0), true, &others.timing, others.at(1)));
    }

    #[test]
    fn node_is_looked_at_when_it_comes_and_when_it_has_another_address() {
        let others = Others::new(1);
        assert_eq!((others.due(10), others.due(11)), (1, 0));
        others.reach.worked(&node(0), "a:1");
        assert_eq!((10..20_000).map(|tenths| others.due(tenths)).sum::<usize>(), 0);
        others.are(0..1, "a:2", false, 20_000);
        assert_eq!(others.due(20_010), 1);
        // The dial of a client comes first.
        others.reach.worked(&node(1), "a:1");
        others.are(1..2, "a:1", false, 20_020);
        assert_eq!(others.due(20_100), 0);
    }

    #[test]
    fn node_that_cannot_be_reached_is_looked_at_again_and_again() {
        let others = Others::new(1);
        let mut looks = 0;
        for tenths in 0..1_000 {
            if others.due(tenths) > 0 {
                looks += 1;
                others.fails(tenths);
            }
        }
        // For 100 s, each 2 s on average.
        assert!((38..70).contains(&looks), "{looks}");
        assert!(others.reach.is_unreachable(&node(0)));
    }

    #[test]
    fn two_hundred_nodes_look_at_a_newcomer_at_different_times() {
        let others = Others::new(200);
        let mut looks = Vec::new();
        for tenths in (0..=110).step_by(10) {
            let due = others.reach.due(others.at(tenths));
            for node in &due {
                assert!(!others.reach.worked(node, "a:1"));
            }
            looks.push(due.len());
        }
        assert!(looks.iter().all(|looks| *looks <= LOOKS as usize), "{looks:?}");
        assert!(looks.iter().sum::<usize>() >= 180, "{looks:?}");
    }

    #[test]
    fn node_that_was_no_member_counts_again() {
        let others = Others::new(1);
        assert!(!others.fails(0) && !others.fails(1) && !others.fails(2));
        others.reach.begin_again(others.at(500));
        assert!(!others.fails(500) && !others.fails(501) && !others.fails(502));
    }

    #[test]
    fn other_settings_are_told_when_they_stay() {
        let others = Others::new(2);
        assert!((0..100).all(|tenths| others.are(0..1, "a:1", true, tenths).is_empty()));
        assert_eq!(others.are(0..1, "a:1", true, 100), [node(0)]);
        assert!(others.are(0..1, "a:1", false, 101).is_empty());
        assert!(others.are(0..1, "a:1", true, 102).is_empty());
    }
}
