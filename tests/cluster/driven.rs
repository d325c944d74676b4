//! A node whose engine and neighbours are the test.

use cuttlefish_signaling::core::cluster::claim::{Outcome, Probe};
use cuttlefish_signaling::core::cluster::registry::{
    Answer, Change, Claimed, Delta, Entry, Epoch, NodeRecord, Operation, Reply, Timing, Version, Wanted,
};
use cuttlefish_signaling::core::cluster::{Incarnation, Membership, Output, Registration};
use cuttlefish_signaling::protocol::DeviceId;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A node whose engine and neighbours are the test.
pub(crate) struct Node {
    pub(crate) membership: Membership,
    pub(crate) now: Instant,
    /// Outputs that were taken and not looked at.
    pub(crate) seen: Vec<Output>,
}

pub(crate) fn incarnation(name: &str, start: u64) -> Incarnation {
    Incarnation::new(name, start).unwrap()
}

pub(crate) fn record(name: &str, start: u64) -> NodeRecord {
    NodeRecord { incarnation: incarnation(name, start), details: Arc::from("{}") }
}

pub(crate) fn own(number: u64) -> Registration {
    Registration::new(incarnation("a", 1), number)
}

pub(crate) fn other(number: u64) -> Registration {
    Registration::new(incarnation("b", 2), number)
}

pub(crate) fn id() -> DeviceId {
    DeviceId::new("cvd-1")
}

pub(crate) fn wanted(number: u64) -> Wanted {
    Wanted { id: id(), registration: own(number), details: Arc::from("{}") }
}

pub(crate) fn held(lease: Duration) -> Reply {
    Reply::Claimed(Claimed::Held { holder: other(1), lease })
}

/// The version of this number in the history that a test has.
pub(crate) fn version(number: u64) -> Version {
    Version { number, stamp: number }
}

/// A change that follows the version before it.
pub(crate) fn delta(number: u64, change: Change) -> Delta {
    Delta { version: version(number), after: number - 1, change }
}

/// The only page of the registry, at version 1.
pub(crate) fn page(entries: Vec<(DeviceId, Entry)>) -> Reply {
    page_at(version(1), entries)
}

/// The only page of the registry at this version.
pub(crate) fn page_at(version: Version, entries: Vec<(DeviceId, Entry)>) -> Reply {
    Reply::Page { epoch: Epoch(1), version, cursor: 0, entries, unsigned: vec![] }
}

pub(crate) fn tell(number: u64, outcome: Outcome) -> Output {
    Output::Tell { registration: own(number), outcome }
}

pub(crate) fn operation(output: Output) -> Option<Operation> {
    match output {
        Output::Send { operation, .. } => Some(operation),
        _ => None,
    }
}

pub(crate) fn probe(claimant: u64) -> Output {
    Output::Probe { id: id(), claimant: own(claimant), holder: other(1) }
}

impl Node {
    pub(crate) fn new(hold: bool) -> Self {
        Self::seeded(hold, 7)
    }

    /// A node whose pauses this seed decides.
    pub(crate) fn seeded(hold: bool, seed: u64) -> Self {
        let now = Instant::now();
        Self { membership: Membership::new(record("a", 1), Timing::default(), hold, seed, now), now, seen: Vec::new() }
    }

    /// A node that has joined, beside the node `b`, and has read the registry, in which `b` holds these ids.
    pub(crate) fn joined(entries: &[&str]) -> Self {
        let mut node = Self::new(false);
        node.join(Duration::from_secs(60));
        node.pass(Duration::ZERO);
        let entry = Entry { registration: other(1), details: Arc::from("{}"), version: 1 };
        let entries = entries.iter().map(|id| (DeviceId::new(id), entry.clone())).collect();
        let rest = node.answer(&Operation::Scan(0), page(entries));
        node.seen.extend(rest);
        let rest = node.answer(&Operation::Nodes, Reply::Nodes(vec![record("a", 1), record("b", 2)]));
        node.seen.extend(rest);
        node.answer(&Operation::ReadIce, Reply::Ice(None));
        node.outputs();
        node
    }

    pub(crate) fn join(&mut self, age: Duration) {
        self.membership.handle_timeout(self.now);
        assert_eq!(self.outputs(), [Output::Connect]);
        self.membership.on_connected(self.now);
        let nodes = vec![record("a", 1), record("b", 2)];
        self.answer(
            &Operation::Join { node: record("a", 1), replaces: None },
            Reply::Joined { epoch: Epoch(1), version: version(1), age, nodes },
        );
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.membership.handle_timeout(self.now);
    }

    /// Loses the engine, and joins again as soon as the next attempt comes. Returns what is put out meanwhile.
    pub(crate) fn rejoin(&mut self) -> Vec<Output> {
        self.membership.on_lost(self.now);
        let mut outputs = self.outputs();
        while !outputs.contains(&Output::Connect) {
            self.now = self.now.max(self.membership.poll_timeout());
            self.membership.handle_timeout(self.now);
            outputs.extend(self.outputs());
        }
        self.membership.on_connected(self.now);
        let nodes = vec![record("a", 1), record("b", 2)];
        let joined = Reply::Joined { epoch: Epoch(1), version: version(1), age: Duration::from_secs(60), nodes };
        outputs.extend(self.answer(&Operation::Join { node: record("a", 1), replaces: None }, joined));
        outputs
    }

    /// Lets time pass second by second, while the engine answers the renewals and says that this node alone is there.
    pub(crate) fn pass_renewed(&mut self, time: Duration) {
        for _ in 0..time.as_secs() {
            self.pass(Duration::from_secs(1));
            let outputs = self.outputs();
            let version = version(self.membership.directory().version());
            for output in outputs {
                match output {
                    Output::Send { number, operation: Operation::Renew(_) } => {
                        let reply = Reply::Renewed { epoch: Epoch(1), version, nodes: vec![incarnation("a", 1)] };
                        self.membership.on_reply(number, reply, self.now);
                    }
                    Output::Send { number, operation: operation @ Operation::Reclaim { .. } } => {
                        self.membership.on_reply(number, Reply::Reclaimed(vec![Claimed::Granted]), self.now);
                        self.seen.push(Output::Send { number, operation });
                    }
                    other => self.seen.push(other),
                }
            }
        }
    }

    pub(crate) fn outputs(&mut self) -> Vec<Output> {
        let mut outputs = std::mem::take(&mut self.seen);
        outputs.extend(std::iter::from_fn(|| self.membership.poll_output()));
        outputs
    }

    /// Answers the operation, which is the only one of its kind that was sent. Returns what else was put out.
    pub(crate) fn answer(&mut self, operation: &Operation, answer: impl Into<Answer>) -> Vec<Output> {
        let (sent, rest): (Vec<_>, Vec<_>) = self
            .outputs()
            .into_iter()
            .partition(|output| matches!(output, Output::Send { operation: sent, .. } if sent == operation));
        let [Output::Send { number, .. }] = sent[..] else { panic!("{operation:?} is not in {sent:?}, {rest:?}") };
        self.membership.on_reply(number, answer, self.now);
        rest
    }

    pub(crate) fn claim(&mut self, number: u64) {
        self.membership.claim(wanted(number), false, self.now);
    }

    /// Answers the claim of the first registration.
    pub(crate) fn claimed(&mut self, expected: Option<Registration>, reply: Reply) {
        self.answer(&Operation::Claim { wanted: wanted(1), expected, place: None }, reply);
    }

    pub(crate) fn probed(&mut self, probe: Probe) {
        self.membership.on_probe(&id(), &own(1), &other(1), probe, self.now);
    }

    /// A node whose claim is held by `b`, which was asked.
    pub(crate) fn asks_b(lease: Duration) -> Self {
        let mut node = Self::joined(&["cvd-1"]);
        node.claim(1);
        node.claimed(None, held(lease));
        assert_eq!(node.outputs(), [probe(1)]);
        node
    }
}
