//! ICE servers that all nodes share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use cuttlefish_signaling::core::cluster::Output;
use cuttlefish_signaling::core::cluster::output::Report;
use cuttlefish_signaling::core::cluster::registry::{
    Change, Claimed, Epoch, Expectation, Expected, Operation, Reply, Wanted,
};
use cuttlefish_signaling::protocol::DeviceId;

use crate::driven::*;

#[allow(clippy::unnecessary_wraps)] // As the operations take them.
fn servers(name: &str) -> Option<Arc<str>> {
    Some(format!("[{{\"urls\":\"turn:{name}\"}}]").into())
}

fn is_ice(output: &Output) -> bool {
    matches!(output, Output::Ice(_))
}

/// Tells the node that the servers have changed, and answers its question. Returns what it takes over.
fn changed(node: &mut Node, version: u64, to: Option<Arc<str>>) -> Vec<Output> {
    node.membership.on_delta(&delta(version, Change::Ice), node.now);
    node.answer(&Operation::ReadIce, Reply::Ice(to));
    node.outputs().into_iter().filter(is_ice).collect()
}

/// Loses the engine, and joins the registry of this epoch.
fn rejoin(node: &mut Node, epoch: u64) {
    join_again(node, epoch);
    // After a loss, the registry is read within the pause of a renewal.
    node.now += Duration::from_secs(1);
    node.membership.handle_timeout(node.now);
}

/// Joins again after a loss, until the engine has answered that it has the node.
fn join_again(node: &mut Node, epoch: u64) {
    node.membership.on_lost(node.now);
    node.pass(Duration::from_secs(2));
    node.membership.on_connected(node.now);
    let join = Operation::Join { node: record("a", 1), replaces: None };
    let age = Duration::from_secs(60);
    node.answer(&join, Reply::Joined { epoch: Epoch(epoch), version: version(1), age, nodes: vec![record("a", 1)] });
}

#[test]
fn servers_of_another_node_are_taken_over_once() {
    let mut node = Node::joined(&[]);
    assert_eq!(changed(&mut node, 2, servers("a")), [Output::Ice(servers("a"))]);
    assert_eq!(changed(&mut node, 3, servers("a")), []);
    assert_eq!(changed(&mut node, 4, servers("b")), [Output::Ice(servers("b"))]);
    assert_eq!(changed(&mut node, 5, None), [Output::Ice(None)]);
    assert_eq!(changed(&mut node, 6, None), []);
}

#[test]
fn servers_that_the_engine_has_lost_are_given_back() {
    let mut node = Node::joined(&[]);
    changed(&mut node, 2, servers("a"));
    rejoin(&mut node, 2);
    node.answer(&Operation::ReadIce, Reply::Ice(None));
    let sent = node.outputs();
    let back = Operation::SetIce { servers: servers("a"), absent: true };
    assert!(
        sent.iter().any(|output| matches!(output, Output::Send { operation, .. } if *operation == back)),
        "{sent:?}"
    );
    assert!(!sent.iter().any(is_ice), "{sent:?}");
}

#[test]
fn servers_that_were_removed_meanwhile_are_not_given_back() {
    let mut node = Node::joined(&[]);
    changed(&mut node, 2, servers("a"));
    rejoin(&mut node, 1);
    node.answer(&Operation::ReadIce, Reply::Ice(None));
    assert_eq!(node.outputs().into_iter().filter(is_ice).collect::<Vec<_>>(), [Output::Ice(None)]);
}

#[test]
fn servers_that_were_set_without_the_engine_are_set_later() {
    let mut node = Node::joined(&[]);
    node.membership.on_lost(node.now);
    node.outputs();
    node.membership.set_ice(servers("a"), node.now);
    assert_eq!(node.outputs(), []);
    rejoin(&mut node, 1);
    node.answer(&Operation::SetIce { servers: servers("a"), absent: false }, Reply::Done);
    // Once they are set, they are not set again.
    changed(&mut node, 2, servers("a"));
    node.membership.on_delta(&delta(3, Change::Ice), node.now);
    let again = |output: &Output| matches!(output, Output::Send { operation: Operation::SetIce { .. }, .. });
    assert!(!node.outputs().iter().any(again));
}

/// With another secret, a node writes all that it has in the registry again: at once, or when it has the engine.
#[test]
fn all_is_signed_again_with_another_secret() {
    for is_away in [false, true] {
        let mut node = Node::joined(&[]);
        node.claim(1);
        node.claimed(None, Reply::Claimed(Claimed::Granted));
        node.outputs();
        if is_away {
            node.membership.on_lost(node.now);
        }
        node.membership.sign_again(node.now);
        let reclaim = Operation::Reclaim { node: incarnation("a", 1), wanted: vec![wanted(1)] };
        if is_away {
            join_again(&mut node, 1);
        }
        // Fails unless it was sent. The engine answers before a second has passed.
        let mut outputs = node.answer(&reclaim, Reply::Reclaimed(vec![Claimed::Granted]));
        // The registry is read once all is claimed.
        node.now += Duration::from_secs(1);
        node.membership.handle_timeout(node.now);
        outputs.extend(node.outputs());
        let sent: Vec<_> = outputs.into_iter().filter_map(operation).collect();
        let join = Operation::Join { node: record("a", 1), replaces: None };
        assert!(sent.contains(&Operation::SealIce), "{sent:?}");
        assert!(is_away || sent.contains(&join), "{sent:?}");
    }
}

#[test]
fn servers_are_sealed_once() {
    let mut node = Node::joined(&[]);
    node.membership.sign_again(node.now);
    node.answer(&Operation::SealIce, Reply::Done);
    node.membership.on_delta(&delta(2, Change::Ice), node.now);
    let sent: Vec<_> = node.outputs().into_iter().filter_map(operation).collect();
    assert!(!sent.contains(&Operation::SealIce), "{sent:?}");
}

fn reply_to(operation: &Operation) -> Reply {
    match operation {
        Operation::Claim { .. } => Reply::Claimed(Claimed::Granted),
        Operation::Reclaim { wanted, .. } => Reply::Reclaimed(vec![Claimed::Granted; wanted.len()]),
        Operation::ReadIce => Reply::Ice(None),
        Operation::Expect { expected, .. } => Reply::Expected(vec![Expectation::Pending; expected.len()]),
        Operation::Nodes => Reply::Nodes(vec![record("a", 1), record("b", 2)]),
        Operation::Scan(_) => page(vec![]),
        Operation::Renew(_) => Reply::Renewed {
            epoch: Epoch(1),
            version: version(1),
            nodes: vec![incarnation("a", 1), incarnation("b", 2)],
        },
        _ => Reply::Done,
    }
}

/// Operators remove the old secret when the log says that all is signed with the new one.
#[test]
fn signed_is_reported_once_and_when_the_engine_has_all() {
    for lost_after in [None, Some(0), Some(1), Some(2), Some(3), Some(4), Some(5), Some(6)] {
        let mut node = Node::joined(&[]);
        node.claim(1);
        node.claimed(None, Reply::Claimed(Claimed::Granted));
        node.outputs();
        // The record of this claim was signed before.
        let late = Wanted { id: DeviceId::new("cvd-2"), ..wanted(2) };
        node.membership.claim(late.clone(), false, node.now);
        node.membership.sign_again(node.now);
        let (mut sent, mut reclaimed) = (VecDeque::new(), Vec::new());
        let (mut answered, mut signed, mut is_read) = (0, 0, false);
        loop {
            for output in node.outputs() {
                match output {
                    Output::Send { number, operation } => sent.push_back((number, operation)),
                    Output::Report(Report::Signed) => {
                        signed += 1;
                        let writes = sent.iter().any(|(_, operation)| !matches!(operation, Operation::Renew(_)));
                        assert!(!writes, "{lost_after:?}: {sent:?}");
                    }
                    _ => {}
                }
            }
            if lost_after == Some(answered) {
                answered += 1;
                sent.clear();
                let outputs = node.rejoin();
                node.seen.extend(outputs.into_iter().filter(|output| !matches!(output, Output::Connect)));
                continue;
            }
            let Some((number, operation)) = sent.pop_front() else {
                if std::mem::replace(&mut is_read, true) {
                    break;
                }
                // After a loss, the registry is read within the pause of a renewal.
                node.pass(Duration::from_secs(1));
                continue;
            };
            if let Operation::Reclaim { wanted, .. } = &operation {
                reclaimed.clone_from(wanted);
            }
            node.membership.on_reply(number, reply_to(&operation), node.now);
            answered += 1;
        }
        assert_eq!(signed, 1, "{lost_after:?}");
        assert_eq!(reclaimed, [wanted(1), late], "{lost_after:?}");
    }
}

/// The operations that a node has sent.
#[derive(Default)]
struct Sent {
    /// Those without an answer.
    waiting: VecDeque<(u64, Operation)>,
    all: Vec<Operation>,
    /// How often the node has reported that all is signed.
    signed: usize,
}

impl Sent {
    fn take(&mut self, node: &mut Node) {
        for output in node.outputs() {
            match output {
                Output::Send { number, operation } => {
                    self.all.push(operation.clone());
                    self.waiting.push_back((number, operation));
                }
                Output::Report(Report::Signed) => {
                    assert!(self.waiting.is_empty(), "{:?}", self.waiting);
                    self.signed += 1;
                }
                _ => {}
            }
        }
    }

    /// Answers the oldest operations, up to the first one that is `last`, or all.
    fn answer(&mut self, node: &mut Node, last: impl Fn(&Operation) -> bool) {
        self.take(node);
        while let Some((number, operation)) = self.waiting.pop_front() {
            node.membership.on_reply(number, reply_to(&operation), node.now);
            self.take(node);
            if last(&operation) {
                return;
            }
        }
    }

    /// Forgets the operations so far, and returns how many of them are such.
    fn count(&mut self, such: impl Fn(&Operation) -> bool) -> usize {
        std::mem::take(&mut self.all).iter().filter(|operation| such(operation)).count()
    }
}

#[test]
fn announcements_are_signed_again_at_once_and_after_those_that_were_under_way() {
    let mut node = Node::joined(&[]);
    let device = Expected { id: id(), details: Arc::from("{}") };
    node.membership.announce(1, std::slice::from_ref(&device), 10, node.now);
    let expect = Operation::Expect { node: incarnation("a", 1), expected: vec![device], most: 10 };
    node.answer(&expect, Reply::Expected(vec![Expectation::Pending]));
    let mut sent = Sent::default();
    node.membership.sign_again(node.now);
    sent.take(&mut node);
    assert_eq!(sent.count(|operation| *operation == expect), 1, "at once");
    sent.answer(&mut node, |_| false);
    assert_eq!((sent.count(|operation| *operation == expect), sent.signed), (1, 1), "one that was under way");
}

#[test]
fn claim_between_two_secrets_is_signed_with_the_second_one() {
    let mut node = Node::joined(&[]);
    let mut sent = Sent::default();
    node.membership.sign_again(node.now);
    // The engine answers it after the seal of the first secret, with which it was signed.
    node.claim(1);
    node.membership.sign_again(node.now);
    sent.answer(&mut node, |_| false);
    let reclaim = Operation::Reclaim { node: incarnation("a", 1), wanted: vec![wanted(1)] };
    assert_eq!((sent.count(|operation| *operation == reclaim), sent.signed), (1, 1));
}

#[test]
fn secret_that_follows_while_records_are_signed_is_reported_alone() {
    let mut node = Node::joined(&[]);
    node.claim(1);
    let mut sent = Sent::default();
    sent.answer(&mut node, |_| false);
    node.membership.sign_again(node.now);
    sent.answer(&mut node, |operation| *operation == Operation::SealIce);
    // Records are being written once more, and the report of the first secret is near.
    node.membership.sign_again(node.now);
    let seal = |sent: &Sent| sent.waiting.iter().any(|(_, operation)| *operation == Operation::SealIce);
    sent.take(&mut node);
    while seal(&sent) {
        assert_eq!(sent.signed, 0, "that of the first secret");
        sent.answer(&mut node, |_| true);
    }
    sent.answer(&mut node, |_| false);
    assert_eq!(sent.signed, 1);
}
